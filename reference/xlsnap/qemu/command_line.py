# SPDX-License-Identifier: LGPL-2.1-or-later
"""From a domain's configuration to QEMU's command line (pure).

The virtual hardware depends on nothing but the configuration, because a memory image can only be loaded
into the machine that it was saved from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec
from xlsnap_grammars import DiskSpec

from ..domain import DomainConfig
from ..errors import InputError
from ..steps import DiskImage
from .nodes import chain_nodes, device_id, image_node

# A seccomp filter: a guest that breaks into QEMU can start nothing and gain nothing.
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

_IDE = re.compile(r"hd([a-d])")
_VIRTIO = re.compile(r"xvd([a-p])")
_FIRST_VIRTIO_SLOT = 0x10

FORMATS = frozenset({"raw", "qcow2"})
"""Image formats that domains can use here."""


class Sockets(msgspec.Struct, frozen=True):
    """File descriptors of listening Unix sockets that QEMU inherits."""

    control: int
    session: int
    status: int
    console: int


def command_line(
    config: DomainConfig,
    *,
    binary: str,
    uuid: str,
    accelerator: str,
    pidfile: str,
    sockets: Sockets,
    paused: bool = False,
    incoming: bool = False,
    chains: Mapping[str, Sequence[DiskImage]] = {},
) -> list[str]:
    """Return the arguments that start the domain; `incoming` makes it wait for a memory image.

    `chains` are the images of disks that have more than one, by vdev, the upper first.

    :raise InputError: if the configuration asks for something that this host does not have.
    """
    machine = f"pc,accel={accelerator},usb=off,vmport=off,hpet=off,smbus=off,acpi={_on_off(config.acpi)}"
    arguments = [
        binary,
        *("-name", f"guest={_escaped(config.name)}", "-uuid", uuid, "-pidfile", pidfile),
        *("-nodefaults", "-no-user-config", "-display", "none", "-sandbox", _SANDBOX),
        *("-machine", machine, "-m", f"{config.memory_mib}M", "-smp", str(config.vcpus)),
        *_monitor("control", sockets.control),
        *_monitor("session", sockets.session),
        *_monitor("status", sockets.status),
        *("-chardev", f"socket,id=console,fd={sockets.console},server=on,wait=off"),
        *("-serial", "chardev:console"),
        *_lifecycle(config),
        *_boot(config),
    ]
    for disk in config.disks:
        arguments += _disk(disk, chains.get(str(disk.vdev), ())[1:])
    if incoming:
        arguments += ["-incoming", "defer"]
    if paused or incoming:
        arguments.append("-S")
    return arguments


def _on_off(value: bool) -> str:
    return "on" if value else "off"


def _escaped(text: str) -> str:
    """Double the commas, as QEMU's option syntax wants it."""
    return text.replace(",", ",,")


def _monitor(name: str, fd: int) -> list[str]:
    return [
        *("-chardev", f"socket,id={name},fd={fd},server=on,wait=off"),
        *("-mon", f"chardev={name},mode=control"),
    ]


def _lifecycle(config: DomainConfig) -> list[str]:
    shutdown = "pause" if config.on_poweroff == "preserve" else "poweroff"
    reboot = "reset" if config.on_reboot == "restart" else "shutdown"
    panic = "pause" if config.on_crash == "preserve" else "shutdown"
    return ["-action", f"shutdown={shutdown},reboot={reboot},panic={panic}"]


def _boot(config: DomainConfig) -> list[str]:
    arguments = []
    for option, value in (
        ("-bios", config.bios),
        ("-kernel", config.kernel),
        ("-initrd", config.ramdisk),
        ("-append", config.extra if config.kernel else None),
        ("-boot", f"order={_escaped(config.boot)}" if config.boot else None),
    ):
        if value:
            arguments += [option, value]
    return arguments


def _disk(disk: DiskSpec, below: Sequence[DiskImage] = ()) -> list[str]:
    """Return the device and its images, the lowest first, because each is named by the one over it."""
    vdev = str(disk.vdev)
    arguments: list[str] = []
    backend: dict[str, object] = {}
    if disk.format != "empty" and disk.target:
        images = [DiskImage(vdev, disk.target, disk.format), *below]
        for image in images:
            if image.format not in FORMATS:
                raise InputError(
                    f"disk {vdev}: format {image.format} is not supported on this host",
                    hint=f"use one of {', '.join(sorted(FORMATS))}",
                )
        for node in chain_nodes(images, read_only=not disk.readwrite, discard=bool(disk.discard)):
            arguments += ["-blockdev", msgspec.json.encode(node).decode()]
        backend = {"drive": image_node(images[0])}
    device: dict[str, object] = {**_device(disk, vdev), **backend}
    return [*arguments, "-device", msgspec.json.encode(device).decode()]


def _device(disk: DiskSpec, vdev: str) -> dict[str, object]:
    """Return the emulated device: hda to hdd are IDE, xvda to xvdp are virtio-blk in fixed slots."""
    identity = {"id": device_id(vdev)}
    if match := _IDE.fullmatch(vdev):
        unit = ord(match[1]) - ord("a")
        if not disk.readwrite and not disk.is_cdrom:
            raise InputError(f"disk {vdev}: QEMU's IDE disks cannot be read-only", hint="use xvda to xvdp")
        driver = "ide-cd" if disk.is_cdrom else "ide-hd"
        return {"driver": driver, **identity, "bus": f"ide.{unit >> 1}", "unit": unit & 1}
    if match := _VIRTIO.fullmatch(vdev):
        if disk.is_cdrom:
            raise InputError(f"disk {vdev}: a CD-ROM must be one of hda to hdd")
        slot = _FIRST_VIRTIO_SLOT + ord(match[1]) - ord("a")
        return {"driver": "virtio-blk-pci", **identity, "addr": f"{slot:#x}"}
    raise InputError(f"disk {vdev}: no such vdev on this host", hint="use hda to hdd or xvda to xvdp")
