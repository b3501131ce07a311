# SPDX-License-Identifier: LGPL-2.1-or-later
"""Toolstacks whose external or mixed snapshots are broken when they are made."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from xlsnap import chain, performing, plan, steps, toolstack
from xlsnap.domain import Overlay
from xlsnap.errors import DiskChoiceError
from xlsnap.executor import Executor
from xlsnap.plan import ChosenDisk, ObservedDomain
from xlsnap.qemu import QemuHost, disk_snapshots, nodes, overlays
from xlsnap.snapshot import DiskSnapshot, SnapshotType
from xlsnap.steps import DiskImage, Plan, PlannedStep
from xlsnap.toolstack import Toolstack

from .catalogue import edit_metadata, edit_steps, mutant, replace, wrap

# --- what the overlay is, and what it lies over -------------------------------------------------------------


@mutant("XLS-CREATE-025", "XLS-REVERT-015", test="external")
def base_written_after_create() -> None:
    """The guest goes on writing to the image that holds the state of an external snapshot."""

    async def take(
        original: Any, monitor: Any, record: Any, name: str, disks: Any, _: Any, nodes: Any, **more: Any
    ) -> None:
        await original(monitor, record, name, disks, (), nodes, **more)

    wrap(disk_snapshots, "take", take)


@mutant("XLS-CREATE-026", bug="OpenNebula #2189: the overlay is its own backing file", test="external")
def overlay_over_itself() -> None:
    """An overlay names itself as its backing file."""
    _lay_elsewhere(lambda overlay: DiskImage("", overlay.path, "qcow2"))


@mutant(
    "XLS-CREATE-026", bug="QEMU guesses the format of a backing file when it is not named", test="external"
)
def wrong_backing_format() -> None:
    """An overlay names its backing file as raw, whatever that is."""
    _lay_elsewhere(lambda overlay: DiskImage("", str(overlay.backing), "raw"))


def _lay_elsewhere(choose: Any) -> None:
    async def fill(original: Any, overlay: Overlay) -> None:
        await original(overlay)
        await overlays.lay_over(overlay.path, choose(overlay))

    wrap(overlays, "_fill", fill)


@mutant(
    "XLS-CREATE-026",
    "XLS-CREATE-027",
    bug="XenServer sm 73154a4: snapshotting a snapshot breaks tracking",
    test="external-delete-newest",
)
def overlay_over_first_image() -> None:
    """Every overlay lies over the image of the first day, not over the one that the disk had."""

    def create(original: Any, domain: ObservedDomain, *args: Any, **kwargs: Any) -> Plan:
        made: Plan = original(domain, *args, **kwargs)
        images = domain.images()

        def over_first(overlay: Overlay) -> Overlay:
            way = [str(overlay.backing), *images.below(str(overlay.backing))]
            above = images.overlays.get(way[-2]) if len(way) > 1 else None
            return Overlay(overlay.path, way[-1], above.backing_format if above else overlay.backing_format)

        def changed(step: PlannedStep) -> PlannedStep:
            if not isinstance(step.do, steps.CreateOverlays):
                return step
            over = tuple(map(over_first, step.do.overlays))
            return replace(step, do=replace(step.do, overlays=over))

        return replace(made, steps=tuple(map(changed, made.steps)))

    wrap(plan, "plan_create", create)


@mutant(
    "XLS-MODEL-007",
    bug="QEMU guesses the format of a backing file when it is not named",
    test="test_external.py::test_raw_backing_file_that_looks_like_qcow2",
)
def backing_format_guessed() -> None:
    """A raw backing file that looks like qcow2 is opened as qcow2."""

    def guess(image: DiskImage) -> DiskImage:
        with open(image.path, "rb") as file:
            return DiskImage(image.vdev, image.path, "qcow2") if file.read(4) == b"QFI\xfb" else image

    def images(original: Any, *args: Any) -> tuple[DiskImage, ...]:
        upper, *lower = original(*args)
        return (upper, *map(guess, lower))

    wrap(nodes, "chain", images)


@mutant("XLS-CREATE-027", test="external")
def overlay_forgotten() -> None:
    """The domain's configuration keeps the image that it had before the external snapshot."""

    def keep(planned: list[PlannedStep]) -> list[PlannedStep]:
        return [
            replace(step, do=replace(step.do, config=step.undo.config))
            if isinstance(step.do, steps.UpdateDomain) and isinstance(step.undo, steps.UpdateDomain)
            else step
            for step in planned
        ]

    edit_steps("plan_create", keep)


