# SPDX-License-Identifier: LGPL-2.1-or-later
"""The specification: its form, and that its examples are what they say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import xlsnap_grammars
from xlsnap_conformance import clauses
from xlsnap_conformance.clauses import (
    AREAS,
    PROFILES,
    Clause,
    SpecificationError,
    find_clauses,
    load_clauses,
    parse_chapter,
    specification_directory,
)
from xlsnap_conformance.examples import Example, load_examples, parse_examples, shown
from xlsnap_grammars import DEVIATIONS, ConfigError, parse_config, parse_disk, parse_snapshot_config

GOOD = """\
# 4. Create

## Part

### XLS-CREATE-001
*MUST · core, disk-internal · v4 V9*

It must
hold.

```xl.snapshot.conf accepted
name = "x"
# not a heading

> Rationale: not a rationale
```

> Rationale: because
> it must.

Source: decided here.

## Next part

Prose.
"""


# --- the loader -------------------------------------------------------------------------------------------


def test_a_clause_and_its_parts() -> None:
    (clause,) = parse_chapter(GOOD, file="04-create.md")
    assert clause == Clause(
        id="XLS-CREATE-001",
        level="MUST",
        profiles=("core", "disk-internal"),
        editions=("v4", "V9"),
        text="It must hold.",
        rationale="because it must.",
        source="decided here.",
        chapter="4. Create",
        file="04-create.md",
        line=5,
    )
    assert clause.area == "CREATE"


def test_a_rationale_is_optional_and_prose_is_no_clause() -> None:
    bare = GOOD.replace("> Rationale: because\n> it must.\n", "")
    (clause,) = parse_chapter(bare, file="x.md")
    assert clause.rationale == ""
    assert parse_chapter("# 11. Errata\n\n## Part\n\nProse.\n", file="x.md") == []


def test_clauses_stand_in_the_order_of_the_text() -> None:
    second = GOOD.partition("## Part\n")[2].replace("001", "002")
    chapter = parse_chapter(GOOD + second, file="x.md")
    assert [clause.id for clause in chapter] == ["XLS-CREATE-001", "XLS-CREATE-002"]


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("# 4. Create", "# Create", "x.md:1: a chapter begins with its title: # 4. Create"),
        ("XLS-CREATE-001", "XLS-CREATE-1", "x.md:5: 'XLS-CREATE-1' is not a clause id XLS-AREA-NNN"),
        ("XLS-CREATE-001", "XLS-Create-001", "x.md:5: 'XLS-Create-001' is not a clause id XLS-AREA-NNN"),
        ("XLS-CREATE-001", "XLS-ODD-001", "x.md:5: XLS-ODD-001: unknown area ODD; there are TERM, "),
        ("XLS-CREATE-001", "XLS-LIST-001", "x.md:5: XLS-LIST-001: clauses of LIST stand in chapter 5"),
        ("*MUST", "*SHALL", "x.md:6: XLS-CREATE-001: unknown level 'SHALL'; there are MUST, SHOULD, MAY"),
        (" · v4 V9*", "*", "x.md:6: XLS-CREATE-001: the line after the id must be *LEVEL · profiles · "),
        ("*MUST", "\n*MUST", "x.md:6: XLS-CREATE-001: the line after the id must be *LEVEL"),
        ("disk-internal ·", "disks ·", "x.md:6: XLS-CREATE-001: unknown profile 'disks'; there are core, "),
        ("disk-internal ·", "core ·", "x.md:6: XLS-CREATE-001: profile core is named twice"),
        ("V9*", "V8*", "x.md:6: XLS-CREATE-001: unknown edition 'V8'; there are v4, V9"),
        ("V9*", "v4*", "x.md:6: XLS-CREATE-001: edition v4 is named twice"),
        ("It must\nhold.\n", "", "x.md:5: XLS-CREATE-001: it has no text"),
        ("Source: decided here.\n", "", "x.md:5: XLS-CREATE-001: it has no source"),
        ("here.\n", "here.\n\nMore.\n", "x.md:23: XLS-CREATE-001: it goes on after its source"),
        ("\n> it must.", "\n\n> Rationale: twice.", "x.md:20: XLS-CREATE-001: it has two rationales"),
        ("\n> it must.", "\n\nmore.", "x.md:20: XLS-CREATE-001: text follows the rationale"),
        ("```\n\n> Rat", "\n\n> Rat", "x.md:11: the example has no end: ``` is missing"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(old: str, new: str, complaint: str) -> None:
    assert GOOD.count(old) == 1
    with pytest.raises(SpecificationError) as caught:
        parse_chapter(GOOD.replace(old, new), file="x.md")
    assert str(caught.value).startswith(complaint)


def test_an_empty_file_is_no_chapter() -> None:
    with pytest.raises(SpecificationError, match=r"^x\.md:1: a chapter begins with its title"):
        parse_chapter("", file="x.md")


def test_an_id_that_ends_the_file_is_told() -> None:
    with pytest.raises(SpecificationError, match=r"^x\.md:4: XLS-LIST-001: the line after the id must be"):
        parse_chapter("# 5. List\n\n### XLS-LIST-001", file="x.md")


def test_an_id_stands_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "04-create.md").write_text(GOOD)
    (tmp_path / "04-more.md").write_text(GOOD)
    monkeypatch.setattr(clauses, "specification_directory", lambda: tmp_path)
    with pytest.raises(SpecificationError, match=r"^04-more\.md:5: XLS-CREATE-001 stands at 04-create\.md:5"):
        load_clauses.__wrapped__()


@pytest.mark.parametrize("place", ["conformance/xlsnap_conformance/spec", "spec"])
def test_the_text_is_found_in_a_wheel_and_in_a_checkout(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tmp_path / place
    spec.mkdir(parents=True)
    (spec / "00-introduction.md").write_text("# 0. Introduction\n")
    module = tmp_path / "conformance" / "xlsnap_conformance" / "clauses.py"
    monkeypatch.setattr(clauses, "__file__", str(module))
    assert specification_directory() == spec


def test_a_missing_text_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clauses, "__file__", str(tmp_path / "a" / "b" / "clauses.py"))
    with pytest.raises(FileNotFoundError, match=r"^no specification beside .*: reinstall the package$"):
        specification_directory()


@pytest.mark.parametrize("reference", ["XLS-REVERT-004", "xls-revert-004", "revert-004"])
def test_a_clause_is_found_by_its_id(reference: str) -> None:
    assert find_clauses(reference) == (load_clauses()["XLS-REVERT-004"],)


@pytest.mark.parametrize("reference", ["XLS-LIST", "xls-list-", "list"])
def test_clauses_are_found_by_the_beginning_of_their_ids(reference: str) -> None:
    found = find_clauses(reference)
    assert {clause.area for clause in found} == {"LIST"}
    assert len(found) == sum(clause.area == "LIST" for clause in load_clauses().values())


def test_what_no_id_begins_with_finds_nothing_and_nothing_finds_all() -> None:
    assert find_clauses("XLS-NOPE") == find_clauses("004") == ()
    assert find_clauses("") == find_clauses("xl") == tuple(load_clauses().values())


# --- the text ---------------------------------------------------------------------------------------------

CHAPTERS = {
    path.name: path.read_text(encoding="utf-8") for path in sorted(specification_directory().glob("*.md"))
}


def test_the_specification_loads() -> None:
    assert len(load_clauses()) >= 150
    assert {clause.area for clause in load_clauses().values()} == set(AREAS)
    assert {name for clause in load_clauses().values() for name in clause.profiles} == set(PROFILES)


@pytest.mark.parametrize("clause", load_clauses().values(), ids=lambda clause: clause.id)
def test_a_clause_is_brief(clause: Clause) -> None:
    assert len(clause.text.split()) <= 60, "a clause is one testable sentence or two"
    for part in (clause.text, clause.rationale or "."):
        assert part.endswith("."), f"no full stop: {part}"


@pytest.mark.parametrize("area", AREAS)
def test_no_number_is_left_out_unless_it_was_withdrawn(area: str) -> None:
    withdrawn = set(re.findall(r"XLS-[A-Z]+-\d{3}", CHAPTERS["README.md"].partition("## Withdrawn ids")[2]))
    assert not withdrawn & load_clauses().keys()
    numbers = {int(id[-3:]) for id in withdrawn | load_clauses().keys() if id.split("-")[1] == area}
    assert numbers == set(range(1, len(numbers) + 1))


def test_every_clause_that_the_text_mentions_exists() -> None:
    for name, text in CHAPTERS.items():
        mentioned = set(re.findall(r"XLS-[A-Z]+-\d{3}", text))
        assert mentioned - {"XLS-AREA-000"} <= load_clauses().keys(), name


def test_the_index_has_every_chapter_and_area() -> None:
    for index in ("README.md", "00-introduction.md"):
        linked = set(re.findall(r"\((\d\d-[a-z-]+\.md)\)", CHAPTERS[index]))
        assert linked >= CHAPTERS.keys() - {"README.md", "00-introduction.md"}
    rows = re.findall(r"^\| \[(\d+)\. [^|]*\| ([^|]*) \|", CHAPTERS["README.md"], re.MULTILINE)
    named = {area: int(number) for number, ids in rows for area in re.findall(r"XLS-([A-Z]+)", ids)}
    assert named == dict(AREAS)


def test_links_lead_somewhere() -> None:
    source = Path(__file__).parents[2] / "spec"
    for name, text in CHAPTERS.items():
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert (source / target).exists(), f"{name}: {target}"


def test_the_introduction_explains_every_level_profile_and_edition() -> None:
    text = CHAPTERS["00-introduction.md"]
    for name in (*clauses.LEVELS, *PROFILES):
        assert f"\n| {name} | " in text
    for name in clauses.EDITIONS:
        assert f"`{name}`" in text


# --- what the text shows of the grammars ------------------------------------------------------------------


def test_the_table_of_deviations_is_that_of_the_grammars() -> None:
    table = CHAPTERS["02-configuration.md"].partition("## Deviations from libxlu")[2]
    assert re.findall(r"^\| ([a-z-]*[a-z]) \|", table, re.MULTILINE)[1:] == [each.id for each in DEVIATIONS]


def test_the_grammar_that_is_shown_is_the_real_one() -> None:
    shown = re.findall(
        r"^```lark (\S+)\n(.*?)^```$", CHAPTERS["02-configuration.md"], re.MULTILINE | re.DOTALL
    )
    assert {name for name, _ in shown} == {"config.lark", "disk.lark"}
    for name in ("config.lark", "disk.lark"):
        real = (Path(xlsnap_grammars.__file__).parent / name).read_text(encoding="utf-8")
        parts = [text for of, text in shown if of == name]
        assert all(part in real for part in parts), name
        rules = {line for line in real.splitlines() if line.strip() and not line.startswith("//")}
        assert rules <= {line for part in parts for line in part.splitlines()}, f"{name} is not shown whole"


_PARSERS: dict[str, Callable[[str], Any]] = {
    "xl.cfg": parse_config,
    "xl-disk": parse_disk,
    "xl.snapshot.conf": parse_snapshot_config,
}
EXAMPLES = [pytest.param(example, id=example.place) for example in load_examples()]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_accepted_or_rejected_as_it_says(example: Example) -> None:
    parse = _PARSERS[example.language]
    if not example.accepted:
        with pytest.raises(ConfigError):
            parse(example.text)
        return
    value = parse(example.text)
    if example.meaning is not None:
        plain = value if isinstance(value, dict) else asdict(value)
        plain = json.loads(json.dumps(plain))
        assert shown(plain, example.meaning) == example.meaning
        if example.language == "xl.cfg":
            assert plain == example.meaning, "a configuration is shown whole"


def test_there_are_examples_of_each_kind_and_every_fence_is_understood() -> None:
    found = load_examples()
    assert {(each.language, each.accepted) for each in found} == {
        (n, v) for n in _PARSERS for v in (True, False)
    }
    assert len({each.place for each in found}) == len(found)
    fences = re.compile(r"^```xl.*\n(?:(?!```).*\n)*", re.MULTILINE)
    for name, chapter in CHAPTERS.items():
        understood = "".join(each.text for each in parse_examples(chapter, file=name))
        for fence in fences.findall(chapter):
            assert all(line in understood for line in fence.splitlines()[1:]), f"{name}: {fence}"


def test_an_example_belongs_to_the_clause_that_it_stands_under() -> None:
    fence = "```xl-disk accepted\n/d,raw,hda\n```\n"
    chapter = f"# 2. X\n\n{fence}\n### XLS-CONF-001\n\n{fence}\n## Part\n\n{fence}"
    found = list(parse_examples(chapter, file="x.md"))
    assert [(each.place, each.clause) for each in found] == [
        ("x.md:4", ""),
        ("x.md:10", "XLS-CONF-001"),
        ("x.md:16", ""),
    ]


@pytest.mark.parametrize(
    "clause", [c for c in load_clauses().values() if c.area == "CONF"], ids=lambda c: c.id
)
def test_an_example_of_a_rule_of_the_language_shows_it_broken(clause: Clause) -> None:
    """Rules that no text can show broken are named here."""
    lines = CHAPTERS[clause.file].splitlines()
    body = "\n".join(lines[clause.line :]).partition("\n##")[0]
    without = {"XLS-CONF-005", "XLS-CONF-006", "XLS-CONF-011", "XLS-CONF-013", "XLS-CONF-017"}
    without.add("XLS-CONF-021")
    assert ("rejected\n" in body) != (clause.id in without)
