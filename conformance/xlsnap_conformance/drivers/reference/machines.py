# SPDX-License-Identifier: LGPL-2.1-or-later
"""What depends on the machine that domains run on: how long things take, what cannot be done, and the guest.

The probe guest is bare-metal on QEMU, and a Linux with the same line protocol on Xen. There the disks must be
those of the PV front end, whatever kind of domain it is: only they can be snapshotted consistently. So Linux
is the guest of an HVM domain too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
from xlsnap.domain import DomainConfig
from xlsnap.qemu.background import live_problem

from ... import protocol as p

DIRECTORY_VARIABLE = "XLSNAP_GUEST_DIRECTORY"
"""Environment variable with the directory of the Linux guest: ``vmlinux``, ``vmlinuz`` and ``probe.cpio``."""

DIRECTORY = "/usr/share/xlsnap/guest"


@dataclass(frozen=True, slots=True)
class Linux:
    """How the Linux probe is begun; it does not come up with less memory."""

    memory_mib: int
    kernel: str
    extra: str
    more: Mapping[str, Any] = field(default_factory=dict)


_QUIET = "quiet loglevel=4 mitigations=off nokaslr"

LINUX = MappingProxyType(
    {
        "pv": Linux(96, "vmlinux", f"console=hvc0 {_QUIET}", {"type": "pv"}),
        "pvh": Linux(128, "vmlinux", f"console=hvc0 {_QUIET}", {"type": "pvh"}),
        "hvm": Linux(
            128,
            "vmlinuz",
            f"console=ttyS0 {_QUIET}",
            {"type": "hvm", "vga": "none", "vnc": "0", "usb": "0", "xen_platform_pci": "1"},
        ),
    }
)
"""Xen's kinds of domains."""

TIME_SCALES = MappingProxyType({"qemu": 1.0, "xen": 15.0})
"""How many times longer things take: a cycle on a nested Xen without hardware virtualization takes 30 s."""


def lacking(host: str) -> tuple[str, ...]:
    """Return what cannot be done on a host. The suite runs commands where it is itself, not in dom0."""
    if host == "xen":
        return ("live", "cli")
    return ("live",) if live_problem() else ()


def on_xen(config: DomainConfig, kind: str) -> DomainConfig:
    """Return the configuration of a domain with the Linux probe instead of the bare-metal one."""
    linux = LINUX[kind]
    directory = Path(os.environ.get(DIRECTORY_VARIABLE) or DIRECTORY)
    return msgspec.structs.replace(
        config,
        bios=None,
        memory_mib=max(config.memory_mib, linux.memory_mib),
        kernel=str(directory / linux.kernel),
        ramdisk=str(directory / "probe.cpio"),
        extra=linux.extra,
        more=dict(linux.more),
    )


def config_of(request: p.DomainCreate, disks: tuple[Any, ...], kind: str) -> DomainConfig:
    """Return the configuration of the domain that is asked for."""
    config = DomainConfig(
        name=request.name,
        uuid=request.uuid,
        memory_mib=request.memory_mib,
        vcpus=request.vcpus,
        bios=request.firmware.rom,
        disks=disks,
        on_poweroff=request.on_poweroff,
    )
    return config if kind == "bare" else on_xen(config, kind)
