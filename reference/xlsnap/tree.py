# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tree of a domain's snapshots, and how it is drawn (pure).

::

    clean install
    ├─ update 1
    │  └─ update 2
    │     └─ (now)
    └─ other kernel

What came from what is only as good as the metadata: a parent can be missing, and parents can go round in a
circle. No snapshot is lost for that: it stands at the left, and a note says why.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import msgspec

NOW = "(now)"
"""Stands for the working state of the domain, below the snapshot that it comes from."""


class Style(NamedTuple):
    """What leads to a snapshot that has others below it in the same branch, to a last one, and past both."""

    fork: str
    last: str
    line: str
    gap: str


BOXES = Style("├─ ", "└─ ", "│  ", "   ")
ASCII = Style("|- ", "`- ", "|  ", "   ")


class Row(msgspec.Struct, frozen=True):
    """A snapshot in the tree, or the working state (``name`` None).

    ``depth`` is the number of snapshots that it comes from; ``last`` tells for itself and each of them, the
    oldest first, whether it is the last of its siblings. ``note`` says what is wrong with it.
    """

    name: str | None
    last: tuple[bool, ...]
    note: str = ""

    @property
    def depth(self) -> int:
        """How many rows it hangs below."""
        return len(self.last) - 1


def broken_parents(parents: Mapping[str, str | None]) -> dict[str, str]:
    """Return the snapshots whose parent cannot be right, with the reason.

    `parents` has the snapshots by creation time. In a circle it is the first one whose parent is wrong: what
    it came from must be older.
    """
    broken: dict[str, str] = {}
    safe: set[str] = set()  # from these one gets to a snapshot without a parent
    for name in parents:
        path: dict[str, None] = {}
        at: str | None = name
        while at is not None and at not in safe and at not in path:
            path[at] = None
            above = parents[at]
            if above is not None and above not in parents:
                broken[at] = f"it came from {above!r}, which does not exist"
                above = None
            at = above
        if at in path:  # `name` is on the circle or leads to it
            circle = list(path)[list(path).index(at or "") :]
            first = next(each for each in parents if each in circle)
            broken[first] = f"it came from {parents[first]!r}, which came from it"
        safe.update(path)
    return broken


def rows(
    parents: Mapping[str, str | None], *, current: str | None = None, damaged: Collection[str] = ()
) -> Iterator[Row]:
    """Yield the tree from top to bottom; siblings are in the order of `parents`, the working state is last.

    `damaged` are snapshots of which nothing but the name is known. Without snapshots there is no tree.
    """
    known = {**parents, **dict.fromkeys(damaged)}
    if not known:
        return
    broken = broken_parents(known)
    notes = {**broken, **dict.fromkeys(damaged, "its metadata is damaged")}
    children: dict[str | None, list[str | None]] = {}
    for name, parent in known.items():
        children.setdefault(None if name in broken else parent, []).append(name)
    children.setdefault(current if current in known else None, []).append(None)

    def below(name: str | None, last: tuple[bool, ...]) -> list[tuple[str | None, tuple[bool, ...]]]:
        found = children.get(name, [])
        return [(child, (*last, child is found[-1])) for child in reversed(found)]

    unread = below(None, ())
    while unread:
        at, last = unread.pop()
        yield Row(at, last, notes.get(at, "") if at is not None else "")
        if at is not None:
            unread += below(at, last)


def draw(row: Row, style: Style) -> str:
    """Return what is drawn before the name of a row."""
    if not row.depth:
        return ""
    past = "".join(style.gap if last else style.line for last in row.last[1:-1])
    return past + (style.last if row.last[-1] else style.fork)
