# SPDX-License-Identifier: LGPL-2.1-or-later
"""The block nodes of a QEMU that libxl has started.

It names the node of the image that a disk had at first ``xvda-qcow2``, and those below not at all; those that
we have added since have the names of `qemu.nodes`. So images are looked for: from the disk's PV device
downwards, by the names of their files. The emulated disk of an HVM guest (``ide0-hd0``) is never used: both
have the same image open.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import HostError
from ..qemu.graph import Graph, read_graph
from ..qemu.monitor import Monitor
from ..qemu.nodes import chain_nodes, filter_node, image_node, node_options
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

    async def file(self, monitor: Monitor, node: str) -> str:
        """Ask for the graph: libxl has given the file's node no name."""
        answer = await monitor.execute("x-debug-query-block-graph")
        names = {item["id"]: str(item["name"]) for item in answer["nodes"]}
        for edge in answer["edges"]:
            if edge["name"] == "file" and names.get(edge["parent"]) == node:
                return names[edge["child"]]
        raise HostError(f"QEMU's node {node} has no file")


async def name_chain(monitor: Monitor, images: Sequence[DiskImage], *, discard: bool) -> None:
    """Let all images below the present one of a disk have nodes of ours, in place of those without a name.

    QEMU opens a node without a name anew for nobody, which the deletion of an internal snapshot in it needs.
    Their place is taken by nodes on the same images; then the nameless ones are closed by themselves.
    """
    root = (await pv_disks(monitor)).get(images[0].vdev)
    graph = await read_graph(monitor)
    if root is None or len(images) < 2 or root == filter_node(images[0].vdev):
        return
    if graph.backing.get(root) in (None, image_node(images[1])):
        return
    for options in chain_nodes(images[1:], read_only=True, discard=discard):
        if options["node-name"] not in graph.nodes:
            await monitor.execute("blockdev-add", options)
    options = node_options(images[0], read_only=False, discard=discard)
    options |= {
        "node-name": root,
        "file": await ByFile().file(monitor, root),
        "backing": image_node(images[1]),
    }
    await monitor.execute("blockdev-reopen", {"options": [options]})


async def _format_nodes(monitor: Monitor) -> dict[str, str]:
    """Return the files of all nodes that are images: neither the files themselves nor filters."""
    nodes: list[dict[str, Any]] = await monitor.execute("query-named-block-nodes", {"flat": True})
    filters = {filter_node(node["node-name"].removesuffix("-merging")) for node in nodes}
    return {
        str(node["node-name"]): str(node["file"])
        for node in nodes
        if node["drv"] != "file" and node["node-name"] not in filters
    }


def _downwards(graph: Graph, root: str) -> Iterator[str]:
    node: str | None = root
    while node is not None:
        yield node
        node = graph.backing.get(node)
