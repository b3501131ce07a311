# SPDX-License-Identifier: LGPL-2.1-or-later
"""Toolstacks that fail in the wrong way."""

from __future__ import annotations

import dataclasses
from typing import Any

from xlsnap import errors
from xlsnap.qemu import command_line
from xlsnap.steps import DiskImage
from xlsnap.toolstack import Toolstack

from .catalogue import mutant, wrap


@mutant("XLS-FAIL-003")
def wrong_input_is_a_host_failure() -> None:
    """Every error is told to be the host's."""
    errors.InputError.kind = "host"
    errors.DomainStateError.kind = "host"


@mutant("XLS-MODEL-004", bug="OpenStack Nova 1732428: what was not made by it is removed")
def foreign_tag_removed() -> None:
    """A failing create removes all tags of its name, whoever has made them."""

    async def create(original: Any, self: Toolstack, ref: str, request: Any, **kwargs: Any) -> Any:
        try:
            return await original(self, ref, request, **kwargs)
        except errors.XlsnapError:
            record = self.resolve(ref)
            disks = [DiskImage(str(disk.vdev), str(disk.target), disk.format) for disk in record.config.disks]
            if request.name and request.name not in self.store.snapshots(record.uuid):
                async with self.operating(record.uuid) as run:
                    qcow2 = [disk for disk in disks if disk.format == "qcow2"]
                    await self.host.drop_disk_snapshots(run.record, request.name, qcow2)
            raise

    wrap(Toolstack, "snapshot_create", create)


@mutant("XLS-MODEL-006", test="test_domains.py::test_domains_do_not_touch_each_other")
def same_name_elsewhere_deleted() -> None:
    """A delete removes snapshots of the same name of all domains."""

    async def delete(original: Any, self: Toolstack, ref: str, name: str, **kwargs: Any) -> Any:
        warnings = await original(self, ref, name, **kwargs)
        for record in self.store.records():
            if name in self.store.snapshots(record.uuid):
                await original(self, record.uuid, name)
        return warnings

    wrap(Toolstack, "snapshot_delete", delete)


@mutant(
    "XLS-MODEL-007",
    bug="QEMU guesses the format of an image when it is not named",
    test="test_domains.py::test_raw_image_that_looks_like_qcow2",
)
def format_guessed() -> None:
    """A raw image that looks like qcow2 is opened as qcow2."""

    def arguments(original: Any, disk: Any, *below: Any) -> Any:
        with open(disk.target, "rb") as file:
            looks_like_qcow2 = file.read(4) == b"QFI\xfb"
        return original(dataclasses.replace(disk, format="qcow2") if looks_like_qcow2 else disk, *below)

    wrap(command_line, "_disk", arguments)
