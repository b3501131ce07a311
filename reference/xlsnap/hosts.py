# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which host the toolstack works on: QEMU processes of its own, or the Xen whose dom0 this is."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import HostError, InputError

if TYPE_CHECKING:
    from .host import Host
    from .layout import StateRoot

HOST_VARIABLE = "XLSNAP_HOST"
"""Environment variable that chooses the host."""

CHOICES = ("auto", "qemu", "xen")

_CAPABILITIES = Path("/proc/xen/capabilities")
_OLDEST_XEN = (4, 12)
"""QEMU names the nodes of PV disks as we expect since the one that came with this Xen."""


def choose(name: str, *, capabilities: Path = _CAPABILITIES) -> str:
    """Return ``qemu`` or ``xen``: for ``auto`` Xen where this is its dom0.

    :raise InputError: if there is no such host.
    :raise HostError: if this is not the dom0 of a Xen, though it should be, or we may not use it.
    """
    if name not in CHOICES:
        raise InputError(f"unknown host {name!r}", hint=f"one of {', '.join(CHOICES)}")
    dom0 = _is_dom0(capabilities)
    if name == "qemu" or (name == "auto" and not dom0):
        return "qemu"
    if not dom0:
        what = "a domain without control over others" if capabilities.exists() else "not running on Xen"
        raise HostError(f"this is no dom0 of Xen: it is {what}", hint="choose --host qemu, or go to dom0")
    if os.geteuid() != 0:
        raise HostError("the domains of Xen are for root only", hint="use sudo, or choose --host qemu")
    return "xen"


def _is_dom0(capabilities: Path) -> bool:
    try:
        return "control_d" in capabilities.read_text()
    except OSError:
        return False


def make(name: str, root: StateRoot, *, accelerator: str, keep_connections: bool) -> Host:
    """Return the host of this name; ``accelerator`` and ``keep_connections`` are for QEMU.

    :raise HostError: if it cannot be used.
    """
    if choose(name) == "xen":
        from .xen.host import XenHost

        check_xen_version()
        return XenHost(root)
    from .qemu import QemuHost

    return QemuHost(root, accelerator=accelerator, keep_connections=keep_connections)


def check_xen_version() -> None:
    """Refuse a Xen that is too old, or whose `xl` is of another version and cannot talk to it.

    :raise HostError: if that is so.
    """
    from .xen import xl

    try:
        text = xl.look("info", "xen_version").strip()
    except xl.XlError as error:
        hint = "xl must be of the same version as the Xen that runs: install it, or boot its hypervisor"
        raise HostError(f"xl cannot talk to Xen: {error.message}", hint=hint) from error
    version = re.match(r"(\d+)\.(\d+)", text)
    if version is None or (int(version[1]), int(version[2])) < _OLDEST_XEN:
        oldest = ".".join(map(str, _OLDEST_XEN))
        raise HostError(f"Xen {text or 'of an unknown version'} is not supported", hint=f"Xen {oldest} is")
