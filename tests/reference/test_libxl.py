# SPDX-License-Identifier: LGPL-2.1-or-later
"""libxl's snapshot API: metadata and disks, each on its own."""

import asyncio
import json
import subprocess
from pathlib import Path

import pytest
from xlsnap import libxl
from xlsnap.domain import DomainConfig
from xlsnap.errors import (
    DiskChoiceError,
    DomainStateError,
    InputError,
    SnapshotDamagedError,
    UnknownSnapshotError,
)
from xlsnap.layout import StateRoot
from xlsnap.toolstack import Toolstack
from xlsnap_conformance import guest
from xlsnap_grammars import DiskSpec


def disk(name: str, **fields: object) -> libxl.DiskSnapshot:
    return libxl.DiskSnapshot(**{"device": "hda", "name": name, "path": "", "format": "", **fields})  # type: ignore[arg-type]


def test_metadata_and_disks(tmp_path: Path) -> None:
    image = tmp_path / "a.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], check=True)
    root = StateRoot.at(tmp_path / "root")

    def tags() -> list[str]:
        command = ["qemu-img", "info", "-U", "-f", "qcow2", "--output=json", str(image)]
        output = subprocess.run(command, check=True, capture_output=True).stdout
        return [item["name"] for item in json.loads(output).get("snapshots", [])]

    async def scenario() -> None:
        async with Toolstack(root, accelerator="tcg") as toolstack, libxl.Context(root) as context:
            spec = DiskSpec(target=str(image), format="qcow2", vdev="hda", readwrite=True)
            config = DomainConfig(name="d1", memory_mib=1, bios=str(guest.image("rom")), disks=(spec,))
            info = await toolstack.create(config)
            try:
                assert info.domid is not None
                await context.disk_snapshot_create(info.domid, [disk("s1")])
                with pytest.raises(DomainStateError, match="is active"):
                    await context.disk_snapshot_revert(info.domid, [disk("s1")])
                with pytest.raises(InputError, match="must have one name"):
                    await context.disk_snapshot_create(info.domid, [disk("s2"), disk("s3")])
                with pytest.raises(DiskChoiceError, match="no disk 'hdz'"):
                    await context.disk_snapshot_create(info.domid, [disk("s2", device="hdz")])
                external = disk("s2", type=libxl.SnapshotType.EXTERNAL)
                with pytest.raises(DiskChoiceError, match="external"):
                    await context.disk_snapshot_create(info.domid, [external])
                assert tags() == ["s1"]

                stored = libxl.DomainSnapshot(name="s1", description="mine", extra={"other": [1]})
                context.store_dom_snapshot(info.domid, stored)
                assert context.load_dom_snapshot(info.uuid, "s1") == stored
                assert [item.name for item in context.list_dom_snapshot(info.domid)] == ["s1"]
                with pytest.raises(UnknownSnapshotError):
                    context.load_dom_snapshot(info.domid, "s9")
            finally:
                await toolstack.destroy("d1")
            with pytest.raises(DomainStateError, match="not running"):
                await context.disk_snapshot_create(info.uuid, [disk("s2")])
            await context.disk_snapshot_revert(info.uuid, [disk("s1")])
            with pytest.raises(SnapshotDamagedError, match="no snapshot is named 's9'"):
                await context.disk_snapshot_revert(info.uuid, [disk("s9")])
            await context.disk_snapshot_delete(info.uuid, [disk("s1")])
            assert tags() == []
            context.delete_dom_snapshot(info.uuid, "s1")
            assert context.list_dom_snapshot(info.uuid) == []

    asyncio.run(scenario())
