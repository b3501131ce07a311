# SPDX-License-Identifier: LGPL-2.1-or-later
"""Output: text that is safe to show, tables, JSON, and the two streams."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from ..errors import HostError


def shown(text: str) -> str:
    """Return text with everything escaped that could control a terminal or not be encoded."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "replace").decode()
        for character in text.encode("utf-8", "backslashreplace").decode()
    )


def json_text(value: Any) -> str:
    """Return indented JSON in which everything is escaped that could control a terminal."""
    import json

    import msgspec

    text = json.dumps(msgspec.to_builtins(value), indent=4, ensure_ascii=False)
    return "".join(
        character if character.isprintable() or character == "\n" else json.dumps(character)[1:-1]
        for character in text
    )


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows in columns, two spaces apart, without trailing spaces."""
    lines = [headings, *([shown(cell) for cell in row] for row in rows)]
    widths = [max(cells(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "  ".join(padded(cell, width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def padded(text: str, width: int) -> str:
    """Return text filled with spaces to a width in terminal cells."""
    return text + " " * (width - cells(text))


def cells(text: str) -> int:
    """Return how many cells of a terminal text takes: two for a wide character, none for an accent."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def draws_boxes() -> bool:
    """Say whether standard output is a terminal that can draw lines: one of UTF-8.

    The locale has the last word: in the locale C, Python itself writes UTF-8.
    """
    import codecs
    import locale

    if sys.stdout is None or not sys.stdout.isatty():
        return False
    encodings = (sys.stdout.encoding, locale.nl_langinfo(locale.CODESET))
    return all(codecs.lookup(encoding).name == "utf-8" for encoding in encodings)


def local_time(seconds: int) -> str:
    """Return a time in seconds since the epoch as local date and time."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, OSError, ValueError):
        return f"@{seconds}"


def say(text: str) -> None:
    """Print the result of a command on standard output, all of it.

    :raise BrokenPipeError: if nobody reads it.
    :raise HostError: if it cannot be written.
    """
    if sys.stdout is None:
        raise HostError("cannot print the result: standard output is closed")
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        abandon_output()
        raise HostError(f"cannot print the result: {error.strerror}") from error


def abandon_output() -> None:
    """Let what is still buffered for standard output go nowhere, so that it cannot fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(text: str) -> None:
    """Print lines on standard error, if there is one."""
    if sys.stderr is not None:
        for line in text.split("\n"):
            print("\t".join(shown(part) for part in line.split("\t")), file=sys.stderr)
