# SPDX-License-Identifier: LGPL-2.1-or-later
"""Generated scenarios: as many as the profile wants, the same for the same seed."""

from __future__ import annotations

import pytest

from xlsnap_conformance.expectations import all_clauses
from xlsnap_conformance.machine import SHAPES, search
from xlsnap_conformance.plugin import RunContext
from xlsnap_conformance.subject import Subject

from .conftest import Need, Tell


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.clauses(*all_clauses())
def test_generated(shape: str, subject: Subject, xlsnap_run: RunContext, need: Need, tell: Tell) -> None:
    for capability in ("memory", "revert", "delete", "pause"):
        need(capability)
    checks = search(subject, shape, seed=xlsnap_run.seed, effort=xlsnap_run.profile.effort)
    tell(f"{checks} observations as the model says, seed {xlsnap_run.seed}")
