# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table of bugs that really happened is true: each has a mutant that names it."""

import re
from pathlib import Path

import pytest
from xlsnap_conformance.drivers.reference.mutants import CATALOGUE

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/real-bugs.md"
ROWS = [
    line.strip("| ").split(" | ")
    for line in DOCUMENT.read_text().splitlines()
    if "`" in line and line[0] == "|"
]


def test_there_are_28() -> None:
    assert len(ROWS) == 28


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[-1].split("`")[1])
def test_a_bug_has_mutants_that_name_it(row: list[str]) -> None:
    bug, what, mutants = row
    assert what
    names = re.findall(r"`([^`]+)`", mutants)
    assert names
    known = re.findall(r"#\d+|\b[0-9a-f]{7,8}\b|\bOctober 2024\b", re.sub(r"\(http[^)]*\)", "", bug))
    for name in names:
        assert any(key in CATALOGUE[name].bug for key in known), f"{name} tells another bug"
