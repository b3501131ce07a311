# SPDX-License-Identifier: LGPL-2.1-or-later
"""The block nodes of a QEMU that libxl has started.

It names the node of the image that a disk had at first ``xvda-qcow2``, and those below not at all; those that
we have added since have the names of `qemu.nodes`. So images are looked for: from the disk's PV device
downwards, by the names of their files. The emulated disk of an HVM guest (``ide0-hd0``) is never used: both
have the same image open.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..domain import DomainRecord
from ..errors import HostError, QmpError
from ..qemu.graph import Graph, read_graph
from ..qemu.monitor import Monitor
from ..qemu.nodes import image_node
from ..steps import DiskImage

_DEVICES = "/machine/unattached"
_PV_DISKS = frozenset({"child<xen-disk>", "child<xen-cdrom>"})


async def pv_disks(monitor: Monitor) -> dict[str, str]:
    """Return the root node of each disk that the QEMU serves to a PV front end, by vdev."""
    found = {}
    for item in await monitor.execute("qom-list", {"path": _DEVICES}):
        if item["type"] in _PV_DISKS:
            device = f"{_DEVICES}/{item['name']}"
            vdev = str(await monitor.execute("qom-get", {"path": device, "property": "vdev"}))
            # QEMU shows the number of the partition too, which is 0 for a whole disk.
            found[vdev.removesuffix("0")] = str(
                await monitor.execute("qom-get", {"path": device, "property": "drive"})
            )
    return found


class ByFile:
    """Finds nodes by the files of their images."""

    async def root(self, monitor: Monitor, vdev: str) -> str:
        """Ask the disk's PV device.

        :raise HostError: if the QEMU has none for this disk.
        """
        disks = await pv_disks(monitor)
        if vdev not in disks:
            raise HostError(f"the domain's QEMU serves no disk {vdev}: it has another backend than qdisk")
        return disks[vdev]

    async def node(self, monitor: Monitor, image: DiskImage) -> str:
        """Follow the chain of the disk; an image that is not in it is called as we would call it."""
        files = await _format_nodes(monitor)
        for node in _downwards(await read_graph(monitor), await self.root(monitor, image.vdev)):
            if files.get(node) == image.path:
                return node
        name = image_node(image)
        first = f"{image.vdev}-{image.format}"
        return first if name not in files and files.get(first) == image.path else name

    async def reopen(
        self, monitor: Monitor, record: DomainRecord, image: DiskImage, *, read_only: bool
    ) -> None:
        """Use the command of `qemu-io` in QEMU's human monitor.

        ``blockdev-reopen`` refuses nodes without a name, and QEMU 7.2 ends when it is to put others in their
        place while a disk has a thread of its own, which libxl's have.
        """
        node = await self.node(monitor, image)
        line = f'qemu-io {node} "reopen {"-r" if read_only else "-w"}"'
        said = await monitor.execute("human-monitor-command", {"command-line": line})
        if said:  # the human monitor knows no errors
            raise QmpError(line, str(said).strip())


_NO_IMAGES = frozenset({"file", "commit_top"})
"""Drivers of nodes that are a file, or the filter over an image that is being merged."""


async def _format_nodes(monitor: Monitor) -> dict[str, str]:
    """Return the files of all nodes that are images."""
    nodes: list[dict[str, Any]] = await monitor.execute("query-named-block-nodes", {"flat": True})
    return {str(node["node-name"]): str(node["file"]) for node in nodes if node["drv"] not in _NO_IMAGES}


def _downwards(graph: Graph, root: str) -> Iterator[str]:
    node: str | None = root
    while node is not None:
        yield node
        node = graph.backing.get(node)