@mutant("XLS-CREATE-031", test="external-first-images")
def started_on_first_image() -> None:
    """A domain is started on whatever its configuration names, also if that is a backing file."""
    wrap(plan, "adopt_images", lambda original, domain, config, *, fresh: (config, []))


# --- where it goes ------------------------------------------------------------------------------------------


@mutant("XLS-CREATE-026", test="external")
def target_ignored() -> None:
    """The overlay goes to the default place, whatever target was asked for."""

    def choose(original: Any, *args: Any) -> tuple[ChosenDisk, ...]:
        return tuple(disk if disk.overlay is None else ChosenDisk(disk.image, "") for disk in original(*args))

    wrap(plan, "choose_disks", choose)


@mutant(
    "XLS-CREATE-010",
    bug="QEMU's blockdev-snapshot-sync overwrites a file that exists",
    test="external-bad-targets",
)
def target_overwritten() -> None:
    """A file that is where an overlay should go is overwritten."""

    def problems(original: Any, self: Toolstack, disks: tuple[ChosenDisk, ...]) -> Any:
        for disk in disks:
            if disk.overlay and os.path.isfile(disk.overlay):
                os.unlink(disk.overlay)
        return original(self, disks)

    wrap(Toolstack, "overlay_problems", problems)


@mutant(
    "XLS-CREATE-028",
    "XLS-MODEL-004",
    test="test_external.py::test_default_target_is_a_file_that_did_not_exist",
)
def default_target_overwritten() -> None:
    """The overlay goes to the first of the default places; a file that is there is overwritten."""

    def first(original: Any, candidates: Any, taken: set[str]) -> str:
        path = str(next(candidates))
        Path(path).unlink(missing_ok=True)
        return path

    wrap(toolstack, "_free_path", first)


@mutant("XLS-CREATE-029", test="external-raw")
def raw_disk_refused() -> None:
    """A raw image cannot be snapshotted externally either."""

    def choose(original: Any, *args: Any) -> tuple[ChosenDisk, ...]:
        chosen: tuple[ChosenDisk, ...] = original(*args)
        if any(disk.image.format == "raw" for disk in chosen):
            raise DiskChoiceError("a raw image cannot be snapshotted")
        return chosen

    wrap(plan, "choose_disks", choose)


# --- what is told of it -------------------------------------------------------------------------------------


def _edit_external(edit: Any) -> None:
    def changed(disk: DiskSnapshot) -> DiskSnapshot:
        return edit(disk) if disk.type is SnapshotType.EXTERNAL else disk

    edit_metadata(lambda snapshot: replace(snapshot, disks=tuple(map(changed, snapshot.disks))))


@mutant(
    "XLS-META-013",
    bug="Proxmox VE, review of October 2024: the name of the base is that of the present disk",
    test="external",
)
def path_is_the_present_image() -> None:
    """Metadata names the overlay as the image that holds the state."""
    _edit_external(lambda disk: replace(disk, path=disk.file, format="qcow2"))


@mutant("XLS-META-013", test="external")
def overlay_not_told() -> None:
    """Metadata does not tell which overlay the domain went on with."""
    _edit_external(lambda disk: replace(disk, file=None))


@mutant("XLS-META-015", test="mixed")
def type_of_the_first_disk() -> None:
    """The type of a mixed snapshot is that of its first disk."""
    edit_metadata(
        lambda snapshot: replace(snapshot, type=snapshot.disks[0].type) if snapshot.disks else snapshot
    )


# --- mixed snapshots, and those that fail -------------------------------------------------------------------


