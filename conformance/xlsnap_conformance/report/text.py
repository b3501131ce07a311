# SPDX-License-Identifier: LGPL-2.1-or-later
"""Make text safe to show: what comes from a driver or a guest is hostile until it went through here.

Control characters, invisible and direction-changing characters and lone surrogates become escapes that can be
read (``\\x1b``, ``\\u202e``); long texts are cut in the middle of nowhere, but say so; directories that tell
about the user become ``~`` and ``$ROOT``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEXT_LIMIT = 20_000
"""Characters of one piece of evidence that a report keeps."""
LINE_LIMIT = 500
"""Characters of a one-line message that a report keeps."""

_UNSHOWABLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def _escape(char: str) -> str:
    if unicodedata.category(char) not in _UNSHOWABLE:
        return char
    code = ord(char)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def cut(text: str, limit: int) -> str:
    """Return at most about ``limit`` characters of ``text``: its beginning, and how much is missing."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… ({len(text) - limit} more characters)"


def visible(text: str, limit: int = TEXT_LIMIT) -> str:
    """Return ``text`` with everything that cannot be seen escaped, but for line ends and tabs."""
    text = cut(text.replace("\r\n", "\n"), limit)
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char in "\n\t" else _escape(char) for char in text)


def one_line(text: str, limit: int = LINE_LIMIT) -> str:
    """Return ``text`` as one line: line ends and tabs are escaped too."""
    return cut(visible(text, TEXT_LIMIT).strip().replace("\n", "\\n").replace("\t", "\\t"), limit)


def tail(text: str, limit: int = TEXT_LIMIT) -> str:
    """Return the end of ``text``, made `visible`: of a log the last lines matter."""
    if len(text) <= limit:
        return visible(text, limit)
    return f"({len(text) - limit} characters before)\n{visible(text[-limit:], limit)}"


def redact(text: str, names: Mapping[str, str]) -> str:
    """Return ``text`` with each directory that is a key of ``names`` replaced by what it is to be called."""
    for directory in sorted(names, key=len, reverse=True):
        if len(directory) > 1:
            text = text.replace(directory, names[directory])
    return text


def directory_names(*roots: Path | None) -> dict[str, str]:
    """Return the names that `redact` gives to the directories of a run and to the user's home."""
    names = {str(Path.home()): "~"}
    for root in roots:
        if root is not None:
            names[str(root)] = names[str(root.resolve())] = "$ROOT"
    return names


def json_text(value: Any) -> str:
    """Return plain data as text for a human being: strings as they are, the rest as Python shows it."""
    return value if isinstance(value, str) else repr(value)


def encodable(value: Any) -> Any:
    """Return plain data whose strings are all valid Unicode, so that it can be written as JSON.

    Lone surrogates are what Python makes of bytes that are not UTF-8, such as a file name from a driver.
    """
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode("utf-8")
        case Mapping():
            return {encodable(str(key)): encodable(item) for key, item in value.items()}
        case list() | tuple():
            return [encodable(item) for item in value]
        case None | bool() | int() | float():
            return value
        case _:
            return encodable(repr(value))
