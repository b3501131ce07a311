# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where these grammars differ from libxlu 4.17 on purpose. Everything else they accept and reject alike."""

from __future__ import annotations

from dataclasses import dataclass

MAX_DEPTH = 100
"""How deep lists may nest."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """One difference: what libxlu does, what we do, why, and a text that shows it."""

    id: str
    libxlu: str
    ours: str
    why: str
    language: str  # "config" or "disk": what `example` is written in
    example: bytes


DEVIATIONS: tuple[Deviation, ...] = (
    Deviation(
        "last-byte",
        "drops a single byte that begins no token when it is the very last byte of the file",
        "rejects it like anywhere else",
        "an opened quote or a # at the end of a file is a mistake that somebody should hear of",
        "config",
        b'name = "a"@',
    ),
    Deviation(
        "nul-in-string",
        "aborts the whole process at a NUL byte in a string",
        "rejects the file",
        "a file must not be able to end the program that reads it",
        "config",
        b'name = "a\0b"\n',
    ),
    Deviation(
        "nesting",
        "nests lists until the stack of its parser is full, some 5,000 deep",
        f"rejects lists that are nested more than {MAX_DEPTH} deep",
        "no setting has more than two levels, and most programs that walk over values fail far below 5,000",
        "config",
        b"a = " + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1) + b"\n",
    ),
    Deviation(
        "line-of-a-line-end",
        "reports a line end that it did not expect with the number of the line before, 0 for the first line",
        "reports it with the number of the line that it ends",
        "a person is looking for it there",
        "config",
        b"a = 1\nname\n",
    ),
    Deviation(
        "last-equals-sign",
        "drops an equals sign that is the very last byte of a disk specification and makes no parameter",
        "rejects it like anywhere else",
        "discard= is not discard, and a target that lost its end should not become another one",
        "disk",
        b"vdev=hda,/d=",
    ),
    Deviation(
        "line-end-after-equals-sign",
        "ends the whole process (status 2) at an equals sign that makes no parameter before a line end",
        "rejects the disk specification",
        "a file must not be able to end the program that reads it",
        "disk",
        b"vdev=hda,/d=\n",
    ),
    Deviation(
        "format-left-out",
        "gives a disk without a format the format raw",
        'gives it the format "unknown"',
        "a snapshot's overlay has another default than a domain's disk, so it must show that none was given",
        "disk",
        b"vdev=hda,target=/d",
    ),
)
