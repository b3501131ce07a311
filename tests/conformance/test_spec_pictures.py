# SPDX-License-Identifier: LGPL-2.1-or-later
"""The pictures and tables of the specification are those of the model."""

import re

import pytest
from xlsnap_conformance import trace as do
from xlsnap_conformance.clauses import specification_directory
from xlsnap_conformance.model import World, apply
from xlsnap_conformance.spec_pictures import PICTURES, Chain, drawn, transitions
from xlsnap_conformance.trace import DomainOf

CHAPTERS = {path.name: path.read_text(encoding="utf-8") for path in specification_directory().glob("*.md")}


@pytest.mark.parametrize("name", CHAPTERS)
def test_pictures_are_current(name: str) -> None:
    assert drawn(CHAPTERS[name]) == CHAPTERS[name], "run python -m xlsnap_conformance.spec_pictures"


def test_every_picture_is_shown_once() -> None:
    shown = re.findall(r"<!-- picture: (\S+) -->", "".join(CHAPTERS.values()))
    assert sorted(shown) == sorted(PICTURES)


def test_a_picture_that_is_out_of_date_is_drawn_anew() -> None:
    chapter = "<!-- picture: snapshot-tree -->\nold\n<!-- end of picture -->\n"
    assert "old" not in drawn(chapter)
    assert drawn(drawn(chapter)) == drawn(chapter)


ROWS = {"r": "running", "p": "paused", "s": "shutdown", "\N{EN DASH}": "stopped"}


def test_the_table_of_run_states_is_that_of_the_model() -> None:
    """Its cells begin with yes or refused, and tell of a state where there is a choice."""
    table = transitions()
    chapter = CHAPTERS["01-terms-and-model.md"]
    found = {}
    for letter, state in ROWS.items():
        (row,) = re.findall(rf"^\| {letter} \|.*$", chapter, re.MULTILINE)
        _, create, listed, revert, delete = (cell.strip() for cell in row.split("|")[2:7])
        found[state] = {"create": create, "revert": revert, "delete": delete}
        assert listed == "yes"
        for event, cell in (("create", create), ("delete", delete)):
            after = table[state, event]
            assert cell.startswith("refused") == (after is None), (state, event)
            assert after in (None, state), (state, event)
        assert revert.startswith("yes")
        assert table[state, "revert to one taken running"] == "running"
    assert set(found) == set(ROWS.values())


def test_the_table_of_states_after_a_revert_is_that_of_the_model() -> None:
    rows = {
        "has memory, was taken running": ("revert to one taken running", "revert, left paused"),
        "has memory, was taken paused": ("revert to one taken paused", None),
        "is disk-only": ("revert to a disk-only one", None),
    }
    table = transitions()
    for begin, (plain, paused) in rows.items():
        (row,) = re.findall(rf"^\| {begin} \| (.*) \|$", CHAPTERS["01-terms-and-model.md"], re.MULTILINE)
        without, with_p = row.split(" | ")
        for state in ROWS.values():
            assert without.startswith(str(table[state, plain]))
            assert paused is None or with_p == table[state, paused]
        assert with_p.startswith("paused")


def test_chains() -> None:
    """A merge moves places and the present image down; an image that a snapshot needs stays."""
    world, chain = World(DomainOf()), Chain()
    for name in ("a", "b"):
        step = do.Create(name=name, type="external")
        chain = chain.after(step, world)
        world = apply(world, step).after
    assert chain.lines() == ["hda.img [a] <-- overlay-1.qcow2 [b] <-- overlay-2.qcow2 (guest writes)"]
    assert chain.after(do.Delete(name="a"), world).lines() == [
        "hda.img [b] <-- overlay-2.qcow2 (guest writes)"
    ]
    assert chain.after(do.Delete(name="b"), world).lines() == [
        "hda.img [a] <-- overlay-1.qcow2 (guest writes)"
    ]
    back = chain.after(do.Revert(name="a"), world)
    assert back.lines() == [
        "hda.img [a] <-- overlay-1.qcow2 [b]",
        "hda.img [a] <-- overlay-3.qcow2 (guest writes)",
    ]
