# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ask a running QEMU which images its disks have: the truth, whatever our record says after a crash."""

from __future__ import annotations

from typing import Protocol

import msgspec

from ..chain import chain, present_images
from ..domain import DomainRecord
from ..steps import DiskImage
from .monitor import Monitor
from .nodes import device_id, file_node, image_node, node_options
from .qcow2 import read_header


class Graph(msgspec.Struct, frozen=True):
    """The named block nodes, and for each that lies over another, which one that is."""

    nodes: frozenset[str]
    backing: dict[str, str]

    def is_used(self, node: str) -> bool:
        """Say whether another image lies over this one."""
        return node in self.backing.values()


class Nodes(Protocol):
    """How images are found among the block nodes of a running QEMU, whoever has started it."""

    async def root(self, monitor: Monitor, vdev: str) -> str:
        """Return the node that a disk's device reads from: that of its present image, or a filter over it."""

    async def node(self, monitor: Monitor, image: DiskImage) -> str:
        """Return the node of an image in the chain of its disk, or the name that it would have."""

    async def reopen(
        self, monitor: Monitor, record: DomainRecord, image: DiskImage, *, read_only: bool
    ) -> None:
        """Let an image below the present one be written to, or no more."""


class NamedByPath:
    """The nodes of a QEMU that we have started: their names follow from the images' paths."""

    async def root(self, monitor: Monitor, vdev: str) -> str:
        """Ask the disk's device."""
        return await root_node(monitor, vdev)

    async def node(self, monitor: Monitor, image: DiskImage) -> str:
        """Return the name."""
        return image_node(image)

    async def reopen(
        self, monitor: Monitor, record: DomainRecord, image: DiskImage, *, read_only: bool
    ) -> None:
        """``blockdev-reopen``, which needs all options again."""
        disk = record.config.disk(image.vdev)
        discard = disk is not None and bool(disk.discard)
        options = node_options(image, read_only=read_only, discard=discard)
        options["file"] = file_node(options["node-name"])
        backing = await _backing_node(monitor, record, image)
        if backing is not None:
            options["backing"] = backing
        await monitor.execute("blockdev-reopen", {"options": [options]})


async def _backing_node(monitor: Monitor, record: DomainRecord, image: DiskImage) -> str | None:
    """Return the node below an image; one that the user's image names has no name known to us."""
    images = chain(record, present_images(record.config)[image.vdev])
    position = [item.path for item in images].index(image.path)
    if position + 1 < len(images):
        return image_node(images[position + 1])
    if read_header(image).backing is None:
        return None
    return (await read_graph(monitor)).backing.get(image_node(image))


async def root_node(monitor: Monitor, vdev: str) -> str:
    """Return the node that a disk's device reads from: that of its present image, or a filter over it.

    One question about one device, so that the depth of the chain does not matter; the commands that describe
    block devices describe all of the chain too.
    """
    device = {"path": f"/machine/peripheral/{device_id(vdev)}", "property": "drive"}
    return str(await monitor.execute("qom-get", device))


async def read_graph(monitor: Monitor) -> Graph:
    """Look at all nodes; the cost grows with their number."""
    answer = await monitor.execute("x-debug-query-block-graph")
    names = {node["id"]: str(node["name"]) for node in answer["nodes"] if node["type"] == "block-driver"}
    return Graph(
        frozenset(names.values()),
        {
            names[edge["parent"]]: names[edge["child"]]
            for edge in answer["edges"]
            if edge["name"] == "backing" and edge["parent"] in names
        },
    )
