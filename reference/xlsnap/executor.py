# SPDX-License-Identifier: LGPL-2.1-or-later
"""Carry out plans: journal, step, journal; undo or finish what was interrupted."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from . import steps as do
from . import store as files
from .domain import DomainRecord, RunState
from .errors import HostError, HostTimeoutError, InputError, QemuDiedError, QmpError, XlsnapError
from .host import Host, Started
from .in_flight import StepsInFlight
from .journal import Interrupted, Journal
from .layout import DomainPaths
from .performing import PERFORM
from .steps import AnyStep, Plan
from .store import Store


class Executor:
    """Carries out plans for one domain, whose lock is held.

    ``record`` is always up to date; ``run_state`` is what was observed when the operation began.
    """

    def __init__(self, host: Host, store: Store, record: DomainRecord) -> None:
        self.host = host
        self.store = store
        self.record = record
        self.run_state: RunState | None = None
        self.paths: DomainPaths = store.root.domain(record.uuid)
        self._freeing: list[asyncio.Future[None]] = []

    async def execute(self, plan: Plan) -> None:
        """Carry out all steps of a plan, or none.

        When a step fails, those before it are taken back and its error is raised; so is the failing step
        itself, unless it was refused: it may have taken effect in part, as when QEMU dies in the middle. One
        that cannot be taken back counts as done when QEMU is lost.
        After the point of no return the journal stays, and the next command finishes the operation.
        """
        journal = Journal(self.paths.journal)
        journal.open(plan)
        busy = StepsInFlight()
        current = 0
        try:
            for index, step in enumerate(plan.steps):
                if not step.beside:
                    await busy.finish()
                current = index
                journal.begin(index)
                if plan.has_beside(index):
                    await busy.begin(index, self.perform(step.do))
                else:
                    await self.perform(step.do)
            await busy.finish()
        except BaseException as error:
            failed, cause = await busy.give_up(current, error)
            lost = isinstance(cause, QemuDiedError | HostTimeoutError) and plan.steps[failed].undo is None
            if plan.is_irrevocable(failed + 1 if lost else failed):
                journal.close(keep=True)
                _add_hint(error, "the next command on this domain tries to finish it")
            else:
                refused = failed == current and isinstance(error, QmpError | InputError)
                undone = await self._undo(plan, current if refused else current + 1, error)
                journal.close(keep=not undone)
            raise
        journal.close()

    async def recover(self, interrupted: Interrupted) -> None:
        """Undo an operation whose process died, or finish it if there is no way back.

        A step that had begun may have taken effect; steps and their undoing cope with both. A snapshot that
        exists is not taken back: somebody may have seen it in the list.
        """
        plan = interrupted.plan
        committed = plan.after_commit
        if plan.is_irrevocable(interrupted.begun):
            to_do = await self._forward(interrupted)
        elif (
            committed is not None
            and interrupted.begun >= committed
            and plan.snapshot in self.store.snapshots(self.record.uuid)
        ):
            to_do = [step.do for step in plan.steps[committed:]]
        else:
            to_do = _undoing(plan, interrupted.begun)
        for step in to_do:
            await self.perform(step)
        Journal(self.paths.journal).clear()

    async def _forward(self, interrupted: Interrupted) -> Sequence[AnyStep]:
        """Return what finishes an operation for which there is no way back.

        It goes on with the step that had begun. A domain that the operation has begun already is never begun
        again: it may have run since, and its memory must not be exchanged under its disks.
        """
        plan, begun = interrupted.plan, interrupted.begun
        first_irrevocable = (plan.irrevocable_after or 1) - 1
        resume = first_irrevocable if interrupted.reboot else max(first_irrevocable, plan.unfinished(begun))
        begins = [isinstance(step.do, do.PromoteSuccessor | do.StartDomain) for step in plan.steps]
        if any(begins) and resume <= begins.index(True):
            if begins[resume] and self.host.is_active(self.record):
                return [step.do for step in plan.steps[resume + 1 :]]  # the old one had ended before
            promotes = isinstance(plan.steps[resume].do, do.PromoteSuccessor)
            if not (promotes and self.host.has_successor(self.record)):
                await self.host.discard_successor(self.record)
                if all(step.undo is not None for step in plan.steps[:begun]):
                    return _undoing(plan, begun)
                return [*_renewing(plan), *(step.do for step in plan.steps[first_irrevocable:])]
        elif begun == 1 and (undo := plan.steps[0].undo) is not None:
            # Nothing but the first step has happened: if it cannot be finished, it can be taken back.
            try:
                await self.perform(plan.steps[0].do)
            except HostError:
                return [undo]
        return [step.do for step in plan.steps[resume:]]

    async def perform(self, step: AnyStep) -> None:
        """Carry out one step."""
        await PERFORM[type(step)](self, step)

    async def _undo(self, plan: Plan, taken: int, error: BaseException) -> bool:
        """Take back the first `taken` steps, in reverse; say whether all of it worked."""
        complete = True
        for step in reversed(plan.steps[:taken]):
            if step.undo is None:
                continue
            try:
                await self.perform(step.undo)
            except XlsnapError as undo_error:
                complete = False
                _add_hint(error, f"and undoing it failed: {undo_error.message}; the next command tries again")
        return complete

    def interrupted(self) -> bool:
        """Say whether an operation has left its journal, so that nothing else may begin."""
        return Journal(self.paths.journal).interrupted() is not None

    def remove_file(self, path: str) -> None:
        """Remove a file for good. Its space is given back in the background, which takes long for an image.

        :raise OSError: if it cannot be removed.
        """
        content = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.unlink(path)
            files.sync_directory(Path(path).parent)
        finally:
            closing = asyncio.get_running_loop().run_in_executor(None, os.close, content)
            self._freeing.append(closing)

    async def wait_for_space(self) -> None:
        """Wait until the space of removed files is free."""
        await asyncio.gather(*self._freeing)
        self._freeing.clear()

    def update(self, **changes: Any) -> None:
        """Change the domain's record."""
        self.record = msgspec.structs.replace(self.record, **changes)
        self.store.write_record(self.record)

    def became(self, started: Started, step: do.StartDomain | do.PromoteSuccessor) -> None:
        """Note the process that is the domain now; it gets a new id unless the step says otherwise."""
        keep = isinstance(step, do.PromoteSuccessor) and step.keep_domid
        domid = self.record.domid if keep else started.domid
        self.update(
            process=started.process,
            accelerator=started.accelerator,
            config=step.config,
            domid=self.store.allocate_domid() if domid is None else domid,
        )


def _undoing(plan: Plan, begun: int) -> list[AnyStep]:
    """Return what takes back the steps that had begun, the last one first."""
    return [step.undo for step in reversed(plan.steps[:begun]) if step.undo is not None]


def _renewing(plan: Plan) -> Iterator[AnyStep]:
    """Yield what makes the new images of a revert again: a guest that has died may have written to them."""
    if plan.operation != "revert":
        return
    for step in plan.steps:
        if isinstance(step.do, do.CreateOverlays | do.CopySnapshot) and step.undo is not None:
            yield step.undo
            yield step.do


def _add_hint(error: BaseException, text: str) -> None:
    if isinstance(error, XlsnapError):
        error.hint = f"{error.hint}; {text}" if error.hint else text
