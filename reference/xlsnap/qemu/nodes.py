# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images as QEMU's block nodes: every image of a disk's chain is one, named after its path (pure).

All nodes are named by us and linked by name: QEMU never follows what the header of one of our images says.
Only the last image of a chain, which is the user's, is opened with whatever it names itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from ..chain import chain, present_images
from ..domain import DomainConfig, DomainRecord
from ..steps import DiskImage


def node_name(vdev: str, path: str) -> str:
    """Return the block node of an image: ``xvda-`` and a digest of its path; QEMU allows 31 characters."""
    digest = hashlib.blake2s(path.encode(errors="surrogateescape"), digest_size=8).hexdigest()
    return f"{vdev}-{digest}"


def image_node(image: DiskImage) -> str:
    """Return the block node of an image."""
    return node_name(image.vdev, image.path)


def filter_node(vdev: str) -> str:
    """Return the node that QEMU puts over the upper image while two images of a disk are merged."""
    return f"{vdev}-merging"


def device_id(vdev: str) -> str:
    """Return the id of a disk's emulated device."""
    return f"disk-{vdev}"


def node_options(image: DiskImage, *, read_only: bool, discard: bool) -> dict[str, Any]:
    """Return the options of QMP's ``blockdev-add`` and ``blockdev-reopen`` for an image, but for ``backing``.

    The node of the file has a name too, so that a reopening can say that it stays.
    """
    node = image_node(image)
    return {
        "driver": image.format,
        "node-name": node,
        "read-only": read_only,
        "discard": "unmap" if discard else "ignore",
        "file": {"driver": "file", "node-name": file_node(node), "filename": image.path},
    }


def file_node(node: str) -> str:
    """Return the node of the file under an image's node."""
    return f"{node}-file"


def chain_nodes(images: Sequence[DiskImage], *, read_only: bool, discard: bool) -> list[dict[str, Any]]:
    """Return the options of the nodes of a chain, the lowest first; only the upper one may be written."""
    nodes: list[dict[str, Any]] = []
    for image in reversed(images):
        options = node_options(image, read_only=read_only or image is not images[0], discard=discard)
        if nodes:
            options["backing"] = nodes[-1]["node-name"]
        nodes.append(options)
    return nodes


def chains(record: DomainRecord, config: DomainConfig) -> dict[str, tuple[DiskImage, ...]]:
    """Return the chain of every disk of a configuration, as far as the toolstack made it."""
    return {vdev: chain(record, image) for vdev, image in present_images(config).items()}
