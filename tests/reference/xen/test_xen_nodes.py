# SPDX-License-Identifier: LGPL-2.1-or-later
"""Finding images among the block nodes of a QEMU that libxl has started (QEMU 7.2's answers, shortened)."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from xlsnap.domain import DomainConfig, DomainRecord
from xlsnap.errors import HostError, QmpError
from xlsnap.qemu.monitor import Monitor
from xlsnap.qemu.nodes import image_node
from xlsnap.steps import DiskImage
from xlsnap.xen.nodes import ByFile, pv_disks

RECORD = DomainRecord(uuid="u", name="d", config=DomainConfig(name="d"))

# An HVM guest that has not let go of its emulated disk: hda is there twice. Over the image of xvde there is
# an overlay of ours; what is below the one that the domain was begun with has no name. xvdf is being merged.
OURS = DiskImage("xvde", "/img/e.s.qcow2", "qcow2")
DEVICES = {
    "/machine/unattached/device[0]": ("child<ide-hd>", "hda0", "ide0-hd0"),
    "/machine/unattached/device[2]": ("child<xen-disk>", "hda0", "hda-qcow2"),
    "/machine/unattached/device[3]": ("child<xen-disk>", "xvde0", image_node(OURS)),
    "/machine/unattached/device[4]": ("child<xen-cdrom>", "hdc0", "hdc-raw"),
    "/machine/unattached/device[5]": ("child<xen-disk>", "xvdf0", "xvdf-merging"),
}
NODES = [
    ("ide0-hd0", "qcow2", "/img/a.qcow2"),
    ("hda-qcow2", "qcow2", "/img/a.qcow2"),
    (image_node(OURS), "qcow2", OURS.path),
    ("xvde-qcow2", "qcow2", "/img/e.qcow2"),
    ("#block1", "raw", "/img/e.raw"),
    ("#block2", "file", "/img/e.raw"),
    ("hdc-raw", "raw", "/img/c.iso"),
    ("xvdf-merging", "commit_top", "/img/f.qcow2"),
    ("xvdf-qcow2", "qcow2", "/img/f.qcow2"),
]
BACKING = {
    image_node(OURS): "xvde-qcow2",
    "xvde-qcow2": "#block1",
    "xvdf-merging": "xvdf-qcow2",
}


class FakeMonitor:
    """Answers as that QEMU."""

    def __init__(self, hmp: str = "") -> None:
        self.hmp = hmp
        self.lines: list[str] = []

    async def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        arguments = arguments or {}
        match command:
            case "qom-list":
                return [{"name": path.rpartition("/")[2], "type": DEVICES[path][0]} for path in DEVICES]
            case "qom-get":
                _, vdev, drive = DEVICES[arguments["path"]]
                return {"vdev": vdev, "drive": drive}[arguments["property"]]
            case "query-named-block-nodes":
                assert arguments == {"flat": True}  # otherwise it takes a second at some depth
                return [{"node-name": name, "drv": driver, "file": path} for name, driver, path in NODES]
            case "x-debug-query-block-graph":
                ids = {name: number for number, (name, _, _) in enumerate(NODES)}
                nodes = [{"name": name, "type": "block-driver", "id": number} for name, number in ids.items()]
                edges = [
                    {"name": "backing", "parent": ids[upper], "child": ids[lower]}
                    for upper, lower in BACKING.items()
                ]
                return {"nodes": nodes, "edges": edges}
            case "human-monitor-command":
                self.lines.append(arguments["command-line"])
                return self.hmp
        raise AssertionError(command)


def node(image: DiskImage) -> str:
    return asyncio.run(ByFile().node(cast("Monitor", FakeMonitor()), image))


def test_only_pv_disks_count() -> None:
    found = asyncio.run(pv_disks(cast("Monitor", FakeMonitor())))
    assert found == {"hda": "hda-qcow2", "xvde": image_node(OURS), "hdc": "hdc-raw", "xvdf": "xvdf-merging"}


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (DiskImage("hda", "/img/a.qcow2", "qcow2"), "hda-qcow2"),
        (OURS, image_node(OURS)),
        (DiskImage("xvde", "/img/e.qcow2", "qcow2"), "xvde-qcow2"),
        (DiskImage("xvde", "/img/e.raw", "raw"), "#block1"),
        (DiskImage("xvdf", "/img/f.qcow2", "qcow2"), "xvdf-qcow2"),
    ],
    ids=["the PV node of an HVM guest", "ours", "libxl's", "without a name", "being merged"],
)
def test_an_image_is_found_by_its_file(image: DiskImage, name: str) -> None:
    assert node(image) == name


def test_an_image_that_is_not_open_has_the_name_that_we_would_give_it() -> None:
    image = DiskImage("xvde", "/img/new.qcow2", "qcow2")
    assert node(image) == image_node(image)


def test_a_disk_with_another_backend() -> None:
    with pytest.raises(HostError, match="serves no disk xvdb"):
        node(DiskImage("xvdb", "/img/b", "raw"))


def test_a_nameless_node_is_reopened_by_the_human_monitor() -> None:
    monitor = FakeMonitor()
    image = DiskImage("xvde", "/img/e.raw", "raw")
    for read_only in (False, True):
        asyncio.run(ByFile().reopen(cast("Monitor", monitor), RECORD, image, read_only=read_only))
    assert monitor.lines == ['qemu-io #block1 "reopen -w"', 'qemu-io #block1 "reopen -r"']


def test_what_the_human_monitor_says_is_an_error() -> None:
    monitor = cast("Monitor", FakeMonitor("Permission denied\r\n"))
    with pytest.raises(QmpError, match="Permission denied"):
        asyncio.run(ByFile().reopen(monitor, RECORD, OURS, read_only=False))
