# SPDX-License-Identifier: LGPL-2.1-or-later
"""Carry out plans: journal, step, journal; undo or finish what was interrupted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from . import savefile
from . import steps as do
from . import store as files
from .domain import DomainRecord, RunState
from .errors import InputError, QmpError, XlsnapError
from .host import Host, Started
from .journal import Interrupted, Journal
from .layout import DomainPaths
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

    async def execute(self, plan: Plan) -> None:
        """Carry out all steps of a plan, or none.

        When a step fails, those before it are taken back and its error is raised; so is the failing step
        itself, unless it was refused: it may have taken effect in part, as when QEMU dies in the middle.
        After the point of no return the journal stays, and the next command finishes the operation.
        """
        journal = Journal(self.paths.journal)
        journal.open(plan)
        taken = 0
        try:
            for taken, step in enumerate(plan.steps):
                journal.begin(taken)
                await self.perform(step.do)
        except BaseException as error:
            if plan.is_irrevocable(taken):
                journal.close(keep=True)
                _add_hint(error, "the next command on this domain tries to finish it")
            else:
                refused = isinstance(error, QmpError | InputError)
                undone = await self._undo(plan, taken if refused else taken + 1, error)
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
            to_do: Sequence[AnyStep] = [step.do for step in plan.irrevocable_steps]
        elif (
            committed is not None
            and interrupted.begun >= committed
            and plan.snapshot in self.store.snapshots(self.record.uuid)
        ):
            to_do = [step.do for step in plan.steps[committed:]]
        else:
            to_do = [step.undo for step in reversed(plan.steps[: interrupted.begun]) if step.undo is not None]
        for step in to_do:
            await self.perform(step)
        Journal(self.paths.journal).clear()

    async def perform(self, step: AnyStep) -> None:
        """Carry out one step."""
        await _PERFORM[type(step)](self, step)

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

    def update(self, **changes: Any) -> None:
        """Change the domain's record."""
        self.record = msgspec.structs.replace(self.record, **changes)
        self.store.write_record(self.record)

    def became(self, started: Started, step: do.StartDomain | do.PromoteSuccessor) -> None:
        """Note the process that is the domain now; it gets a new id unless the step says otherwise."""
        keep = isinstance(step, do.PromoteSuccessor) and step.keep_domid
        self.update(
            process=started.process,
            accelerator=started.accelerator,
            config=step.config,
            domid=self.record.domid if keep else self.store.allocate_domid(),
        )


def _add_hint(error: BaseException, text: str) -> None:
    if isinstance(error, XlsnapError):
        error.hint = f"{error.hint}; {text}" if error.hint else text


# --- what each step does --------------------------------------------------------------------------------


async def _pause(run: Executor, step: do.PauseDomain) -> None:
    await run.host.pause(run.record)


async def _resume(run: Executor, step: do.ResumeDomain) -> None:
    if run.host.is_active(run.record) or not step.if_active:
        await run.host.resume(run.record)


async def _stop(run: Executor, step: do.StopDomain) -> None:
    await run.host.stop(run.record)


async def _start(run: Executor, step: do.StartDomain) -> None:
    run.became(await run.host.start(run.record, step.config, paused=step.paused), step)


async def _load_successor(run: Executor, step: do.LoadSuccessor) -> None:
    await run.host.discard_successor(run.record)
    await run.host.load_successor(run.record, step.config, step.memory_image)


async def _discard_successor(run: Executor, step: do.DiscardSuccessor) -> None:
    await run.host.discard_successor(run.record)


async def _promote_successor(run: Executor, step: do.PromoteSuccessor) -> None:
    run.became(
        await run.host.promote_successor(run.record, step.config, step.memory_image, paused=step.paused), step
    )


async def _take_disk_snapshots(run: Executor, step: do.TakeDiskSnapshots) -> None:
    await run.host.take_disk_snapshots(run.record, step.name, step.disks)


async def _drop_disk_snapshots(run: Executor, step: do.DropDiskSnapshots) -> None:
    await run.host.drop_disk_snapshots(run.record, step.name, step.disks, since_ns=step.since_ns)


async def _apply_disk_snapshots(run: Executor, step: do.ApplyDiskSnapshots) -> None:
    await run.host.apply_disk_snapshots(run.record, step.disks)


async def _save_memory(run: Executor, step: do.SaveMemory) -> None:
    files.prepare_parent(step.path, run.paths)
    await run.host.save_memory(run.record, step.path)


async def _sync_file(run: Executor, step: do.SyncFile) -> None:
    files.sync_file(step.path, run.paths)


async def _remove_memory(run: Executor, step: do.RemoveMemory) -> None:
    savefile.remove_memory_image(step.path, run.paths)


async def _write_metadata(run: Executor, step: do.WriteMetadata) -> None:
    run.store.write_metadata(run.paths, step.name, step.content.encode())


async def _hide_metadata(run: Executor, step: do.HideMetadata) -> None:
    run.store.hide_metadata(run.paths, step.name)


async def _show_metadata(run: Executor, step: do.ShowMetadata) -> None:
    run.store.show_metadata(run.paths, step.name)


async def _forget_metadata(run: Executor, step: do.ForgetMetadata) -> None:
    run.store.forget_metadata(run.paths, step.name)


_PERFORM: dict[type[do.Step], Callable[[Executor, Any], Awaitable[None]]] = {
    do.PauseDomain: _pause,
    do.ResumeDomain: _resume,
    do.StopDomain: _stop,
    do.StartDomain: _start,
    do.LoadSuccessor: _load_successor,
    do.DiscardSuccessor: _discard_successor,
    do.PromoteSuccessor: _promote_successor,
    do.TakeDiskSnapshots: _take_disk_snapshots,
    do.DropDiskSnapshots: _drop_disk_snapshots,
    do.ApplyDiskSnapshots: _apply_disk_snapshots,
    do.SaveMemory: _save_memory,
    do.SyncFile: _sync_file,
    do.RemoveMemory: _remove_memory,
    do.WriteMetadata: _write_metadata,
    do.HideMetadata: _hide_metadata,
    do.ShowMetadata: _show_metadata,
    do.ForgetMetadata: _forget_metadata,
}
