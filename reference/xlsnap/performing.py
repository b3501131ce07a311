# SPDX-License-Identifier: LGPL-2.1-or-later
"""What each step does: to the host, to the store, and to what is noted of the domain.

Every one can be done again after an interruption, and finds its work done then.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from . import savefile
from . import steps as do
from . import store as files
from .chain import OVERLAY_FORMAT, with_images
from .domain import Overlay, RunState
from .errors import HostError, InputError
from .steps import DiskImage

if TYPE_CHECKING:
    from .executor import Executor

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


async def _prepare_memory(run: Executor, step: do.PrepareMemory) -> None:
    files.prepare_parent(step.path, run.paths)
    await run.host.prepare_memory(run.record, step.path)


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


PERFORM: dict[type[do.Step], Callable[[Executor, Any], Awaitable[None]]] = {
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
    do.PrepareMemory: _prepare_memory,
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
