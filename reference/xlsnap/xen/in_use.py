# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who has an image open: the liveness check that stands in for QEMU's image locks.

libxl tells QEMU not to lock the images of PV disks, so that `qemu-img` would change one under a running guest
without a word. The kernel knows better: it shows the open files of all processes, and those of loop devices.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import msgspec

_PROC = Path("/proc")
_LOOPS = Path("/sys/block")


class User(msgspec.Struct, frozen=True):
    """Something that has an image open, in words: ``qemu-system-i386 (process 512)``, ``/dev/loop3``."""

    path: str
    who: str


def users(paths: Collection[str], *, proc: Path = _PROC, loops: Path = _LOOPS) -> list[User]:
    """Return who has any of some files open, other than ourselves."""
    wanted = {os.path.realpath(path): path for path in paths}
    found = []
    for process in proc.iterdir():
        if process.name.isdecimal() and process.name != str(os.getpid()):
            for path in _open_files(process) & wanted.keys():
                found.append(User(wanted[path], f"{_command(process)} (process {process.name})"))
    for backing in loops.glob("loop*/loop/backing_file"):
        path = _read(backing).rstrip("\n")
        if path in wanted:
            found.append(User(wanted[path], f"/dev/{backing.parts[-3]}"))
    return found


def _open_files(process: Path) -> set[str]:
    found = set()
    try:
        for fd in os.scandir(process / "fd"):
            try:
                found.add(os.readlink(fd.path))
            except OSError:
                continue  # closed meanwhile
    except OSError:
        pass  # it has ended
    return found


def _command(process: Path) -> str:
    return _read(process / "comm").strip() or "a program"


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
