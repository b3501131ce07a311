# SPDX-License-Identifier: LGPL-2.1-or-later
"""Operations that are cut short anywhere: the next command finds the old state or the new one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from kill_points import Victim
from laboratory import Laboratory
from sampling import Selection
from scenarios import SCENARIOS, Scenario

BUDGETS: dict[tuple[Victim, ...], int] = {("toolstack",): 3, ("qemu",): 2, ("qemu", "toolstack"): 1}
"""How many kill points of each scenario are tried unless all are asked for, by who is killed."""

RECOVERED = [scenario for scenario in SCENARIOS if scenario.disks == 2 and scenario.initial == "running"]
"""Scenarios of which the recovery is cut short too."""

RECOVERY_BUDGETS: dict[tuple[Victim, ...], int] = {("toolstack",): 2, ("qemu", "toolstack"): 1}
"""How many kill points of each recovery."""


def check(complaints: Iterable[str | None]) -> None:
    """Fail with all complaints, so that one run shows them all."""
    found = [complaint for complaint in complaints if complaint is not None]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_cut_short(scenario: Scenario, laboratory: Callable[..., Laboratory], selection: Selection) -> None:
    lab = laboratory(scenario)
    check(
        lab.cut_short(at, victims)
        for victims, budget in BUDGETS.items()
        for at in selection.points(lab.survey.events, budget, salt="".join(victims))
    )


@pytest.mark.parametrize("scenario", RECOVERED, ids=str)
def test_recovery_cut_short(
    scenario: Scenario, laboratory: Callable[..., Laboratory], selection: Selection
) -> None:
    lab = laboratory(scenario)
    steps = [number for number, event in enumerate(lab.survey.events) if event.startswith("after step ")]
    if not selection.every:
        steps = [steps[selection.rotation % len(steps)]]
    check(
        lab.cut_recovery_short(step, at, victims)
        for step in steps
        for events in [lab.recovery_events(step)]
        for victims, budget in RECOVERY_BUDGETS.items()
        for at in selection.points(events, budget, salt=f"{step} {victims}")
    )
