# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Linux probe guest as a domain of Xen, of each kind: what its xl.cfg says beside name and disks.

Whatever kind of domain it is, its disks must be those of the PV front end: only they can be snapshotted
consistently. So Linux, which takes them, is the guest of an HVM domain too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

DIRECTORY_VARIABLE = "XLSNAP_GUEST_DIRECTORY"
"""Environment variable with the directory, in dom0, of the Linux guest's kernel and initial ramdisk."""

DIRECTORY = "/usr/share/xlsnap/guest"
RAMDISK = "probe.cpio"


@dataclass(frozen=True, slots=True)
class Linux:
    """How the guest is begun; it does not come up with less memory. ``more`` are other settings of xl.cfg."""

    memory_mib: int
    kernel: str
    extra: str
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def kernel_path(self) -> str:
        """The kernel's path in dom0."""
        return str(directory() / self.kernel)

    @property
    def ramdisk_path(self) -> str:
        """The initial ramdisk's path in dom0."""
        return str(directory() / RAMDISK)


def directory() -> Path:
    """Return the directory of kernel and initial ramdisk in dom0."""
    return Path(os.environ.get(DIRECTORY_VARIABLE) or DIRECTORY)


_QUIET = "quiet loglevel=4 mitigations=off nokaslr"

KINDS: Mapping[str, Linux] = MappingProxyType(
    {
        "pv": Linux(96, "vmlinux", f"console=hvc0 {_QUIET}", {"type": "pv"}),
        "pvh": Linux(128, "vmlinux", f"console=hvc0 {_QUIET}", {"type": "pvh"}),
        "hvm": Linux(
            128,
            "vmlinuz",
            f"console=ttyS0 {_QUIET}",
            {"type": "hvm", "serial": "pty", "vga": "none", "vnc": "0", "usb": "0"},
        ),
    }
)
"""Xen's kinds of domains."""
