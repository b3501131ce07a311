# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fixed scenarios: the traces in ``scenarios/``. Each says in its title what it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlsnap_conformance.coverage import counted
from xlsnap_conformance.trace import Trace, load

from .conftest import Play

TRACES = {path.stem: load(path) for path in sorted((Path(__file__).parent / "scenarios").glob("*.json"))}


@pytest.mark.parametrize(
    "trace",
    [
        pytest.param(trace, id=name, marks=pytest.mark.clauses(*counted(trace)))
        for name, trace in TRACES.items()
    ],
)
def test_scenario(trace: Trace, play: Play) -> None:
    play(trace)
