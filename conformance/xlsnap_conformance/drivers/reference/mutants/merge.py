# SPDX-License-Identifier: LGPL-2.1-or-later
"""Toolstacks whose delete loses, leaves or mixes up images."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from xlsnap import chain, plan, steps
from xlsnap.chain import Images
from xlsnap.errors import SnapshotDamagedError
from xlsnap.plan import ObservedDomain
from xlsnap.qemu import QemuHost, disk_snapshots, images
from xlsnap.snapshot import DomainSnapshot, SnapshotType
from xlsnap.steps import DiskImage, Plan, PlannedStep
from xlsnap.toolstack import Toolstack

from .catalogue import edit_steps, mutant, replace, without, wrap

# --- what is removed ----------------------------------------------------------------------------------------


@mutant(
    "XLS-DELETE-012",
    "XLS-MODEL-004",
    bug="virt-manager #811, libvirt #734: revert to an internal snapshot, delete an external one: base gone",
    test="external-delete-after-internal",
)
def base_image_deleted() -> None:
    """Deleting an external snapshot removes the image of its state, unless the domain writes to that."""

    async def delete(original: Any, self: Toolstack, ref: str, name: str, **kwargs: Any) -> Any:
        uuid = self.resolve(ref).uuid
        doomed = [
            disk for disk in self.store.snapshots(uuid)[name].disks if disk.type is SnapshotType.EXTERNAL
        ]
        warnings = await original(self, ref, name, **kwargs)
        record = self.store.record(uuid)
        present = {disk.target for disk in record.config.disks} if record else set()
        for disk in doomed:
            if disk.path not in present:
                Path(disk.path).unlink(missing_ok=True)
        return warnings

    wrap(Toolstack, "snapshot_delete", delete)


@mutant(
    "XLS-DELETE-012",
    bug="CloudStack #9446: deleting the newest snapshot erases its parents",
    test="external-delete-newest",
)
def parents_erased_with_newest() -> None:
    """Deleting an external snapshot removes the overlays that its image lies over."""

    def delete(original: Any, domain: ObservedDomain, snapshot: DomainSnapshot) -> Plan:
        made: Plan = original(domain, snapshot)
        paths = {lower for disk in snapshot.disks for lower in domain.images().below(disk.path)}
        remove = PlannedStep(steps.RemoveImages(paths=tuple(sorted(paths))))
        return replace(made, steps=(*made.steps[:-1], remove, made.steps[-1]))

    wrap(plan, "plan_delete", delete)


@mutant("XLS-DELETE-008", test="external-branches-delete-leaf")
def unused_image_left_by_delete() -> None:
    """An image that only the deleted snapshot needed is left."""
    edit_steps("plan_delete", without(steps.RemoveImages))


@mutant("XLS-DELETE-008", test="external-delete-middle")
def merged_image_left() -> None:
    """The upper of two images that were merged is left."""
    edit_steps("plan_merge", without(steps.RemoveImages))


@mutant(
    "XLS-DELETE-012",
    bug="LibVirtKvm-scripts #27, #29: the chain is looked at after it was consolidated",
    test="external-delete-oldest",
)
def wrong_image_removed_after_merge() -> None:
    """After a merge the image over the merged one is removed as well."""

    def remove_over(planned: list[PlannedStep]) -> list[PlannedStep]:
        over = tuple(step.do.overlay for step in planned if isinstance(step.do, steps.LayOver))
        return [*planned, PlannedStep(steps.RemoveImages(paths=over))]

    edit_steps("plan_merge", remove_over)


# --- what is merged -----------------------------------------------------------------------------------------


@mutant("XLS-DELETE-013", test="external-delete-middle")
def merged_below_another_branch() -> None:
    """Two images are merged although another branch reads from the lower one."""
    wrap(chain, "Counter", lambda original, readers: defaultdict(lambda: 1))


@mutant("XLS-DELETE-012", "XLS-DELETE-006", test="external-internal-above")
def tags_lost_by_merge() -> None:
    """An image is merged although it holds internal snapshots."""

    def merges(original: Any, self: Images) -> Any:
        return original(replace(self, tagged={}, states={**self.tagged, **self.states}))

    wrap(Images, "merges", merges)


@mutant(
    "XLS-DELETE-013",
    bug="VirtualBox #850: what was filled with zeros comes back after a merge",
    test="external-zeros",
)
def zeros_lost_by_merge() -> None:
    """Clusters of zeros are not copied when an image is merged into a raw one."""

    async def copy_down(
        original: Any, self: QemuHost, record: Any, top: DiskImage, base: DiskImage, **kwargs: Any
    ) -> None:
        before = Path(base.path).read_bytes() if base.format == "raw" else b""
        await original(self, record, top, base, **kwargs)
        for start in range(0, len(before), 65536):
            old = before[start : start + 65536]
            with open(base.path, "r+b") as file:
                file.seek(start)
                if any(old) and not any(file.read(65536)):
                    file.seek(start)
                    file.write(old)

    wrap(QemuHost, "copy_down", copy_down)


@mutant(
    "XLS-DELETE-014",
    "XLS-DELETE-012",
    bug="libvirt 32cf4ed5: the backing link of a sibling branch is not updated",
    test="external-other-branch",
)
def sibling_not_laid_over() -> None:
    """Images over a merged one that are not in use still name it as their backing file."""

    async def nothing(original: Any, self: QemuHost, record: Any, overlay: str, base: DiskImage) -> None:
        pass

    wrap(QemuHost, "lay_over", nothing)


@mutant(
    "XLS-DELETE-014",
    "XLS-DELETE-012",
    bug="CloudStack #14030: metadata points to a deleted file",
    test="external-delete-oldest",
)
def metadata_names_merged_image() -> None:
    """Metadata still names an image that was merged into another."""
    edit_steps("plan_merge", without(steps.ReplaceMetadata))


@mutant("XLS-DELETE-014", test="external-delete-oldest")
def merged_image_still_configured() -> None:
    """The domain's configuration still names an image that was merged into another."""
    edit_steps("plan_merge", without(steps.UpdateDomain))


