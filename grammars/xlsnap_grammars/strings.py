# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the characters between the quotes of a configuration file stand for."""

from __future__ import annotations

import re

from .diagnostics import Problem, quoted

ESCAPES = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    "'": "'",
    '"': '"',
}

# A digit 0 to 7 begins what looks like an octal escape. libxlu then reads up to three further characters as
# strtoul(…, 10) does, insists on two of them, and emits nothing at all.
_OCTAL = r"[0-7](?:[0-9]{2,3}|[+-][0-9]{1,2}|[ \t\v\f\r](?:[0-9]{1,2}|[ \t\v\f\r+-][0-9]))"
_ESCAPE = re.compile(rf"\\(?:(?P<octal>{_OCTAL})|(?P<other>.))", re.DOTALL)

_HINTS = {
    "x": r"there are no hexadecimal escapes: write the character itself",
    **dict.fromkeys("01234567", "there are no octal escapes: write the character itself"),
}
_HINT = r"write \\ for a backslash"


def read_string(raw: str, position: int, problems: list[Problem]) -> str:
    """Return what `raw`, a NUMBER or a STRING with its quotes, stands for.

    Each wrong escape is added to `problems`; `position` is the place of `raw` in the text.
    """
    if raw[0] not in "\"'":
        return raw
    if "\\" not in raw:
        return raw[1:-1]
    return "".join(character for character, _ in _characters(raw, position, problems))


def places(raw: str, position: int) -> list[int]:
    """Return the position in the text of each character that `raw` stands for, and of its end."""
    if raw[0] not in "\"'":
        return list(range(position, position + len(raw) + 1))
    found = [place for character, place in _characters(raw, position, []) if character]
    return [*found, position + len(raw) - 1]


def _characters(raw: str, position: int, problems: list[Problem]) -> list[tuple[str, int]]:
    """Return each character between the quotes and its place; an escape that emits nothing gives ''."""
    characters = []
    index, end = 1, len(raw) - 1
    while index < end:
        if raw[index] != "\\":
            characters.append((raw[index], position + index))
            index += 1
            continue
        escape = _ESCAPE.match(raw, index, end)
        assert escape is not None  # the grammar lets no string end in a lone backslash
        letter = escape["other"]
        if letter is not None and letter not in ESCAPES:
            hint = _HINTS.get(letter, _HINT)
            problems.append(
                Problem(position + index, f"unknown escape {quoted(escape[0])} in a string", hint)
            )
        characters.append((ESCAPES.get(letter, "") if letter else "", position + index))
        index = escape.end()
    return characters
