# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where to read on after an error, so that one run finds every error of a file.

libxlu drops everything up to the next line end and then expects a setting, so one error in a list of many
lines brings one more for each of them. Here the list stays open, unless the next line begins a setting.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .deviations import MAX_DEPTH
from .diagnostics import Problem

# What matters for brackets: strings and comments hide them, also a string that is not terminated.
_PIECE = re.compile(
    r"""
      "[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+["\\]?
    | '[^'\\\n]*+(?:\\[^\n][^'\\\n]*+)*+['\\]?
    | \#[^\n]*+
    | (?P<open>\[) | (?P<close>\])
    | (?P<foreign_open>[({]) | (?P<foreign_close>[)}])
    | (?P<line_end>\n)
    """,
    re.VERBOSE,
)
_SETTING = re.compile(r"[ \t]*[a-z][._0-9a-z]*[ \t]*\+?=")
_BLANKS = re.compile(r"[ \t]*")

# A list that is open this deep when an error is met is left unread up to its end: nobody wrote it by hand.
_MAX_REOPENED = 4


@dataclass(frozen=True, slots=True)
class Resumption:
    """Where to read on: at ``position``, a line's first token, with the lists open that began at ``lists``.

    ``after_item`` says that the line goes on with a comma.
    """

    position: int
    lists: tuple[int, ...] = ()
    after_item: bool = False


def too_deep(text: str) -> list[Problem]:
    """Return the problem that lists of `text` nest deeper than `MAX_DEPTH`, or nothing."""
    depth = 0
    for piece in _PIECE.finditer(text):
        if piece.lastgroup == "open":
            depth += 1
            if depth > MAX_DEPTH:
                message = f"lists are nested more than {MAX_DEPTH} deep"
                return [Problem(piece.start(), message, "no setting of xl has more than two levels")]
        elif piece.lastgroup == "close":
            depth = max(0, depth - 1)
        elif piece.lastgroup == "line_end" and _SETTING.match(text, piece.end()):
            depth = 0
    return []


def begins_setting(text: str, position: int) -> bool:
    """Whether a line begins at `position`, and with it a setting."""
    line_start = text.rfind("\n", 0, position) + 1
    return not text[line_start:position].strip(" \t") and _SETTING.match(text, position) is not None


def resume(text: str, position: int, lists: tuple[int, ...]) -> Resumption | None:
    """Return where to read on after an error at `position` with `lists` open; None if nothing is left."""
    if lists and begins_setting(text, position):
        return Resumption(position)
    open_lists, foreign = list(lists), 0
    for piece in _PIECE.finditer(text, position):
        match piece.lastgroup:
            case "open":
                open_lists.append(piece.start())
            case "close":
                del open_lists[-1:]
            case "foreign_open":
                foreign += 1
            case "foreign_close":
                foreign = max(0, foreign - 1)
            case "line_end":
                next_line = _BLANKS.match(text, piece.end())
                start = next_line.end() if next_line else piece.end()
                if _SETTING.match(text, start):
                    return Resumption(start)
                if foreign == 0 and len(open_lists) <= _MAX_REOPENED:
                    return Resumption(
                        start, tuple(open_lists), bool(open_lists) and text.startswith(",", start)
                    )
    return None
