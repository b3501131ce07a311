# SPDX-License-Identifier: LGPL-2.1-or-later
"""Carry out plans: journal, step, journal; undo or finish what was interrupted."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from . import savefile
from . import steps as do
from . import store as files
from .chain import OVERLAY_FORMAT, with_images
from .domain import DomainRecord, Overlay, RunState
from .errors import HostError, HostTimeoutError, InputError, QemuDiedError, QmpError, XlsnapError
from .host import Host, Started
from .in_flight import StepsInFlight
from .journal import Interrupted, Journal
from .layout import DomainPaths
from .steps import AnyStep, DiskImage, Plan
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


# --- what each step does --------------------------------------------------------------------------------


_RESUMABLE = frozenset({RunState.RUNNING, RunState.BLOCKED, RunState.PAUSED})


async def _pause(run: Executor, step: do.PauseDomain) -> None:
    if step.if_active and not run.host.is_active(run.record):
        return
    await run.host.pause(run.record)


async def _resume(run: Executor, step: do.ResumeDomain) -> None:
    if step.if_active and await run.host.run_state(run.record) not in _RESUMABLE:
        return  # it has ended, or shut down, since it was paused
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


async def _create_overlays(run: Executor, step: do.CreateOverlays) -> None:
    before = run.record.overlays
    run.update(overlays=(*before, *(overlay for overlay in step.overlays if overlay not in before)))
    try:
        await run.host.create_overlays(step.overlays)
    except InputError:
        run.update(overlays=before)  # what is there is not ours
        raise


async def _copy_snapshot(run: Executor, step: do.CopySnapshot) -> None:
    before = run.record.overlays
    run.update(overlays=(*before, *(item for item in [step.copy] if item not in before)))
    try:
        await run.host.copy_snapshot(step.source, step.copy.path)
    except InputError:
        run.update(overlays=before)
        raise


async def _remove_images(run: Executor, step: do.RemoveImages) -> None:
    ours = {overlay.path for overlay in run.record.overlays}
    gone = [path for path in step.paths if path in ours]
    for path in gone:
        try:
            run.remove_file(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise HostError(f"cannot remove image {path}: {error.strerror}") from error
    if gone:
        run.update(overlays=tuple(item for item in run.record.overlays if item.path not in gone))


async def _take_disk_snapshots(run: Executor, step: do.TakeDiskSnapshots) -> None:
    await run.host.take_disk_snapshots(run.record, step.name, step.disks, step.overlaid)


async def _take_back_disk_snapshots(run: Executor, step: do.TakeBackDiskSnapshots) -> None:
    images = {
        disk.base.vdev: DiskImage(disk.base.vdev, disk.overlay, OVERLAY_FORMAT) for disk in step.overlaid
    }
    record = msgspec.structs.replace(run.record, config=with_images(run.record.config, images))
    for disk in step.overlaid:
        top = images[disk.base.vdev]
        if not os.path.lexists(top.path):
            continue  # an overlay that is gone was taken back before
        await run.host.copy_down(record, top, disk.base, active=True)
        runs = run.host.is_active(record) and await run.host.run_state(record) is RunState.RUNNING
        if runs:
            await run.host.pause(record)
        await run.host.switch_down(record, top, disk.base)
        await _remove_images(run, do.RemoveImages(paths=(top.path,)))
        if runs:
            await run.host.resume(record)
    if step.disks:
        await run.host.drop_disk_snapshots(run.record, step.name, step.disks, since_ns=step.since_ns)


async def _drop_disk_snapshots(run: Executor, step: do.DropDiskSnapshots) -> None:
    await run.host.drop_disk_snapshots(run.record, step.name, step.disks)


async def _apply_disk_snapshots(run: Executor, step: do.ApplyDiskSnapshots) -> None:
    await run.host.apply_disk_snapshots(run.record, step.disks)


async def _prepare_live(run: Executor, step: do.PrepareLive) -> None:
    files.prepare_parent(step.path, run.paths)
    await run.host.prepare_live(run.record, step.path, step.overlaid)


async def _drop_preparations(run: Executor, step: do.DropPreparations) -> None:
    await run.host.drop_preparations(run.record, step.path, step.overlaid)
    savefile.remove_memory_image(step.path, run.paths)


async def _save_memory(run: Executor, step: do.SaveMemory) -> None:
    files.prepare_parent(step.path, run.paths)
    await run.host.save_memory(run.record, step.path, live=step.live)


async def _copy_down(run: Executor, step: do.CopyDown) -> None:
    if _is_present(run, step.top) == step.active and os.path.lexists(step.top.path):
        await run.wait_for_space()
        await run.host.copy_down(run.record, step.top, step.base, active=step.active)


async def _stop_copying_down(run: Executor, step: do.StopCopyingDown) -> None:
    await run.host.stop_copying_down(run.record, step.top, step.base)


async def _switch_down(run: Executor, step: do.SwitchDown) -> None:
    if _is_present(run, step.top):
        await run.host.switch_down(run.record, step.top, step.base)


def _is_present(run: Executor, image: DiskImage) -> bool:
    """Say whether an image is that of a disk of the domain, as far as we have noted."""
    return any(disk.target == image.path for disk in run.record.config.disks)


async def _lay_over(run: Executor, step: do.LayOver) -> None:
    overlay = next((item for item in run.record.overlays if item.path == step.overlay), None)
    if overlay is None:
        return
    await run.host.lay_over(run.record, step.overlay, step.base)
    relaid = Overlay(overlay.path, step.base.path, step.base.format)
    run.update(overlays=tuple(relaid if item is overlay else item for item in run.record.overlays))


async def _update_domain(run: Executor, step: do.UpdateDomain) -> None:
    if (run.record.config, run.record.current) != (step.config, step.current):
        run.update(config=step.config, current=step.current)


async def _replace_metadata(run: Executor, step: do.ReplaceMetadata) -> None:
    run.store.write_metadata(run.paths, step.name, step.content.encode())


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
    do.CreateOverlays: _create_overlays,
    do.CopySnapshot: _copy_snapshot,
    do.RemoveImages: _remove_images,
    do.TakeDiskSnapshots: _take_disk_snapshots,
    do.TakeBackDiskSnapshots: _take_back_disk_snapshots,
    do.DropDiskSnapshots: _drop_disk_snapshots,
    do.ApplyDiskSnapshots: _apply_disk_snapshots,
    do.CopyDown: _copy_down,
    do.StopCopyingDown: _stop_copying_down,
    do.SwitchDown: _switch_down,
    do.LayOver: _lay_over,
    do.PrepareLive: _prepare_live,
    do.DropPreparations: _drop_preparations,
    do.SaveMemory: _save_memory,
    do.SyncFile: _sync_file,
    do.RemoveMemory: _remove_memory,
    do.WriteMetadata: _write_metadata,
    do.HideMetadata: _hide_metadata,
    do.ShowMetadata: _show_metadata,
    do.ForgetMetadata: _forget_metadata,
    do.ReplaceMetadata: _replace_metadata,
    do.UpdateDomain: _update_domain,
}
