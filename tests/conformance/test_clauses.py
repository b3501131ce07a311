# SPDX-License-Identifier: LGPL-2.1-or-later
"""The specification: its form, and that its examples are what they say."""

import re

import pytest
from xlsnap_conformance import clauses
from xlsnap_conformance.clauses import (
    SpecificationError,
    load_clauses,
    parse_chapter,
    specification_directory,
)
from xlsnap_grammars import ConfigError, parse_snapshot_config

GOOD = """# 4. Create

## Part

### XLS-CREATE-001
*MUST · core, disk-internal · v4 V9*

It must
hold.

```xl.snapshot.conf accepted
name = "x"
# not a heading
```

> Rationale: because
> it must.

Source: decided here.

## Next part

Prose.
"""


def test_a_clause_and_its_parts() -> None:
    (clause,) = parse_chapter(GOOD, file="04-create.md")
    assert clause == clauses.Clause(
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


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("### XLS-CREATE-001", "### XLS-CREATE-1", "x.md:5: 'XLS-CREATE-1' is not a clause id"),
        ("### XLS-CREATE-001", "### XLS-ODD-001", "x.md:5: XLS-ODD-001: unknown area ODD"),
        ("*MUST", "*SHALL", "unknown level 'SHALL'"),
        ("*MUST · core, disk-internal · v4 V9*", "MUST", "must be *LEVEL"),
        ("disk-internal", "disks", "unknown profile 'disks'"),
        ("V9*", "V8*", "unknown edition 'V8'"),
        ("It must\nhold.", "", "it has no text"),
        ("Source: decided here.", "", "it has no source"),
    ],
)
def test_what_is_wrong_with_a_clause_is_said(old: str, new: str, complaint: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        parse_chapter(GOOD.replace(old, new), file="x.md")
    assert complaint in str(caught.value)
    assert str(caught.value).startswith("x.md:5: ")


def test_an_id_stands_once(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "04-create.md").write_text(GOOD)
    (tmp_path / "05-list.md").write_text(GOOD)
    monkeypatch.setattr(clauses, "specification_directory", lambda: tmp_path)
    with pytest.raises(SpecificationError, match=r"05-list\.md:5: XLS-CREATE-001 stands at 04-create\.md:5"):
        clauses.load_clauses.__wrapped__()


def test_the_specification_loads() -> None:
    assert len(load_clauses()) >= 90
    assert {clause.area for clause in load_clauses().values()} == set(clauses.AREAS)
    assert {name for clause in load_clauses().values() for name in clause.profiles} == set(clauses.PROFILES)


@pytest.mark.parametrize("clause", load_clauses().values(), ids=lambda clause: clause.id)
def test_a_clause_can_be_tested_and_says_so_briefly(clause: clauses.Clause) -> None:
    assert len(clause.text.split()) <= 60, "a clause is one testable sentence or two"
    assert clause.text.endswith((".", "libxlu returns.")), "a clause ends with a full stop"


def examples() -> list[tuple[str, str, str]]:
    block = re.compile(r"^```xl\.snapshot\.conf (accepted|rejected)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [
        (path.name, verdict, text)
        for path in sorted(specification_directory().glob("*.md"))
        for verdict, text in block.findall(path.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize(("file", "verdict", "text"), examples())
def test_the_examples_are_accepted_or_rejected_as_it_says(file: str, verdict: str, text: str) -> None:
    try:
        parse_snapshot_config(text)
    except ConfigError:
        outcome = "rejected"
    else:
        outcome = "accepted"
    assert outcome == verdict


def test_there_are_examples() -> None:
    assert len(examples()) >= 8


def test_every_clause_that_the_text_mentions_exists() -> None:
    for path in specification_directory().glob("*.md"):
        for name in re.findall(r"XLS-[A-Z]+-\d{3}", path.read_text(encoding="utf-8")):
            assert name in load_clauses() or name == "XLS-AREA-000", f"{path.name}: {name}"
