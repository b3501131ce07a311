# SPDX-License-Identifier: LGPL-2.1-or-later
"""An initial ramdisk as the kernel reads it: a cpio archive of the "newc" form.

Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Everything belongs to root
whoever writes it, and times are zero: the same tree gives the same bytes.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, directory, symbolic link or character device.

    ``mode`` holds kind and permissions; ``data`` is a file's content or a link's target; ``device`` is the
    major and minor number.
    """

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


Tree = dict[str, Entry]
"""Paths without a leading slash."""


def directory(permissions: int = 0o755) -> Entry:
    """Return a directory."""
    return Entry(stat.S_IFDIR | permissions)


def file(data: bytes, permissions: int = 0o644) -> Entry:
    """Return a file."""
    return Entry(stat.S_IFREG | permissions, data)


def link(target: str) -> Entry:
    """Return a symbolic link."""
    return Entry(stat.S_IFLNK | 0o777, target.encode())


def character_device(major: int, minor: int, permissions: int = 0o600) -> Entry:
    """Return a character device."""
    return Entry(stat.S_IFCHR | permissions, device=(major, minor))


def write(tree: Mapping[str, Entry], output: BinaryIO) -> None:
    """Write an archive of the tree; directories that are not in it are made.

    :raise ValueError: for a path that is absolute or leaves the tree.
    """
    complete = dict(tree)
    for path in tree:
        parts = path.split("/")
        if not all(parts) or "." in parts or ".." in parts:
            raise ValueError(f"not a path of an archive: {path!r}")
        for length in range(1, len(parts)):
            complete.setdefault("/".join(parts[:length]), directory())
    for number, (path, entry) in enumerate(sorted(complete.items()), start=1):
        _member(output, path, entry, number)
    _member(output, "TRAILER!!!", Entry(0), 0)


def _member(output: BinaryIO, path: str, entry: Entry, number: int) -> None:
    name = path.encode() + b"\0"
    fields = (
        *(number, entry.mode, 0, 0, 1, 0, len(entry.data)),  # inode, mode, uid, gid, links, mtime, size
        *(0, 0, *entry.device, len(name), 0),  # device, device of a node, length of the name, checksum
    )
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    output.write(header + bytes(-len(header) % 4))
    output.write(entry.data + bytes(-len(entry.data) % 4))
