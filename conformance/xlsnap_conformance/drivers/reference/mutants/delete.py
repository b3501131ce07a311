# SPDX-License-Identifier: LGPL-2.1-or-later
"""Toolstacks whose delete is broken."""

from __future__ import annotations

import contextlib
import os
import struct
from typing import Any, BinaryIO

from xlsnap import steps
from xlsnap.chain import present_images
from xlsnap.errors import DomainStateError, SnapshotDamagedError, UnknownSnapshotError
from xlsnap.steps import PlannedStep
from xlsnap.toolstack import Toolstack

from .catalogue import edit_steps, mutant, without, wrap


@mutant("XLS-DELETE-002", bug="libvirt 565bcb5d: partial delete over several disks")
def tag_left_after_delete() -> None:
    """The internal snapshot of the last disk stays in the image."""

    def keep_last(planned: list[PlannedStep]) -> list[PlannedStep]:
        drops = [step for step in planned if isinstance(step.do, steps.DropDiskSnapshots)]
        return [step for step in planned if step not in drops[-1:]]

    edit_steps("plan_delete", keep_last)


@mutant(
    "XLS-MODEL-002",
    bug="QEMU e976c6a1: a reference count is lowered before the table that names the cluster",
    test="stopped-domain",
)
def used_cluster_counts_as_free() -> None:
    """After a delete from a stopped domain's image a cluster that is in use counts as free."""

    async def delete(original: Any, self: Toolstack, ref: str, name: str, **kwargs: Any) -> Any:
        record = self.resolve(ref)
        warnings = await original(self, ref, name, **kwargs)
        if not self.host.is_active(record):
            for image in present_images(record.config).values():
                if image.format == "qcow2":
                    _free_last_cluster(image.path)
        return warnings

    wrap(Toolstack, "snapshot_delete", delete)


def _free_last_cluster(path: str) -> None:
    """Let the last cluster that has a reference lose it (QEMU's docs/interop/qcow2.txt, 64 KiB clusters)."""
    with open(path, "r+b") as file:
        (table,) = struct.unpack(">Q", _read(file, 48, 8))
        (block,) = struct.unpack(">Q", _read(file, table, 8))
        counts = struct.unpack(">32768H", _read(file, block, 65536))
        file.seek(block + 2 * max(index for index, count in enumerate(counts) if count))
        file.write(b"\0\0")


def _read(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)


@mutant("XLS-DELETE-003")
def memory_left_after_delete() -> None:
    """The memory image stays."""
    edit_steps("plan_delete", without(steps.RemoveMemory))


@mutant("XLS-DELETE-006", bug="CloudStack #9446: deleting the newest snapshot erases its parents")
def delete_removes_another() -> None:
    """Deleting a snapshot deletes the one before it as well."""

    async def delete(original: Any, self: Toolstack, ref: str, name: str, **kwargs: Any) -> Any:
        order = [snapshot.name for snapshot in self.snapshot_list(ref)]
        warnings = await original(self, ref, name, **kwargs)
        if order.index(name) > 0:
            await original(self, ref, order[order.index(name) - 1])
        return warnings

    wrap(Toolstack, "snapshot_delete", delete)


@mutant("XLS-DELETE-004", bug="ovirt-engine #524: merged, but the metadata stayed")
def metadata_left_after_delete() -> None:
    """The metadata stays, so that the snapshot is still listed."""
    edit_steps("plan_delete", without(steps.HideMetadata, steps.ForgetMetadata))


@mutant("XLS-DELETE-001", bug="QEMU's delvm succeeds for a snapshot that is not there")
def unknown_delete_exits_ok() -> None:
    """Deleting an unknown snapshot says that all is well."""

    async def delete(original: Any, self: Toolstack, *args: Any, **kwargs: Any) -> Any:
        try:
            return await original(self, *args, **kwargs)
        except UnknownSnapshotError:
            return []

    wrap(Toolstack, "snapshot_delete", delete)


@mutant("XLS-DELETE-007")
def stopped_domain_keeps_all() -> None:
    """A snapshot of a stopped domain cannot be deleted."""

    async def delete(original: Any, self: Toolstack, ref: str, name: str, **kwargs: Any) -> Any:
        if not self.host.is_active(self.resolve(ref)):
            raise DomainStateError(f"domain {ref!r} is not running")
        return await original(self, ref, name, **kwargs)

    wrap(Toolstack, "snapshot_delete", delete)


@mutant("XLS-DELETE-009", bug="ovirt-engine #524: delete never succeeds again")
def damaged_cannot_be_deleted() -> None:
    """A snapshot whose memory image is lost cannot be deleted."""

    async def delete(original: Any, self: Toolstack, ref: str, name: str, **kwargs: Any) -> Any:
        for snapshot in self.snapshot_list(ref):
            if snapshot.name == name and snapshot.memory and not os.path.exists(snapshot.memory):
                raise SnapshotDamagedError(f"memory image {snapshot.memory} is missing")
        return await original(self, ref, name, **kwargs)

    wrap(Toolstack, "snapshot_delete", delete)


@mutant("XLS-DELETE-005")
def domain_paused_by_delete() -> None:
    """A running domain is paused after a delete."""

    async def delete(original: Any, self: Toolstack, ref: str, name: str, **kwargs: Any) -> Any:
        warnings = await original(self, ref, name, **kwargs)
        with contextlib.suppress(DomainStateError):
            await self.pause(ref)
        return warnings

    wrap(Toolstack, "snapshot_delete", delete)
