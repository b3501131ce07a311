# SPDX-License-Identifier: LGPL-2.1-or-later
"""Output: text that is safe to show, and tables."""

from __future__ import annotations

import time
from collections.abc import Sequence


def shown(text: str) -> str:
    """Return text with everything escaped that could control a terminal or not be encoded."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "replace").decode()
        for character in text.encode("utf-8", "backslashreplace").decode()
    )


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows in columns, two spaces apart, without trailing spaces."""
    lines = [headings, *([shown(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def local_time(seconds: int) -> str:
    """Return a time in seconds since the epoch as local date and time."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, OSError, ValueError):
        return f"@{seconds}"
