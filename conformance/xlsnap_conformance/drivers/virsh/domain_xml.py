# SPDX-License-Identifier: LGPL-2.1-or-later
"""libvirt's XML: write that of a domain, read that of domains and snapshots (pure).

Source: https://libvirt.org/formatdomain.html and formatsnapshot.html.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from typing import Literal, cast

from ... import protocol as p

EMULATOR = "/usr/bin/qemu-system-x86_64"

_FIRST_SLOT = 4  # PCI slots 1 to 3 belong to the chipset


def target_of(vdev: str) -> str:
    """Return libvirt's name for a disk: xvda is vda there.

    >>> target_of("xvda"), target_of("hda")
    ('vda', 'hda')
    """
    return vdev[1:] if vdev.startswith("xvd") else vdev


def vdev_of(target: str) -> str:
    """Return the name in Xen's manner."""
    return f"x{target}" if target.startswith("vd") else target


def domain_xml(request: p.DomainCreate, console: str) -> str:
    """Return the definition of a domain with the probe guest as its firmware.

    :param console: path of the Unix socket of its serial port.
    """
    domain = ET.Element("domain", type="qemu")
    _text(domain, "name", request.name)
    if request.uuid:
        _text(domain, "uuid", request.uuid)
    _text(domain, "memory", str(request.memory_mib), unit="MiB")
    _text(domain, "vcpu", str(request.vcpus))
    system = ET.SubElement(domain, "os")
    _text(system, "type", "hvm", arch="x86_64", machine="pc")
    _text(system, "loader", request.firmware.rom, readonly="yes", type="rom")
    ET.SubElement(ET.SubElement(domain, "features"), "acpi")
    _text(domain, "on_poweroff", request.on_poweroff)
    devices = ET.SubElement(domain, "devices")
    _text(devices, "emulator", EMULATOR)
    for disk in request.disks:
        _disk(devices, disk, [each.vdev for each in request.disks])
    ET.SubElement(devices, "controller", type="usb", model="none")
    serial = ET.SubElement(devices, "serial", type="unix")
    ET.SubElement(serial, "source", mode="bind", path=console)
    ET.SubElement(devices, "memballoon", model="none")
    ET.SubElement(ET.SubElement(devices, "video"), "model", type="none")
    return ET.tostring(domain, encoding="unicode")


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text


def _disk(devices: ET.Element, disk: p.Disk, vdevs: list[str]) -> None:
    element = ET.SubElement(devices, "disk", type="file", device="cdrom" if disk.cdrom else "disk")
    ET.SubElement(element, "driver", name="qemu", type=disk.format)
    ET.SubElement(element, "source", file=disk.path)
    ide = disk.vdev.startswith("hd")
    ET.SubElement(element, "target", dev=target_of(disk.vdev), bus="ide" if ide else "virtio")
    if disk.readonly or disk.cdrom:
        ET.SubElement(element, "readonly")
    if not ide:  # the guest numbers them by slot, in the order of their names
        slot = _FIRST_SLOT + sorted(vdev for vdev in vdevs if not vdev.startswith("hd")).index(disk.vdev)
        ET.SubElement(element, "address", type="pci", bus="0x00", slot=f"{slot:#04x}", function="0x0")


# --- reading ----------------------------------------------------------------------------------------------


def disks_in_use(xml: str, *, writable: bool = False) -> tuple[p.DiskInUse, ...]:
    """Return the images that a domain's definition names, or those of the disks that it can write to."""
    found = []
    for disk in ET.fromstring(xml).iterfind("./devices/disk"):
        if writable and (disk.find("readonly") is not None or disk.get("device") == "cdrom"):
            continue
        target, source, driver = disk.find("target"), disk.find("source"), disk.find("driver")
        if target is not None and source is not None and source.get("file"):
            image_format = driver.get("type", "raw") if driver is not None else "raw"
            found.append(
                p.DiskInUse(
                    vdev=vdev_of(target.get("dev", "")), path=source.get("file", ""), format=image_format
                )
            )
    return tuple(found)


def console_path(xml: str) -> str | None:
    """Return the path of the Unix socket of the first serial port, None if it is no such socket."""
    source = ET.fromstring(xml).find("./devices/serial[@type='unix']/source")
    return None if source is None else source.get("path")


_LETTERS = {"running": "r", "paused": "p", "shutoff": "s", "crashed": "c"}

Letter = Literal["r", "b", "p", "s", "c", "d", ""]


def listed(xml: str) -> p.ListedSnapshot:
    """Return a row of the list from the XML of a snapshot.

    The state of a snapshot without memory is told as ``disk-snapshot``: libvirt does not say how the domain
    was.
    """
    snapshot = ET.fromstring(xml)
    memory = snapshot.find("memory")
    kind = "no" if memory is None else memory.get("snapshot", "no")
    disks = snapshot.iterfind("./disks/disk")
    return p.ListedSnapshot(
        name=snapshot.findtext("name", ""),
        description=snapshot.findtext("description", ""),
        creation_time=int(snapshot.findtext("creationTime", "0")),
        memory=memory.get("file") if memory is not None else None,
        disk_only=kind == "no",
        state=cast("Letter", _LETTERS.get(snapshot.findtext("state", ""), "")),
        disks=tuple(_listed_disks(disks)),
        parent=snapshot.findtext("./parent/name", ""),
    )


def _listed_disks(disks: Iterable[ET.Element]) -> Iterable[p.ListedDisk]:
    for disk in disks:
        kind = disk.get("snapshot", "internal")
        if kind in ("internal", "external"):
            yield p.ListedDisk(
                vdev=vdev_of(disk.get("name", "")), type=cast("Literal['internal', 'external']", kind)
            )
