# SPDX-License-Identifier: LGPL-2.1-or-later
"""The content of images that snapshots need, compared with what the guest had written by then.

The guest's sectors say where they were written (guest/README.md), and all others are zero, so that the whole
content is known: nothing has to be remembered of an image but what the model says. Images are read without
QEMU, as docs/interop/qcow2.txt describes them, in well under a millisecond.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache

from ..model import World
from . import Aspect, Finding, qcow2
from .chains import Chains, Graph, Node

SECTOR = 512

_OFFSET = (1 << 56) - 512
_COMPRESSED, _ZERO = 1 << 62, 1


@lru_cache(maxsize=4096)
def sector(disk: int, lba: int, word: str) -> bytes:
    """Return a sector as the probe guest writes it."""
    head = b"PRB2" + struct.pack("<II", disk, lba) + word.encode().ljust(36, b"\0")
    x = _fnv(head)
    filler = []
    for _ in range(115):
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
        filler.append(x)
    body = head + struct.pack("<115I", *filler)
    return body + struct.pack("<I", _fnv(body))


def _fnv(data: bytes) -> int:
    """Return FNV-1a of 32 bits."""
    value = 0x811C9DC5
    for byte in data:
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def expected(disk: int, words: Mapping[int, str], size: int) -> bytes:
    """Return what a disk of `size` bytes holds when the guest has written `words` and nothing else."""
    content = bytearray(size)
    for lba, word in words.items():
        content[lba * SECTOR : (lba + 1) * SECTOR] = sector(disk, lba, word)
    return bytes(content)


def read(path: str, nodes: Mapping[str, Node]) -> bytes:
    """Return all that a guest would read from an image and those below it.

    :raise qcow2.ImageError: if an image is damaged, or has features that this reader does not know.
    :raise OSError: if one cannot be read.
    """
    chain = [nodes[path]]
    while (backing := chain[-1].backing) is not None:
        if backing not in nodes or nodes[backing] in chain:
            raise qcow2.ImageError("its backing file is missing, or lies over it")
        chain.append(nodes[backing])
    content = b""
    for node in reversed(chain):
        if node.problem is not None:
            raise qcow2.ImageError(node.problem)
        with open(node.path, "rb") as file:
            content = file.read() if node.image is None else _overlaid(file.fileno(), node.image, content)
    return content


def _overlaid(fd: int, image: qcow2.Image, below: bytes) -> bytes:
    """Return the content of a qcow2 image over that of its backing file."""
    if image.unknown_features:
        raise qcow2.ImageError(f"features {image.unknown_features:#x}, which the suite cannot read")
    content = bytearray(below[: image.size].ljust(image.size, b"\0"))
    size = 1 << image.cluster_bits
    per_table = size // 8
    tables = _entries(fd, image.l1_offset, image.l1_entries)
    for table, entry in enumerate(tables):
        if not entry & _OFFSET:
            continue
        for index, cluster in enumerate(_entries(fd, entry & _OFFSET, per_table)):
            start = (table * per_table + index) * size
            if start >= image.size:
                break
            data = _cluster(fd, cluster, image)
            if data is not None:
                content[start : start + size] = data
    return bytes(content[: image.size])


def _entries(fd: int, offset: int, count: int) -> tuple[int, ...]:
    data = os.pread(fd, count * 8, offset)
    if len(data) < count * 8:
        raise qcow2.ImageError("a table is cut short")
    return struct.unpack(f">{count}Q", data)


def _cluster(fd: int, entry: int, image: qcow2.Image) -> bytes | None:
    """Return the content of a cluster, None if it is not in this image."""
    size = 1 << image.cluster_bits
    if entry & _COMPRESSED:
        shift = 62 - (image.cluster_bits - 8)
        offset = entry & ((1 << shift) - 1)
        sectors = (entry & (_COMPRESSED - 1)) >> shift
        packed = os.pread(fd, (sectors + 1) * SECTOR - offset % SECTOR, offset)
        return zlib.decompressobj(-12).decompress(packed, size).ljust(size, b"\0")
    if image.version > 2 and entry & _ZERO:
        return bytes(size)
    if not entry & _OFFSET:
        return None
    return os.pread(fd, size, entry & _OFFSET).ljust(size, b"\0")


class Contents:
    """Compares the images of external snapshots; those whose files have not changed since are passed over."""

    def __init__(self, disk_numbers: Mapping[str, int]) -> None:
        self._numbers = disk_numbers
        self._right: dict[tuple[str, str], object] = {}

    def check(
        self, world: World, chains: Chains, graph: Graph, *, thorough: bool = False
    ) -> Iterator[Finding]:
        """Yield what differs; with `thorough` also files that seem not to have changed are read."""
        for snapshot in world.snapshots:
            for vdev in sorted(snapshot.external - snapshot.lost):
                if (snapshot.name, vdev) in chains.unknown:
                    continue
                path = chains.places[snapshot.name, vdev].path
                try:
                    seen = [_fingerprint(each) for each in (path, *graph.below(path))]
                except OSError:
                    continue  # told by `chains.check_graph`
                if not thorough and self._right.get((snapshot.name, vdev)) == seen:
                    continue
                finding = self._compare(snapshot.name, vdev, snapshot.sectors.get(vdev, {}), path, graph)
                if finding is not None:
                    yield finding
                else:
                    self._right[snapshot.name, vdev] = seen

    def _compare(
        self, name: str, vdev: str, words: Mapping[int, str], path: str, graph: Graph
    ) -> Finding | None:
        try:
            found = read(path, graph.nodes)
        except (qcow2.ImageError, OSError) as error:
            summary = f"image of {vdev} in snapshot {name!r} cannot be read"
            return Finding(Aspect.IMAGE_SOUND, summary, path, str(error), vdev)
        wanted = expected(self._numbers[vdev], words, len(found))
        if found == wanted:
            return None
        lba = next(n for n in range(len(found) // SECTOR) if _at(found, n) != _at(wanted, n))
        summary = f"image of {vdev} in snapshot {name!r} has changed, first in sector {lba}"
        return Finding(Aspect.STATE_CHANGED, summary, words.get(lba), _word(_at(found, lba)), vdev)


def _at(content: bytes, lba: int) -> bytes:
    return content[lba * SECTOR : (lba + 1) * SECTOR]


def _word(data: bytes) -> str | None:
    """Return what a sector holds, for the reader of a report."""
    if not data.strip(b"\0"):
        return None
    if data[:4] == b"PRB2":
        return data[12:48].rstrip(b"\0").decode("ascii", "replace")
    return f"bytes {data[:16].hex()}…"


def _fingerprint(path: str) -> tuple[str, int, int, int]:
    status = os.stat(path)
    return path, status.st_ino, status.st_size, status.st_mtime_ns
