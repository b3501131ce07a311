# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tree of snapshots: nothing lost, nothing twice, each below what it came from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xlsnap.tree import ASCII, BOXES, NOW, Row, Style, broken_parents, draw, rows

NAMES = st.sampled_from(["a", "b", "c", "d", "e", "f", "g", NOW])
FORESTS = st.dictionaries(NAMES, st.none() | NAMES | st.just("gone"), max_size=8)
"""Parents of every kind: none, another snapshot, itself, round in circles, one that does not exist."""


def drawing(parents: dict[str, str | None], current: str | None = None, style: Style = BOXES) -> list[str]:
    return [draw(row, style) + (row.name or NOW) for row in rows(parents, current=current)]


def test_a_tree() -> None:
    parents = {"a": None, "b": "a", "c": "b", "d": "a", "e": None}
    assert drawing(parents, "c") == [
        "a",
        "├─ b",
        "│  └─ c",
        "│     └─ (now)",
        "└─ d",
        "e",
    ]
    assert drawing(parents, "a", ASCII) == [
        "a",
        "|- b",
        "|  `- c",
        "|- d",
        "`- (now)",
        "e",
    ]


def test_without_snapshots_there_is_no_tree() -> None:
    assert list(rows({}, current="gone")) == []


def test_the_working_state_stands_alone_when_nobody_knows_where_it_comes_from() -> None:
    assert drawing({"a": None}) == ["a", "(now)"]
    assert drawing({"a": None}, "gone") == ["a", "(now)"]


def test_a_snapshot_named_like_the_working_state_is_another_row() -> None:
    assert [(row.name, row.depth) for row in rows({NOW: None}, current=NOW)] == [(NOW, 0), (None, 1)]


def test_a_parent_that_is_gone_leaves_a_note() -> None:
    (child, grandchild, _) = rows({"b": "a", "c": "b"})
    assert child == Row("b", (False,), "it came from 'a', which does not exist")
    assert grandchild == Row("c", (False, True))


def test_a_damaged_snapshot_keeps_its_children() -> None:
    bad, child, now = rows({"b": "bad"}, damaged=["bad"])
    assert now.name is None
    assert (bad.name, bad.depth, bad.note) == ("bad", 0, "its metadata is damaged")
    assert (child.name, child.depth, child.note) == ("b", 1, "")


@pytest.mark.parametrize(
    ("parents", "first"),
    [
        ({"a": "a"}, "a"),
        ({"a": "b", "b": "a"}, "a"),
        ({"c": "a", "b": "a", "a": "b"}, "b"),  # c leads to the circle of b and a
    ],
)
def test_in_a_circle_the_oldest_has_the_wrong_parent(parents: dict[str, str | None], first: str) -> None:
    assert broken_parents(parents) == {first: f"it came from {parents[first]!r}, which came from it"}


def read_back(lines: list[str], style: Style) -> list[tuple[int, str]]:
    """Return the depth and name in each line, checking that every line drawn leads somewhere."""
    found: list[tuple[int, str]] = []
    open_lines: set[int] = set()
    for line in lines:
        depth = 0
        while True:
            lead, rest = line[:3], line[3:]
            if lead in (style.fork, style.last):
                assert (depth in open_lines) or found[-1][0] == depth, "a branch that begins nowhere"
                (open_lines.add if lead == style.fork else open_lines.discard)(depth)
                line, depth = rest, depth + 1
                break
            if lead not in (style.line, style.gap):
                break
            assert (lead == style.line) == (depth in open_lines)
            line, depth = rest, depth + 1
        found.append((depth, line))
    assert not open_lines, "a line that leads nowhere"
    return found


@pytest.mark.parametrize("style", [BOXES, ASCII], ids=["boxes", "ascii"])
@given(parents=FORESTS, current=st.none() | NAMES, damaged=st.sets(NAMES, max_size=2))
def test_every_forest_is_drawn_whole(
    style: Style, parents: dict[str, str | None], current: str | None, damaged: set[str]
) -> None:
    parents = {name: parent for name, parent in parents.items() if name not in damaged}
    known = {**parents, **dict.fromkeys(sorted(damaged))}
    drawn = list(rows(parents, current=current, damaged=sorted(damaged)))
    assert sorted(row.name for row in drawn if row.name is not None) == sorted(known)
    assert [row.name for row in drawn].count(None) == (1 if known else 0)
    lines = [draw(row, style) + (row.name or NOW) for row in drawn]
    depths = read_back(lines, style)
    assert [depth for depth, _ in depths] == [row.depth for row in drawn]

    above: list[str | None] = []  # the rows that the present one hangs below
    seen: dict[str | None, list[str]] = {}
    for row in drawn:
        del above[row.depth :]
        parent = above[-1] if above else None
        if row.name is None:
            assert parent == (current if current in known else None)
        else:
            seen.setdefault(parent, []).append(row.name)
            wrong = broken_parents(known)
            assert parent == (None if row.name in wrong else known[row.name])
            assert bool(row.note) == (row.name in wrong or row.name in damaged)
        above.append(row.name)
    order = list(known)
    assert all(names == sorted(names, key=order.index) for names in seen.values())


@given(FORESTS)
def test_only_what_must_be_is_broken(parents: dict[str, str | None]) -> None:
    """Each reason holds by itself, and without them every way up ends."""
    broken = broken_parents(parents)
    order = list(parents)
    for name in broken:
        way = [name]
        while (above := parents.get(way[-1])) is not None and above not in way:
            way.append(above)
        if way[-1] in parents:  # a circle: back to the broken one, which is the oldest of it
            assert parents[way[-1]] == name
            assert min(way, key=order.index) == name
        else:
            assert way[1:] == [parents[name]]
    for name in parents:
        at: str | None = name
        for _ in parents:
            at = None if at is None or at in broken else parents[at]
        assert at is None


def test_a_long_chain_is_no_recursion() -> None:
    parents = {str(number): str(number - 1) if number else None for number in range(3000)}
    assert sum(1 for _ in rows(parents, current="2999")) == 3001
