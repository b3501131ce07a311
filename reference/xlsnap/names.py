# SPDX-License-Identifier: LGPL-2.1-or-later
"""The rules for names (pure)."""

from __future__ import annotations

import re
from collections.abc import Collection

from .errors import BadNameError

MAX_NAME_BYTES = 200
"""Longest snapshot name in bytes of UTF-8: QEMU cuts tags at 255, file names have a prefix and a suffix."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_HINT = "1 to 200 bytes of UTF-8 without '/' and control characters, not starting with '-'"


def name_problem(name: str) -> str | None:
    """Say what is wrong with a snapshot or domain name, or None when nothing is."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "it is not valid UTF-8"
    if size == 0:
        return "it is empty"
    if size > MAX_NAME_BYTES:
        return f"it has {size} bytes, {MAX_NAME_BYTES} are allowed"
    if name in {".", ".."}:
        return "it names a directory"
    if name.startswith("-"):
        return "it starts with '-'"
    if "/" in name:
        return "it contains '/'"
    if _CONTROL.search(name):
        return "it contains a control character"
    return None


def check_name(name: str, what: str = "snapshot name") -> str:
    """Return the name if it obeys the rules.

    :raise BadNameError: saying which rule it breaks; the name is shown with its odd characters escaped.
    """
    problem = name_problem(name)
    if problem is not None:
        shown = ascii(name if len(name) <= 60 else name[:57] + "...")
        raise BadNameError(f"bad {what} {shown}: {problem}", hint=_HINT)
    return name


def default_name(taken: Collection[str], now: int) -> str:
    """Name a snapshot by the epoch seconds `now`, or by the next integer that is free (XLS-CREATE)."""
    while str(now) in taken:
        now += 1
    return str(now)