@mutant("XLS-CREATE-030", test="test_external.py::test_mixed_disks_and_memory_are_of_one_instant")
def external_disks_before_the_pause() -> None:
    """The guest runs on for 50 ms after its external disks were snapshotted, until the others are."""

    async def take(
        original: Any, self: QemuHost, record: Any, name: str, disks: Any, overlaid: Any = ()
    ) -> None:
        if disks or not overlaid:
            await original(self, record, name, disks, overlaid)
            return
        await original(self, record, name, (), overlaid)
        await asyncio.sleep(0.05)

    def split(planned: list[PlannedStep]) -> list[PlannedStep]:
        taken = next((step.do for step in planned if isinstance(step.do, steps.TakeDiskSnapshots)), None)
        pauses = [isinstance(step.do, steps.PauseDomain) for step in planned]
        if taken is None or not taken.overlaid or True not in pauses:
            return planned
        early = PlannedStep(replace(taken, disks=()))
        late = [
            replace(step, do=replace(taken, overlaid=())) if step.do is taken else step
            for step in planned
            if step.do is not taken or taken.disks
        ]
        place = pauses.index(True)
        pause = replace(late[place], beside=False)
        return [*late[:place], early, pause, *late[place + 1 :]]

    wrap(QemuHost, "take_disk_snapshots", take)
    edit_steps("plan_create", split)


@mutant(
    "XLS-CREATE-023",
    bug="OpenNebula #5920: a failed create leaves the VM on an empty overlay",
    test="external-bad-targets",
)
def left_on_the_overlay() -> None:
    """A domain goes on with the overlays of a create that has failed."""

    async def take_back(run: Executor, step: steps.TakeBackDiskSnapshots) -> None:
        await original(run, replace(step, overlaid=()))
        images = {
            disk.base.vdev: DiskImage(disk.base.vdev, disk.overlay, chain.OVERLAY_FORMAT)
            for disk in step.overlaid
        }
        run.update(config=chain.with_images(run.record.config, images))

    def keep_overlays(planned: list[PlannedStep]) -> list[PlannedStep]:
        return [
            PlannedStep(step.do) if isinstance(step.do, steps.CreateOverlays) else step for step in planned
        ]

    original = performing.PERFORM[steps.TakeBackDiskSnapshots]
    performing.PERFORM[steps.TakeBackDiskSnapshots] = take_back
    edit_steps("plan_create", keep_overlays)


@mutant("XLS-CREATE-023", test="mixed-all-or-nothing")
def overlay_left_by_failing_create() -> None:
    """The domain goes on as it was after a create that has failed, but the overlays are left."""

    async def forget(run: Executor, step: steps.RemoveImages) -> None:
        run.update(overlays=tuple(item for item in run.record.overlays if item.path not in step.paths))

    async def undo(original: Any, self: Executor, plan: Plan, *args: Any) -> Any:
        if plan.operation != "create":
            return await original(self, plan, *args)
        remove = performing._remove_images
        performing._remove_images = performing.PERFORM[steps.RemoveImages] = forget
        try:
            return await original(self, plan, *args)
        finally:
            performing._remove_images = performing.PERFORM[steps.RemoveImages] = remove

    wrap(Executor, "_undo", undo)


@mutant(
    "XLS-MODEL-004",
    bug="XenServer sm f57e2f8: the cleanup after a failed rename deletes the source",
    test="mixed-all-or-nothing",
)
def source_deleted_by_cleanup() -> None:
    """A create that fails removes the images that it would have made the backing files."""

    async def undo(original: Any, self: Executor, plan: Plan, *args: Any) -> Any:
        complete = await original(self, plan, *args)
        for step in plan.steps:
            if isinstance(step.do, steps.CreateOverlays):
                for overlay in step.do.overlays:
                    Path(str(overlay.backing)).unlink(missing_ok=True)
        return complete

    wrap(Executor, "_undo", undo)


@mutant(
    "XLS-CREATE-023",
    bug="XenServer sm 8f18ace: disks are left paused after a failed snapshot",
    test="failing-create",
)
def left_paused_by_failing_create() -> None:
    """A domain stays paused when its snapshot could not be made."""

    def forget(planned: list[PlannedStep]) -> list[PlannedStep]:
        return [PlannedStep(step.do) if isinstance(step.do, steps.PauseDomain) else step for step in planned]

    edit_steps("plan_create", forget)
