# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an ELF file of x86-64 needs: shared libraries of a program, other modules of a kernel module."""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAGIC = b"\x7fELF"

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_RUNPATH = 1, 5, 15, 29


@dataclass(frozen=True, slots=True)
class Needs:
    """Names of shared libraries, and the directories where to look first."""

    libraries: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()


def needs(data: bytes) -> Needs:
    """Return what the dynamic section names; nothing for what is not linked dynamically, or not 64-bit ELF.

    Source: System V ABI, "Program Header" and "Dynamic Section".
    """
    if data[:5] != MAGIC + b"\x02":
        return Needs()
    offset, size, count = _table(data, at=32, entry=54, number=56)
    segments = [struct.unpack_from("<IIQQQQ", data, offset + i * size) for i in range(count)]
    loads = [(vaddr, off, filesz) for kind, _, off, vaddr, _, filesz in segments if kind == _PT_LOAD]
    libraries: list[int] = []
    directories: list[int] = []
    strings = None
    for kind, _, start, _, _, length in segments:
        if kind != _PT_DYNAMIC:
            continue
        for at in range(start, start + length, 16):
            tag, value = struct.unpack_from("<qQ", data, at)
            if tag == 0:
                break
            if tag == _DT_NEEDED:
                libraries.append(value)
            elif tag in (_DT_RPATH, _DT_RUNPATH):
                directories.append(value)
            elif tag == _DT_STRTAB:
                strings = next(value - vaddr + off for vaddr, off, n in loads if vaddr <= value < vaddr + n)
    if strings is None:
        return Needs()
    paths = [path for at in directories for path in _string(data, strings + at).split(":")]
    return Needs(tuple(_string(data, strings + at) for at in libraries), tuple(paths))


def module_needs(data: bytes) -> tuple[str, ...]:
    """Return the names of the modules that a kernel module depends on, from its section ``.modinfo``."""
    for line in section(data, ".modinfo").split(b"\0"):
        key, _, value = line.decode(errors="replace").partition("=")
        if key == "depends":
            return tuple(name for name in value.split(",") if name)
    return ()


def section(data: bytes, name: str) -> bytes:
    """Return the content of a section of a 64-bit ELF file; empty if there is none of this name."""
    offset, size, count = _table(data, at=40, entry=58, number=60)
    (names,) = struct.unpack_from("<H", data, 62)
    headers = [struct.unpack_from("<IIQQQQ", data, offset + i * size) for i in range(count)]
    for header in headers:
        if _string(data, headers[names][4] + header[0]) == name:
            return data[header[4] : header[4] + header[5]]
    return b""


def _table(data: bytes, *, at: int, entry: int, number: int) -> tuple[int, int, int]:
    (offset,) = struct.unpack_from("<Q", data, at)
    return offset, *struct.unpack_from("<H", data, entry), *struct.unpack_from("<H", data, number)


def _string(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode(errors="replace")
