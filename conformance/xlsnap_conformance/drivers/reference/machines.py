# SPDX-License-Identifier: LGPL-2.1-or-later
"""What depends on the machine: how long things take, what cannot be done, and which guest runs."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import Any

import msgspec
from xlsnap.domain import DomainConfig
from xlsnap.qemu.background import live_problem

from ... import protocol as p
from ..linux import KINDS

TIME_SCALES = MappingProxyType({"qemu": 1.0, "xen": 15.0})
"""How many times longer things take: a cycle on a nested Xen without hardware virtualization takes 30 s."""


def lacking(host: str) -> tuple[str, ...]:
    """Return what cannot be done on a host. Commands and kills of the suite are where it is, not in dom0."""
    if host == "xen":
        return ("live", "cli", "concurrency", "crash")
    return ("live",) if live_problem() else ()


def on_xen(config: DomainConfig, kind: str) -> DomainConfig:
    """Return the configuration of a domain with the Linux probe instead of the bare-metal one.

    xl would serve raw images with loop devices, of which nothing can take a snapshot.
    """
    linux = KINDS[kind]
    disks = tuple(dataclasses.replace(disk, backend="qdisk") for disk in config.disks)
    return msgspec.structs.replace(
        config,
        disks=disks,
        bios=None,
        memory_mib=max(config.memory_mib, linux.memory_mib),
        kernel=linux.kernel_path,
        ramdisk=linux.ramdisk_path,
        extra=linux.extra,
        more={key: value for key, value in linux.more.items() if key != "serial"},
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
