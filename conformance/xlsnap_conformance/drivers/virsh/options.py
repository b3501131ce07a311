# SPDX-License-Identifier: LGPL-2.1-or-later
"""The options of `virsh snapshot-create-as` that ask for a snapshot (pure). Source: virsh(1)."""

from __future__ import annotations

from collections.abc import Iterable

from ... import protocol as p
from .domain_xml import target_of


def is_external(request: p.SnapshotCreate) -> bool:
    """Say whether a snapshot has an external disk: libvirt takes none that is mixed."""
    if request.disks is None:
        return request.type == "external"
    return any(disk.type == "external" for disk in request.disks)


def create_options(request: p.SnapshotCreate, writable: Iterable[str], memory: str) -> list[str]:
    """Return the options. What libvirt would choose by itself is always said.

    :param writable: the vdevs of the disks that the domain can write to.
    :param memory: where the memory image of an external snapshot goes if the request does not say.
    """
    options = [] if request.name is None else [f"--name={request.name}"]
    if request.description:
        options.append(f"--description={request.description}")
    external = is_external(request)
    if request.memory == "no":
        options.append("--disk-only")
    elif not external and request.memory == "yes":
        options.append("--memspec=snapshot=internal")
    else:
        file = memory if request.memory == "yes" else request.memory
        options.append(f"--memspec=file={_doubled(file)},snapshot=external")
    chosen = request.disks
    if chosen is None:
        return options + [f"--diskspec={target_of(vdev)},snapshot=external" for vdev in writable if external]
    named = {disk.vdev for disk in chosen}
    options += [f"--diskspec={_disk_spec(disk)}" for disk in chosen]
    others = (vdev for vdev in writable if external and vdev not in named)
    return options + [f"--diskspec={target_of(vdev)},snapshot=no" for vdev in others]


def _doubled(value: str) -> str:
    """Return a value of a memory or disk specification: a comma is written twice."""
    return value.replace(",", ",,")


def _disk_spec(disk: p.DiskChoice) -> str:
    spec = f"{target_of(disk.vdev)},snapshot={disk.type}"
    if disk.format:
        spec += f",driver={_doubled(disk.format)}"
    return spec + (f",file={_doubled(disk.target)}" if disk.target else "")
