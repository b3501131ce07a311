# SPDX-License-Identifier: LGPL-2.1-or-later
"""Snapshots of the disks of a running QEMU: take them in one transaction, drop internal ones."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Sequence
from typing import Any

from ..chain import OVERLAY_FORMAT, present_images
from ..domain import DomainRecord
from ..errors import HostError, QmpError
from ..steps import DiskImage, OverlaidDisk
from .graph import Nodes
from .jobs import cancel_job, dismiss_job, wait_for_job
from .monitor import Monitor
from .nodes import image_node, node_options


async def take(
    monitor: Monitor,
    record: DomainRecord,
    name: str,
    disks: Sequence[DiskImage],
    overlaid: Sequence[OverlaidDisk],
    nodes: Nodes,
    *,
    opened: Collection[OverlaidDisk] = (),
) -> None:
    """Take internal snapshots of `disks` and let those `overlaid` go on with their overlays.

    Some can be `opened` already. QEMU rolls back what it did if one fails, and has none open any more then.
    """
    actions: list[dict[str, Any]] = [
        {
            "type": "blockdev-snapshot-internal-sync",
            "data": {"device": await nodes.node(monitor, disk), "name": name},
        }
        for disk in disks
    ]
    await open_overlays(monitor, record, [item for item in overlaid if item not in opened])
    try:
        for item in overlaid:
            link = {"node": await nodes.node(monitor, item.base), "overlay": image_node(_overlay(item))}
            actions.append({"type": "blockdev-snapshot", "data": link})
        await monitor.execute("transaction", {"actions": actions})
    except QmpError:
        await close_overlays(monitor, overlaid)
        raise


def _overlay(item: OverlaidDisk) -> DiskImage:
    return DiskImage(item.base.vdev, item.overlay, OVERLAY_FORMAT)


async def open_overlays(monitor: Monitor, record: DomainRecord, overlaid: Sequence[OverlaidDisk]) -> None:
    """Open overlays, which lie over nothing until their snapshots are taken; all of them or none."""
    try:
        for overlay in map(_overlay, overlaid):
            options = node_options(overlay, read_only=False, discard=_discards(record, overlay.vdev))
            await _add(monitor, {**options, "backing": None})
    except QmpError:
        await close_overlays(monitor, overlaid)
        raise


async def close_overlays(monitor: Monitor, overlaid: Sequence[OverlaidDisk]) -> None:
    """Close overlays; QEMU keeps those that are in use, and those that are not open are no error."""
    for overlay in map(_overlay, overlaid):
        with contextlib.suppress(HostError):
            await monitor.execute("blockdev-del", {"node-name": image_node(overlay)})


async def _add(monitor: Monitor, options: dict[str, Any]) -> None:
    """Add a node. An interrupted operation can have left one of this name, on a file that is gone by now."""
    try:
        await monitor.execute("blockdev-add", options)
    except QmpError:
        with contextlib.suppress(QmpError):
            await monitor.execute("blockdev-del", {"node-name": options["node-name"]})
        await monitor.execute("blockdev-add", options)


async def drop(monitor: Monitor, record: DomainRecord, name: str, image: DiskImage, nodes: Nodes) -> None:
    """Delete the internal snapshot of this name from an image that the domain has open."""
    present = present_images(record.config)[image.vdev]
    node = await nodes.node(monitor, image)
    if image.path == present.path:
        arguments = {"device": node, "name": name}
        try:
            await monitor.execute("blockdev-snapshot-delete-internal-sync", arguments)
        except QmpError as error:
            if "does not exist" not in error.description:
                raise
            await _write_table_again(monitor, node)
    else:
        await _drop_below(monitor, record, name, image, nodes)


async def _write_table_again(monitor: Monitor, node: str) -> None:
    """Let the image have the internal snapshots that QEMU knows.

    After an I/O error in a deletion QEMU has forgotten the snapshot, and the image has not (QEMU 7.2). It
    writes the whole table whenever there is a new one.
    """
    arguments = {"device": node, "name": f"xlsnap-{os.urandom(8).hex()}"}
    await monitor.execute("blockdev-snapshot-internal-sync", arguments)
    await monitor.execute("blockdev-snapshot-delete-internal-sync", arguments)


async def _drop_below(
    monitor: Monitor, record: DomainRecord, name: str, image: DiskImage, nodes: Nodes
) -> None:
    """Delete it from a backing file, which is read-only but for the time that this takes.

    The command for disks refuses nodes that have another one over them; the job takes any.
    """
    job = f"drop-{image_node(image)}"
    await cancel_job(monitor, job)
    await nodes.reopen(monitor, record, image, read_only=False)
    try:
        devices = [await nodes.node(monitor, image)]
        await monitor.execute("snapshot-delete", {"job-id": job, "tag": name, "devices": devices})
        ended = await wait_for_job(monitor, job)
        await dismiss_job(monitor, job)
        if ended.error is not None:
            raise QmpError("snapshot-delete", ended.error)
    finally:
        await nodes.reopen(monitor, record, image, read_only=True)


def _discards(record: DomainRecord, vdev: str) -> bool:
    disk = record.config.disk(vdev)
    return disk is not None and bool(disk.discard)
