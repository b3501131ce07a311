# SPDX-License-Identifier: LGPL-2.1-or-later
"""The harness finds what it is there for: each broken toolstack is caught."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from laboratory import Laboratory
from mutants import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_broken_toolstack_is_caught(mutant: Mutant, laboratory: Callable[..., Laboratory]) -> None:
    lab = laboratory(mutant.scenario, prepare=[mutant.apply])
    events = lab.survey.events
    points = [number for number, event in enumerate(events) if event.startswith(mutant.event)]
    assert points, f"the operation has no event {mutant.event!r}: {events}"
    complaints = [lab.cut_short(point, mutant.victims) for point in points]
    assert any(complaints), f"{mutant} goes unnoticed"
