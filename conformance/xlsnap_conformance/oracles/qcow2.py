# SPDX-License-Identifier: LGPL-2.1-or-later
"""A read-only look at a qcow2 image: header, backing file, internal snapshots, where its tables are.

Source: QEMU's docs/interop/qcow2.txt. It reads a few hundred bytes, never guest data, so that it costs well
under a millisecond and works on an image that a running QEMU has open: QEMU writes the snapshot table and
then the header that points to it, and only by an operation that the suite has waited for.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

MAGIC = b"QFI\xfb"

_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")  # version 2, 72 bytes
_DIRTY, _CORRUPT = 1, 2
_ENCRYPTED = 1 << 63  # not a feature of the format: a bit of ours for what the reader cannot do
_BACKING_FORMAT = 0xE2792ACA
_SNAPSHOT = struct.Struct(">QIHHIIQII")  # 40 bytes, then extra data, id and name
_LARGEST_TABLE = 16 << 20  # bytes; QEMU allows 64 KiB * 1024


class ImageError(Exception):
    """The file is not a qcow2 image, or a damaged one."""


@dataclass(frozen=True, slots=True)
class Tag:
    """An internal snapshot. ``vm_state_size`` is the size in bytes of memory that was saved with it."""

    id: str
    name: str
    vm_state_size: int


@dataclass(frozen=True, slots=True)
class Image:
    """What the header says. ``size`` is the guest's, in bytes; ``l1_offset`` is in the file.

    ``unknown_features`` are those that must be understood to read the content, beyond plain clusters.
    """

    version: int
    size: int
    backing_file: str | None
    backing_format: str | None
    dirty: bool
    corrupt: bool
    tags: tuple[Tag, ...]
    cluster_bits: int = 16
    l1_offset: int = 0
    l1_entries: int = 0
    unknown_features: int = 0


def read(path: str | os.PathLike[str]) -> Image:
    """Read the header and the snapshot table of the image at `path`.

    :raise ImageError: if that is no sound qcow2 image.
    :raise OSError: if it cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return _read(fd)
    finally:
        os.close(fd)


def _read(fd: int) -> Image:
    head = os.pread(fd, 4096, 0)
    if len(head) < _HEADER.size or head[:4] != MAGIC:
        raise ImageError("not a qcow2 image")
    fields = _HEADER.unpack_from(head)
    _, version, backing_offset, backing_length, bits, size, cipher, l1_entries, l1_offset, _, _ = fields[:11]
    count, table = fields[11:]
    if version not in (2, 3):
        raise ImageError(f"qcow2 of version {version}")
    features, length = (0, _HEADER.size) if version == 2 else _features(head)
    backing = None
    if backing_offset:
        backing = _bytes(fd, backing_length, backing_offset).decode("utf-8", "surrogateescape")
    return Image(
        version=version,
        size=size,
        backing_file=backing,
        backing_format=_backing_format(head, length),
        dirty=bool(features & _DIRTY),
        corrupt=bool(features & _CORRUPT),
        tags=_tags(fd, count, table),
        cluster_bits=bits,
        l1_offset=l1_offset,
        l1_entries=l1_entries,
        unknown_features=features & ~(_DIRTY | _CORRUPT) | (_ENCRYPTED if cipher else 0),
    )


def _features(head: bytes) -> tuple[int, int]:
    if len(head) < 104:
        raise ImageError("the header is cut short")
    features, _, _, _, length = struct.unpack_from(">QQQII", head, _HEADER.size)
    return features, length


def _backing_format(head: bytes, offset: int) -> str | None:
    """Find the header extension that names the backing format."""
    while offset + 8 <= len(head):
        kind, length = struct.unpack_from(">II", head, offset)
        if kind == 0:
            return None
        if kind == _BACKING_FORMAT:
            return head[offset + 8 : offset + 8 + length].decode("ascii", "replace")
        offset += 8 + (length + 7 & ~7)
    return None


def _tags(fd: int, count: int, offset: int) -> tuple[Tag, ...]:
    if not count:
        return ()
    table = os.pread(fd, min(count * 1024, _LARGEST_TABLE), offset)
    tags = []
    at = 0
    for _ in range(count):
        if at + _SNAPSHOT.size > len(table):
            raise ImageError("the snapshot table is cut short")
        _, _, id_length, name_length, _, _, _, state_size, extra = _SNAPSHOT.unpack_from(table, at)
        if extra >= 8:
            (state_size,) = struct.unpack_from(">Q", table, at + _SNAPSHOT.size)
        start = at + _SNAPSHOT.size + extra
        end = start + id_length + name_length
        if end > len(table):
            raise ImageError("the snapshot table is cut short")
        tags.append(
            Tag(
                table[start : start + id_length].decode("utf-8", "surrogateescape"),
                table[start + id_length : end].decode("utf-8", "surrogateescape"),
                state_size,
            )
        )
        at = end + 7 & ~7
    return tuple(tags)


def _bytes(fd: int, length: int, offset: int) -> bytes:
    data = os.pread(fd, length, offset)
    if len(data) != length:
        raise ImageError("the header points past the end of the file")
    return data
