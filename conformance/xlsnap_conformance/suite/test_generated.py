# SPDX-License-Identifier: LGPL-2.1-or-later
"""Generated scenarios: as many as the profile wants, the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from xlsnap_conformance.coverage import generated
from xlsnap_conformance.machine import EXTERNAL_SHAPES, SHAPES
from xlsnap_conformance.plugin import RunContext
from xlsnap_conformance.search import search
from xlsnap_conformance.subject import Subject

from .conftest import Need, Tell

Explore = Callable[[str], str]


@pytest.fixture
def explore(subject: Subject, xlsnap_run: RunContext, request: pytest.FixtureRequest) -> Explore:
    """A function that plays this machine's share of the scenarios of a shape, and says what it has seen."""

    def explore(shape: str) -> str:
        share = xlsnap_run.shares.get(request.node.nodeid)
        checks = search(
            subject,
            shape,
            seed=xlsnap_run.seed,
            effort=xlsnap_run.profile.effort,
            is_known=xlsnap_run.is_known(request.node.name),
            smaller=xlsnap_run.shrink,
            share=share,
            database=xlsnap_run.database(),
        )
        part = "" if share is None or share.whole else f", {len(share.slices)} of {share.of} slices"
        return f"{checks} observations as the model says, seed {xlsnap_run.seed}{part}"

    return explore


@pytest.mark.scenarios
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.clauses(*generated())
def test_generated(shape: str, need: Need, explore: Explore, tell: Tell) -> None:
    for capability in ("memory", "revert", "delete", "pause"):
        need(capability)
    tell(explore(shape))


@pytest.mark.scenarios
@pytest.mark.parametrize(
    ("shape", "able"),
    [
        pytest.param(shape, able, id=shape, marks=pytest.mark.clauses(*generated(*able)))
        for shape, (_, *able) in EXTERNAL_SHAPES.items()
    ],
)
def test_generated_external(shape: str, able: list[str], need: Need, explore: Explore, tell: Tell) -> None:
    for capability in ("memory", "revert", "delete", "pause", *able):
        need(capability)
    tell(explore(shape))
