# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where the probe guest's images are."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

_DIRECTORY = Path(__file__).resolve().parent / "images"
_FILES = {"rom": "probe.rom", "disk": "probe.img", "iso": "probe.iso", "linux": "probe.linux"}

IDE_DISKS = 4


def image(kind: Literal["rom", "disk", "iso", "linux"]) -> Path:
    """Return the image to boot as firmware (``rom``), as disk, floppy or kernel (``disk``), or as CD.

    ``linux`` is the first process of a Linux guest.

    :raise FileNotFoundError: if the images have not been built; the message says how.
    """
    path = _DIRECTORY / _FILES[kind]
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: build it with python -m xlsnap_conformance.guest.build")
    return path


def disk_number(vdev: str, vdevs: list[str] | tuple[str, ...]) -> int:
    """Return the number by which the guest knows a disk, of a domain that has the disks `vdevs`.

    hda to hdd are 0 to 3; the others are 4 and up, in alphabetical order.

    :raise ValueError: if the domain has no such disk.
    """
    if vdev not in vdevs:
        raise ValueError(f"no disk {vdev!r} among {', '.join(vdevs) or 'none'}")
    if vdev.startswith("hd"):
        return ord(vdev[2]) - ord("a")
    return IDE_DISKS + sorted(name for name in vdevs if not name.startswith("hd")).index(vdev)
