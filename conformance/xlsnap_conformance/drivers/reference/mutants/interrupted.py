# SPDX-License-Identifier: LGPL-2.1-or-later
"""Toolstacks that do not cope with being cut short, with a host that fails late, or with each other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xlsnap import steps
from xlsnap.executor import Executor
from xlsnap.journal import Interrupted, Journal
from xlsnap.steps import Plan, PlannedStep
from xlsnap.store import Store
from xlsnap.toolstack import Toolstack

from .catalogue import mutant, replace, wrap


@mutant("XLS-FAIL-006", bug="XenServer sm 3ecfefa: after a signal cache and disk disagree")
def recovery_does_nothing() -> None:
    """What an interrupted operation has left stays as it is."""

    async def recover(original: Any, self: Executor, interrupted: Interrupted) -> None:
        Journal(self.paths.journal).clear()

    wrap(Executor, "recover", recover)


@mutant("XLS-FAIL-004", "XLS-FAIL-006", bug="XenServer sm 3ecfefa: after a signal the wrong thing is undone")
def recovery_incomplete() -> None:
    """Of an interrupted operation only the step that was interrupted is taken back."""

    async def recover(original: Any, self: Executor, interrupted: Interrupted) -> None:
        kept = [PlannedStep(step.do) for step in interrupted.plan.steps[: interrupted.begun - 1]]
        left = interrupted.plan.steps[max(interrupted.begun - 1, 0) :]
        plan = replace(interrupted.plan, steps=(*kept, *left))
        await original(self, replace(interrupted, plan=plan))

    wrap(Executor, "recover", recover)


@mutant("XLS-FAIL-007")
def no_lock() -> None:
    """Two operations on one domain do not wait for each other."""

    @contextlib.contextmanager
    def locked(store: Store, path: Path, **_: Any) -> Iterator[None]:
        yield

    Store.locked = locked  # type: ignore[method-assign, assignment]


@mutant("XLS-LIST-010")
def list_waits() -> None:
    """A list waits until the operation on the domain has ended."""

    def listed(original: Any, self: Toolstack, ref: str) -> Any:
        uuid = self.store.find(ref)
        with self.store.locked(self.root.domain(uuid).lock, what="domain", timeout=60):
            return original(self, ref)

    wrap(Toolstack, "snapshot_list", listed)


@mutant("XLS-DELETE-015", bug="vdsm #352: a merge fails for lack of space")
def failed_merge_loses_the_upper() -> None:
    """The upper of two images is removed also when its merge has failed."""

    async def undo(original: Any, self: Executor, plan: Plan, *args: Any) -> Any:
        complete = await original(self, plan, *args)
        if plan.operation == "merge":
            for step in plan.steps:
                if isinstance(step.do, steps.RemoveImages):
                    await self.perform(step.do)
        return complete

    wrap(Executor, "_undo", undo)
