# SPDX-License-Identifier: LGPL-2.1-or-later
"""The harness finds what it is there for: each broken toolstack is caught."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from laboratory import Laboratory
from mutants import MUTANTS, Mutant

ROUNDS = 5
"""How often a kill point is tried until the broken toolstack is caught."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_broken_toolstack_is_caught(mutant: Mutant, laboratory: Callable[..., Laboratory]) -> None:
    lab = laboratory(mutant.scenario, prepare=[mutant.apply])
    events = lab.survey.events
    points = [number for number, event in enumerate(events) if event.startswith(mutant.event)]
    assert points, f"the operation has no event {mutant.event!r}: {events}"
    # Steps beside each other change places: then events have other numbers than in the survey.
    complaints = (lab.cut_short(point, mutant.victims) for _ in range(ROUNDS) for point in points)
    assert any(complaints), f"{mutant} goes unnoticed"
