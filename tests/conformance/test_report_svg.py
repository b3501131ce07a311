# SPDX-License-Identifier: LGPL-2.1-or-later
"""The drawings: snapshot trees of every shape, and the picture of a run."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from hypothesis import given, settings
from hypothesis import strategies as st
from xlsnap_conformance.report.svg import MAX_ROWS, Row, layout, tree_svg
from xlsnap_conformance.trace import Tree, TreeNode


def shape(rows: list[Row]) -> list[tuple[str | None, int, int | None]]:
    return [(row.node.name if row.node else None, row.lane, row.parent) for row in rows]


def node(name: str, parent: str | None = None, *, current: bool = False) -> TreeNode:
    return TreeNode(name=name, parent=parent, current=current)


def test_a_chain_stays_in_its_lane_and_ends_in_the_domain() -> None:
    tree = Tree(domain_state="running", snapshots=(node("a"), node("b", "a"), node("c", "b", current=True)))
    assert shape(layout(tree)) == [("a", 0, None), ("b", 0, 0), ("c", 0, 1), (None, 0, 2)]


def test_branches_go_to_the_right() -> None:
    tree = Tree(domain_state="paused", snapshots=(node("a"), node("b", "a"), node("c", "a", current=True)))
    assert shape(layout(tree)) == [("a", 0, None), ("c", 1, 0), (None, 1, 1), ("b", 0, 0)]


def test_a_domain_on_an_inner_snapshot_is_a_branch() -> None:
    tree = Tree(domain_state="running", snapshots=(node("a", current=True), node("b", "a")))
    assert shape(layout(tree)) == [("a", 0, None), (None, 1, 0), ("b", 0, 0)]


def test_a_domain_on_no_snapshot_stands_alone() -> None:
    assert shape(layout(Tree(domain_state="running"))) == [(None, 0, None)]


names = st.sampled_from("abcdefgh")
nodes = st.builds(TreeNode, name=names, parent=st.none() | names, memory=st.booleans(), current=st.booleans())


@settings(deadline=None)
@given(st.lists(nodes, max_size=8, unique_by=lambda n: n.name))
def test_any_tree_shows_each_snapshot_once_below_its_parent(snapshots: list[TreeNode]) -> None:
    rows = layout(Tree(domain_state="running", snapshots=tuple(snapshots)))
    shown = [row.node.name for row in rows if row.node]
    assert sorted(shown) == sorted(node.name for node in snapshots)
    for index, row in enumerate(rows):
        assert row.parent is None or row.parent < index
        if row.parent is not None and row.node:
            parent = rows[row.parent].node
            assert parent is not None
            assert parent.name == row.node.parent


@settings(deadline=None)
@given(st.lists(nodes, max_size=8, unique_by=lambda n: n.name))
def test_no_line_crosses_a_mark_or_shares_its_lane(snapshots: list[TreeNode]) -> None:
    """A line runs down the lane of its parent, so that nothing else may stand there on the way."""
    rows = layout(Tree(domain_state="running", snapshots=tuple(snapshots)))
    for index, row in enumerate(rows):
        if row.parent is not None:
            lane = rows[row.parent].lane
            assert all(between.lane != lane for between in rows[row.parent + 1 : index])


@settings(deadline=None)
@given(st.text(min_size=1), st.text())
def test_hostile_names_stay_text(name: str, state: str) -> None:
    tree = Tree(domain_state=state, snapshots=(TreeNode(name=name, disks=(name,), state=state),))
    root = ET.fromstring(tree_svg(tree, name))
    kinds = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert kinds <= {"svg", "title", "g", "path", "circle", "text", "tspan"}
    assert not [key for element in root.iter() for key in element.attrib if key.startswith("on")]


def test_a_huge_tree_is_cut_and_says_so() -> None:
    chain = tuple(node(str(n), str(n - 1) if n else None) for n in range(5000))
    drawn = tree_svg(Tree(domain_state="running", snapshots=chain), "t")
    assert drawn.count("<circle") == MAX_ROWS
    assert f"and {5000 - MAX_ROWS} more" in drawn
