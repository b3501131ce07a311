# SPDX-License-Identifier: LGPL-2.1-or-later
"""xl's save files: whose they are, and whether they are complete; found by walking their records, which takes
no longer for a large memory than its number of pieces.

::

    "Xen saved domain, xl format\\n \\0 \\r"     xl's header: flags, then the configuration as JSON
    "LibxlFmt" …                               libxl's records (docs/specs/libxl-migration-stream.pandoc)
        a record LIBXC_CONTEXT, then libxc's stream to its END record (libxc-migration-stream.pandoc)
        … END
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any, BinaryIO

from ..errors import SnapshotDamagedError
from ..savefile import XL_MAGIC

_XL = struct.Struct("<IIII")  # byte order, mandatory flags, optional flags, length of optional data
_BYTE_ORDER = 0x01020304
_JSON_FLAG = 1 << 0
_MOST_OPTIONAL_BYTES = 16 << 20
_RECORD = struct.Struct("<II")  # type, length
_LIBXL_MAGIC = b"LibxlFmt"
_LIBXL_HEADER_BYTES = 16
_LIBXL_END = 0
_LIBXL_LIBXC_CONTEXT = 1
_LIBXC_HEADERS_BYTES = 24 + 16  # image header, domain header
_LIBXC_MARKER = b"\xff" * 8
_LIBXC_END = 0


def read_config(path: str) -> dict[str, Any]:
    """Return libxl's JSON of the domain in a save file, after making sure that the file is complete.

    :raise SnapshotDamagedError: if it is not a save file, or cut.
    """
    try:
        with open(path, "rb") as file:
            stored = _read_header(file, path)
            _walk_libxl(file, path)
            return stored
    except OSError as error:
        raise SnapshotDamagedError(f"save file {path}: {error.strerror}") from error


def _read_header(file: BinaryIO, path: str) -> dict[str, Any]:
    if file.read(len(XL_MAGIC)) != XL_MAGIC:
        raise SnapshotDamagedError(f"{path} is not a save file of xl")
    order, mandatory, _, length = _XL.unpack(_exactly(file, _XL.size, path))
    if order != _BYTE_ORDER or not mandatory & _JSON_FLAG or length > _MOST_OPTIONAL_BYTES:
        raise SnapshotDamagedError(f"save file {path} has a header of an unknown form")
    optional = _exactly(file, length, path)
    try:
        (size,) = struct.unpack_from("<I", optional)
        stored = json.loads(optional[4 : 4 + size].rstrip(b"\0"))
    except (struct.error, ValueError) as error:
        raise SnapshotDamagedError(f"save file {path} has a damaged header: {error}") from error
    if not isinstance(stored, dict):
        raise SnapshotDamagedError(f"save file {path} has a damaged header")
    return stored


def _walk_libxl(file: BinaryIO, path: str) -> None:
    if not _exactly(file, _LIBXL_HEADER_BYTES, path).startswith(_LIBXL_MAGIC[::-1]):
        file.seek(-_LIBXL_HEADER_BYTES, os.SEEK_CUR)
        if not _exactly(file, _LIBXL_HEADER_BYTES, path).startswith(_LIBXL_MAGIC):
            raise SnapshotDamagedError(f"save file {path} has a stream of an unknown form")
    while True:
        kind = _record(file, path)
        if kind == _LIBXL_LIBXC_CONTEXT:
            _walk_libxc(file, path)
        elif kind == _LIBXL_END:
            return


def _walk_libxc(file: BinaryIO, path: str) -> None:
    if not _exactly(file, _LIBXC_HEADERS_BYTES, path).startswith(_LIBXC_MARKER):
        raise SnapshotDamagedError(f"save file {path} has a memory of an unknown form")
    while _record(file, path) != _LIBXC_END:
        pass


def _record(file: BinaryIO, path: str) -> int:
    """Pass over a record and return its type."""
    kind, length = _RECORD.unpack(_exactly(file, _RECORD.size, path))
    if length:
        file.seek(-(-length // 8) * 8 - 1, os.SEEK_CUR)
        _exactly(file, 1, path)
    return int(kind)


def _exactly(file: BinaryIO, count: int, path: str) -> bytes:
    content = file.read(count)
    if len(content) != count:
        raise SnapshotDamagedError(f"save file {path} is cut: it ends within its records")
    return content
