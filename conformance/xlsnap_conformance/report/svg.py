# SPDX-License-Identifier: LGPL-2.1-or-later
"""Draw snapshot trees as SVG.

A tree is drawn like the log of a version control system: oldest on top, one row a snapshot, its name beside
it. The first child goes on in the lane of its parent, further children branch off to the right. The domain
itself is the diamond; the line to it starts at the snapshot that its state came from.

Names are hostile: they are cut and made visible (`text.one_line`), and everything is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from ..trace import Tree, TreeNode
from . import text

ROW = 34
"""Pixels from one row to the next."""
LANE = 24
"""Pixels from one lane to the next."""
MARGIN = 16
NAME_LIMIT = 36
"""Characters of a name that are drawn; the rest is in the tooltip."""
MAX_ROWS = 60
"""Snapshots that are drawn; the picture tells how many there are more."""

_CHARACTER = 7.2  # pixels, a generous mean of the sans-serif fonts at 13 px


@dataclass(frozen=True, slots=True)
class Row:
    """A place in the picture; ``node`` is None for the domain itself, ``parent`` the index of a row."""

    node: TreeNode | None
    lane: int
    parent: int | None


def layout(tree: Tree) -> list[Row]:
    """Return the rows of the picture from top to bottom.

    A parent that is not in the tree counts as none; a snapshot in a circle of parents becomes a root.
    """
    nodes = tree.snapshots[:MAX_ROWS]
    known = {node.name for node in nodes}
    children: dict[str | None, list[TreeNode]] = {}
    for node in nodes:
        children.setdefault(node.parent if node.parent in known else None, []).append(node)
    rows: list[Row] = []
    placed: set[str] = set()

    def place(node: TreeNode, lane: int, parent: int | None) -> int:
        """Place a node and all that came from it; return the first lane to the right that is free."""
        placed.add(node.name)
        rows.append(Row(node, lane, parent))
        here, free = len(rows) - 1, lane + 1
        below = [child for child in children.get(node.name, []) if child.name not in placed]
        if node.current:
            rows.append(Row(None, free if below else lane, here))
        for child in below[1:]:
            if child.name not in placed:
                place(child, free, here)
        if below and below[0].name not in placed:
            free = max(free, place(below[0], lane, here))
        return free

    if not any(node.current for node in nodes):
        rows.append(Row(None, 0, None))
    for root in children.get(None, []):
        if root.name not in placed:
            place(root, 0, None)
    for node in nodes:
        if node.name not in placed:
            place(node, 0, None)
    return rows


def tree_svg(tree: Tree, title: str) -> str:
    """Return the picture as an ``svg`` element for a page that defines the variables of `look`."""
    rows = layout(tree)
    labels = [_label(row, tree) for row in rows]
    ends = [
        MARGIN + row.lane * LANE + 24 + _width("  ".join(label))
        for row, label in zip(rows, labels, strict=True)
    ]
    width = max(ends, default=0) + MARGIN
    hidden = len(tree.snapshots) - sum(row.node is not None for row in rows)
    height = ROW * (len(rows) + bool(hidden)) + 8
    parts = [*_lines(rows), *_marks(rows, labels, tree)]
    if hidden:
        parts.append(f'<text class="d" x="{MARGIN}" y="{_y(len(rows)) + 4}">and {hidden} more</text>')
    return (
        f'<svg class="tree" role="img" width="{width:.0f}" height="{height}"'
        f' viewBox="0 0 {width:.0f} {height}" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(text.one_line(title))}</title>{''.join(parts)}</svg>"
    )


def _width(value: str) -> float:
    return sum(_CHARACTER * (1 if ord(char) < 0x1100 else 2) for char in value)


def _label(row: Row, tree: Tree) -> tuple[str, str]:
    """Return the name of a row and what is said of it."""
    if row.node is None:
        return "domain", text.one_line(tree.domain_state, 20)
    node = row.node
    kept = "memory and disks" if node.memory else "disks only"
    of = f" {', '.join(node.disks)}" if node.disks else ""
    state = f" · {node.state[:1]}" if node.memory and node.state else ""
    return text.one_line(node.name, NAME_LIMIT) or "(no name)", text.one_line(f"{kept}{of}{state}", 48)


def _x(lane: int) -> int:
    return MARGIN + lane * LANE


def _y(index: int) -> int:
    return 20 + index * ROW


def _lines(rows: list[Row]) -> Iterator[str]:
    for index, row in enumerate(rows):
        if row.parent is None:
            continue
        x0, y0, x1, y1 = _x(rows[row.parent].lane), _y(row.parent), _x(row.lane), _y(index)
        bend = "" if x0 == x1 else f"Q{x0} {y1} {x0 + 10} {y1}H{x1}"
        path = f"M{x0} {y0}V{y1 - 10 if bend else y1}{bend}"
        kind = "w" if row.node is None else "l"
        yield f'<path class="{kind}" d="{path}"/>'


def _marks(rows: list[Row], labels: list[tuple[str, str]], tree: Tree) -> Iterator[str]:
    for index, (row, (name, detail)) in enumerate(zip(rows, labels, strict=True)):
        x, y = _x(row.lane), _y(index)
        if row.node is None:
            mark = f'<path class="h" d="M{x} {y - 7}L{x + 7} {y}L{x} {y + 7}L{x - 7} {y}Z"/>'
            tooltip = f"the domain now: {text.one_line(tree.domain_state, 20)}"
        else:
            mark = f'<circle class="{"m" if row.node.memory else "o"}" cx="{x}" cy="{y}" r="6"/>'
            tooltip = text.one_line(row.node.name)
        yield (
            f"<g><title>{escape(tooltip)}</title>{mark}"
            f'<text x="{x + 16}" y="{y + 4}">{escape(name)}'
            f'<tspan class="d" dx="8">{escape(detail)}</tspan></text></g>'
        )
