# SPDX-License-Identifier: LGPL-2.1-or-later
"""The toolstack, broken on purpose in ways that only sudden death shows.

Each mutant changes the process that it is applied in.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from kill_points import Victim
from scenarios import Scenario
from xlsnap import plan as planning
from xlsnap import steps as do
from xlsnap import store as files
from xlsnap.executor import Executor
from xlsnap.journal import Interrupted, Journal
from xlsnap.steps import Plan, PlannedStep
from xlsnap.store import Store


def journal_forgets_steps() -> None:
    """The journal does not say which steps have begun."""

    def begin(journal: Journal, index: int) -> None:
        pass

    _replace(Journal, "begin", begin)


def recovery_does_nothing() -> None:
    """Recovery forgets what was interrupted."""

    async def recover(run: Executor, interrupted: Interrupted) -> None:
        Journal(run.paths.journal).clear()

    _replace(Executor, "recover", recover)


def recovery_stops_early() -> None:
    """Recovery takes back only the step that was interrupted."""
    whole = Executor.recover

    async def recover(run: Executor, interrupted: Interrupted) -> None:
        steps = list(interrupted.plan.steps)
        for index in range(interrupted.begun - 1):
            steps[index] = PlannedStep(steps[index].do)
        await whole(
            run, Interrupted(msgspec.structs.replace(interrupted.plan, steps=tuple(steps)), interrupted.begun)
        )

    _replace(Executor, "recover", recover)


def metadata_comes_before_memory() -> None:
    """A snapshot is listed before its memory is saved."""
    _reorder("plan_create", first=do.WriteMetadata, before=do.SaveMemory)


def metadata_is_hidden_last() -> None:
    """A snapshot is taken apart while it is listed."""
    _reorder("plan_delete", first=do.DropDiskSnapshots, before=do.HideMetadata)


def revert_can_be_taken_back() -> None:
    """A revert that was interrupted after the end of the running domain is undone."""
    _change("plan_revert", lambda plan: msgspec.structs.replace(plan, irrevocable_after=None))


def files_are_written_in_place() -> None:
    """Files are overwritten, not replaced."""

    def write(path: Path, content: bytes, *, temporary: Path | None = None) -> None:
        with open(path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    _replace(files, "write_durably", write)


def locks_hold_nobody() -> None:
    """Two operations at once do not wait for each other."""

    @contextlib.contextmanager
    def locked(store: Store, path: Path, **_: Any) -> Iterator[None]:
        yield

    _replace(Store, "locked", locked)


def failed_merge_loses_the_upper() -> None:
    """The upper of two images is removed also when its merge has failed."""
    whole = Executor._undo

    async def undo(run: Executor, plan: Plan, taken: int, error: BaseException) -> bool:
        complete = await whole(run, plan, taken, error)
        if plan.operation == "merge":
            for step in plan.steps:
                if isinstance(step.do, do.RemoveImages):
                    await run.perform(step.do)
        return complete

    _replace(Executor, "_undo", undo)


@dataclass(frozen=True)
class Mutant:
    """A mutant, and where it is caught: an operation, who is killed, and at which events (by beginning)."""

    apply: Callable[[], None]
    scenario: Scenario
    victims: tuple[Victim, ...]
    event: str

    def __str__(self) -> str:
        return self.apply.__name__


_CREATE = Scenario("create", "internal", 1)
_REVERT = Scenario("revert", "internal", 1)
_DELETE = Scenario("delete-first", "internal", 1)

MUTANTS = (
    Mutant(journal_forgets_steps, _CREATE, ("toolstack",), "after qmp transaction"),
    Mutant(recovery_does_nothing, _CREATE, ("toolstack",), "after qmp stop"),
    Mutant(recovery_stops_early, _CREATE, ("toolstack",), "after step SaveMemory"),
    Mutant(metadata_comes_before_memory, _CREATE, ("qemu", "toolstack"), "before step SaveMemory"),
    Mutant(metadata_is_hidden_last, _DELETE, ("toolstack",), "before step HideMetadata"),
    Mutant(revert_can_be_taken_back, _REVERT, ("toolstack",), "after step StopDomain"),
    Mutant(files_are_written_in_place, _CREATE, ("toolstack",), "after open root/snapshots"),
)


def _replace(owner: Any, attribute: str, value: object) -> None:
    setattr(owner, attribute, value)


def _change(function: str, change: Callable[[Plan], Plan]) -> None:
    """Let a planning function return another plan."""
    plan = getattr(planning, function)

    @functools.wraps(plan)
    def changed(*args: Any, **kwargs: Any) -> Plan:
        return change(plan(*args, **kwargs))

    _replace(planning, function, changed)


def _reorder(function: str, *, first: type[do.Step], before: type[do.Step]) -> None:
    """Let a plan do one step right before another."""

    def change(plan: Plan) -> Plan:
        moved = [step for step in plan.steps if isinstance(step.do, first)]
        steps = [step for step in plan.steps if step not in moved]
        place = next(index for index, step in enumerate(steps) if isinstance(step.do, before))
        return msgspec.structs.replace(plan, steps=(*steps[:place], *moved, *steps[place:]))

    _change(function, change)
