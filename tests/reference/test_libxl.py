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
                external = disk("s2", type=libxl.SnapshotType.EXTERNAL, file=str(image))
                with pytest.raises(DiskChoiceError, match="exists already"):
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


def test_external_disks(tmp_path: Path) -> None:
    """One transaction over an internal and an external one; both come back, as often as wanted."""
    images = {"hda": tmp_path / "a.qcow2", "xvda": tmp_path / "x.qcow2"}
    for image in images.values():
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], check=True)
    overlay = tmp_path / "x.s1.qcow2"
    wanted = [
        disk("s1"),
        disk("s1", device="xvda", type=libxl.SnapshotType.EXTERNAL, file=str(overlay)),
    ]

    async def scenario() -> None:
        async with (
            Toolstack(StateRoot.at(tmp_path / "root"), accelerator="tcg") as toolstack,
            libxl.Context(toolstack.root, accelerator="tcg") as context,
        ):
            disks = tuple(
                DiskSpec(target=str(image), format="qcow2", vdev=vdev, readwrite=True)
                for vdev, image in images.items()
            )
            config = DomainConfig(name="d1", memory_mib=1, bios=str(guest.image("rom")), disks=disks)

            def write(word: str) -> None:
                with guest.Probe(toolstack.console_path("d1")) as probe:
                    for number in (0, 4):
                        probe.write(number, 1, word)
                    probe.flush()

            def words() -> list[str | None]:
                with guest.Probe(toolstack.console_path("d1")) as probe:
                    return [probe.read(number, 1) for number in (0, 4)]

            def present() -> dict[str, str | None]:
                return {str(item.vdev): item.target for item in toolstack.current_disks("d1")}

            info = await toolstack.create(config)
            try:
                write("one")
                made = await context.disk_snapshot_create(info.uuid, wanted)
                assert [(item.path, item.file) for item in made] == [
                    (str(images["hda"]), None),
                    (str(images["xvda"]), str(overlay)),
                ]
                context.store_dom_snapshot(info.uuid, libxl.DomainSnapshot(name="s1", disks=made))
                assert present() == {"hda": str(images["hda"]), "xvda": str(overlay)}
                with pytest.raises(DiskChoiceError, match="needed by other snapshots"):
                    await context.disk_snapshot_delete(info.uuid, made)
                for word in ("two", "three"):
                    write(word)
                    await toolstack.destroy("d1")
                    await context.disk_snapshot_revert(info.uuid, made)
                    await toolstack.create(toolstack.resolve("d1").config)
                    assert words() == ["one", "one"]
                assert overlay.exists(), "only its keeper knows whether a snapshot needs it"
                assert present()["xvda"] not in (str(overlay), str(images["xvda"]))
            finally:
                await toolstack.destroy("d1")

    asyncio.run(scenario())