@mutant("XLS-DELETE-005", test="external-delete-newest")
def left_paused_by_merge() -> None:
    """A running domain is paused after the merge of the image that it writes to."""
    edit_steps("plan_merge", without(steps.ResumeDomain))


# --- internal snapshots, and what is lost already -----------------------------------------------------------


@mutant("XLS-DELETE-002", test="external-delete-internal-below")
def tag_left_in_backing_file() -> None:
    """The internal snapshot stays in an image that an overlay lies over."""

    async def nothing(original: Any, *args: Any) -> None:
        pass

    wrap(disk_snapshots, "_drop_below", nothing)


@mutant(
    "XLS-CREATE-001",
    "XLS-DELETE-004",
    "XLS-MODEL-002",
    bug="CloudStack #3193: deleting an internal snapshot of a live image corrupts it",
    test="delete-all",
)
def deleted_behind_qemu() -> None:
    """Internal snapshots are deleted with qemu-img, past the lock of the process that uses the image."""

    async def drop(
        original: Any, self: QemuHost, record: Any, name: str, disks: Any, *, since_ns: int = 0
    ) -> None:
        if since_ns:
            await original(self, record, name, disks, since_ns=since_ns)
            return
        for disk in disks:
            file = {"driver": "file", "filename": disk.path, "locking": "off"}
            image = {"driver": disk.format, "file": file, "backing": None}
            await images.qemu_img("snapshot", "-q", "-d", name, "json:" + json.dumps(image))

    wrap(QemuHost, "drop_disk_snapshots", drop)


@mutant("XLS-DELETE-009", bug="ovirt-engine #524: delete never succeeds again", test="external-lost-image")
def lost_image_cannot_be_deleted() -> None:
    """A snapshot whose image is lost cannot be deleted."""

    async def delete(original: Any, self: Toolstack, ref: str, name: str, **kwargs: Any) -> Any:
        for disk in self.store.snapshots(self.resolve(ref).uuid)[name].disks:
            if not os.path.exists(disk.path):
                raise SnapshotDamagedError(f"{disk.path} is missing")
        return await original(self, ref, name, **kwargs)

    wrap(Toolstack, "snapshot_delete", delete)
