# SPDX-License-Identifier: LGPL-2.1-or-later
"""The save file: a header with the domain's configuration, then QEMU's migration stream.

Memory images of snapshots and the files of `xlsnap save` have the same form, as with xl, so that `restore`
takes either. Layout, all little-endian, padded with zero bytes to `HEADER_BYTES`::

    0   16 bytes   magic
    16  u64        length of the stream in bytes; 0 while it is not complete
    24  u32        length of the JSON text
    28             JSON: {"uuid": …, "config": {…}, "accelerator": …}

On Xen both are save files of xl (`xen.stream`), which are told apart by how they begin.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import msgspec

from .domain import DomainConfig
from .errors import HostError, InternalError, SnapshotDamagedError
from .layout import DomainPaths
from .store import sync_directory

MAGIC = b"XLSNAP SAVE  1\r\n"
XL_MAGIC = b"Xen saved domain, xl format\n \0 \r"
HEADER_BYTES = 65536
"""Where the stream begins. Fixed, so that it can be checked before anything is read."""

_FIXED = struct.Struct("<16sQI")


class SaveHeader(msgspec.Struct, frozen=True):
    """What the header says: the domain's uuid, its configuration and its accelerator when it was saved.

    The accelerator decides the CPU model, so that it is part of what a memory image fits to.
    """

    uuid: str
    config: DomainConfig
    accelerator: str


def write_header(fd: int, header: SaveHeader) -> None:
    """Write the header of a save file that is not complete yet, and seek to where the stream begins."""
    text = msgspec.json.encode(header)
    content = _FIXED.pack(MAGIC, 0, len(text)) + text
    if len(content) > HEADER_BYTES:
        raise InternalError(f"the domain's configuration has {len(text)} bytes, too long for a save file")
    os.ftruncate(fd, HEADER_BYTES)
    os.pwrite(fd, content, 0)
    os.lseek(fd, HEADER_BYTES, os.SEEK_SET)


def mark_complete(fd: int) -> None:
    """Enter the length of the stream: from now on the file counts as complete."""
    length = os.fstat(fd).st_size - HEADER_BYTES
    if length <= 0:
        raise HostError("QEMU wrote an empty memory image")
    os.pwrite(fd, struct.pack("<Q", length), len(MAGIC))


def is_save_file(path: str) -> bool:
    """Say whether the file begins as one of ours or of xl's, complete or not."""
    try:
        with open(path, "rb") as file:
            begin = file.read(max(len(MAGIC), len(XL_MAGIC)))
    except OSError:
        return False
    return begin.startswith((MAGIC, XL_MAGIC))


def read(path: str) -> SaveHeader:
    """Check a save file of ours or of xl's, and return what it says of the domain.

    :raise SnapshotDamagedError: if it is neither, or not whole.
    """
    try:
        with open(path, "rb") as file:
            if file.read(len(XL_MAGIC)) != XL_MAGIC:
                return read_header(file.fileno(), where=path)
    except OSError as error:
        raise SnapshotDamagedError(f"save file {path}: {error.strerror}") from error
    from .xen.config import config_from_json
    from .xen.stream import read_config

    config = config_from_json(read_config(path))
    return SaveHeader(config.uuid or "", config, "xen")


def _is_blank(path: str) -> bool:
    """Say whether a file has no content yet: a save that was interrupted before it wrote its header."""
    try:
        with open(path, "rb") as file:
            return file.read(HEADER_BYTES + 1).strip(b"\0") == b"" and file.read(1) == b""
    except OSError:
        return False


def read_header(fd: int, *, where: str) -> SaveHeader:
    """Check a save file, return what its header says, and seek to where the stream begins.

    :raise SnapshotDamagedError: if it is not a save file, not complete or cut.
    """
    content = os.pread(fd, HEADER_BYTES, 0)
    if len(content) < _FIXED.size or not content.startswith(MAGIC):
        raise SnapshotDamagedError(f"{where} is not a save file of this toolstack")
    _, length, text_length = _FIXED.unpack_from(content)
    size = os.fstat(fd).st_size
    if length == 0:
        raise SnapshotDamagedError(f"save file {where} is not complete: its writing was interrupted")
    if size < HEADER_BYTES + length:
        raise SnapshotDamagedError(
            f"save file {where} is cut: {size} bytes where {HEADER_BYTES + length} were written"
        )
    try:
        header = msgspec.json.decode(content[_FIXED.size : _FIXED.size + text_length], type=SaveHeader)
    except msgspec.MsgspecError as error:
        raise SnapshotDamagedError(f"save file {where} has a damaged header: {error}") from error
    os.lseek(fd, HEADER_BYTES, os.SEEK_SET)
    return header


def memory_image_problem(path: str | None, uuid: str) -> str | None:
    """Say why a memory image cannot be loaded, or None; a disk-only snapshot has none to load."""
    if path is None:
        return None
    try:
        header = read(path)
    except SnapshotDamagedError as error:
        return error.message
    if header.uuid != uuid:
        return f"{path} belongs to the domain with uuid {header.uuid}"
    return None


def remove_memory_image(path: str, paths: DomainPaths) -> None:
    """Remove a memory image, also one just begun; a missing one is no error, what is not ours stays.

    In our own directory the removal becomes durable with that of the metadata, which comes after it.
    """
    if os.path.islink(path) or not (is_save_file(path) or _is_blank(path)):
        return
    try:
        os.unlink(path)
    except OSError as error:
        raise HostError(f"cannot remove memory image {path}: {error.strerror}") from error
    if Path(path).parent != paths.snapshots:
        sync_directory(Path(path).parent)
