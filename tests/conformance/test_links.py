# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clauses, tests and mutants belong together, and what is missing is declared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from xlsnap_conformance import links
from xlsnap_conformance.clauses import load_clauses
from xlsnap_conformance.collecting import Kind, SuiteTest, collect
from xlsnap_conformance.drivers.reference.mutants import CATALOGUE, Mutant
from xlsnap_conformance.links import Debt, DebtFile, Missing, gaps, linked, load_debt, stale, undeclared

CLAUSES = load_clauses()
TWO = {id: CLAUSES[id] for id in ("XLS-REVERT-003", "XLS-REVERT-004")}
ROOT = Path(__file__).resolve().parents[2]


def of_the_suite(id: str, *purpose: str, watches: tuple[str, ...] = ()) -> SuiteTest:
    return SuiteTest(id=id, kind=Kind.FUNCTION, purpose=purpose, watches=watches)


def breaking(name: str, *clauses: str) -> Mutant:
    return Mutant(name=name, clauses=clauses, description="Wrong.")


def spec(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "xlsnap_conformance", "spec", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


# --- what is missing --------------------------------------------------------------------------------------


def test_what_is_missing_is_what_is_declared() -> None:
    """The gate: a clause without a test or a mutant, a test without a clause, a debt that is paid."""
    done = spec("--links")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all as debt.toml says\n")


def test_gaps() -> None:
    tests = [of_the_suite("a.py::test_a", "XLS-REVERT-003"), of_the_suite("a.py::test_b")]
    assert gaps(TWO, tests, [breaking("m", "XLS-REVERT-004")]) == {
        Missing.TEST: ("XLS-REVERT-004",),
        Missing.MUTANT: ("XLS-REVERT-003",),
        Missing.CLAUSE: ("a.py::test_b",),
    }


def test_a_mutant_of_the_model_is_none_of_a_clause() -> None:
    model = Mutant(name="m", clauses=("XLS-REVERT-003",), description="Wrong.", part="model")
    assert gaps(TWO, [], [model])[Missing.MUTANT] == tuple(TWO)


def test_a_test_that_watches_a_clause_tests_it() -> None:
    tests = [of_the_suite("a.py::test_a", "XLS-REVERT-003", watches=("XLS-REVERT-004",))]
    assert gaps(TWO, tests, [])[Missing.TEST] == ()


def test_debts_excuse_what_they_name_and_nothing_else() -> None:
    debt = DebtFile((Debt(missing=Missing.TEST, of=("XLS-REVERT-004", "XLS-LIST-001"), reason="r"),))
    found = {Missing.TEST: ("XLS-REVERT-003", "XLS-REVERT-004"), Missing.MUTANT: ("XLS-REVERT-004",)}
    assert undeclared(found, debt) == {
        Missing.TEST: ("XLS-REVERT-003",),
        Missing.MUTANT: ("XLS-REVERT-004",),
    }
    assert stale(found, debt) == {Missing.TEST: ("XLS-LIST-001",), Missing.MUTANT: ()}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[debt]\n", "Expected"),
        ('[[debt]]\nmissing = "text"\nof = []\nreason = "r"\n', "Invalid enum value 'text'"),
        ('[[debt]]\nmissing = "test"\nreason = "r"\n', "missing required field `of`"),
        ('[[debt]]\nmissing = "test"\nof = ["a"]\nreason = "r"\nwhy = "s"\n', "unknown field `why`"),
        ('[[debt]]\nmissing = "test"\nof = ["a"]\nreason = " "\n', "no reason is given for a"),
        (
            '[[debt]]\nmissing = "test"\nof = ["a", "a"]\nreason = "r"\n',
            "a stands twice under missing = 'test'",
        ),
    ],
)
def test_a_file_of_debts_that_is_wrong_is_told(text: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "debt.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"debt\.toml: ") as caught:
        load_debt(file)
    assert complaint in str(caught.value)


def test_links_fails_for_what_is_not_declared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from xlsnap_conformance.cli.spec import command

    real = links.load_debt()
    kept = tuple(entry for entry in real.debt if entry.missing is not Missing.MUTANT)
    more = Debt(missing=Missing.TEST, of=("XLS-REVERT-003", "XLS-OLD-001"), reason="paid long ago")
    monkeypatch.setattr(links, "load_debt", lambda: DebtFile((*kept, more)))
    lacking = gaps(CLAUSES, collect(), CATALOGUE.values())[Missing.MUTANT]
    assert command.main(["--links"], standalone_mode=False) == 1
    out = capsys.readouterr().out
    assert out.count("NOT DECLARED") == len(lacking)
    for name in more.of:
        assert f"debt.toml: {name} lacks nothing any more, or does not exist" in out
    assert out.endswith(f"{len(lacking) + 2} not as debt.toml says\n")


# --- the suite and the catalogue --------------------------------------------------------------------------


def test_the_suite_is_collected_with_what_its_tests_are_for() -> None:
    tests = {test.id: test for test in collect()}
    scenario = tests["test_scenarios.py::test_scenario[memory-and-disks]"]
    assert scenario.kind is Kind.SCENARIO
    assert scenario.steps > 3
    assert "XLS-REVERT-004" in scenario.purpose
    assert "XLS-META-001" in scenario.watches
    generated = tests["test_generated.py::test_generated[one-disk]"]
    assert generated.kind is Kind.GENERATED
    assert generated.purpose == ()
    assert "XLS-REVERT-004" in generated.watches
    function = tests["test_live.py::test_guest_runs_while_its_memory_is_written"]
    assert function.kind is Kind.FUNCTION
    assert "XLS-LIVE-002" in function.purpose
    assert len({test.id for test in collect()}) == len(collect())


def test_tests_of_a_clause_come_with_those_that_are_for_it_first() -> None:
    tests = [
        of_the_suite("a.py::test_a", "XLS-REVERT-003", watches=("XLS-REVERT-004",)),
        of_the_suite("a.py::test_b", "XLS-REVERT-004"),
    ]
    debt = DebtFile((Debt(missing=Missing.MUTANT, of=("XLS-REVERT-004",), reason="no idea"),))
    clause = linked(CLAUSES["XLS-REVERT-004"], tests, [breaking("m", "XLS-REVERT-003")], debt)
    assert [(test.id, test.purpose) for test in clause.tests] == [
        ("a.py::test_b", True),
        ("a.py::test_a", False),
    ]
    assert clause.mutants == ()
    assert clause.debt == {"mutant": "no idea"}


@pytest.mark.parametrize("mutant", CATALOGUE.values(), ids=lambda mutant: mutant.name)
def test_an_entry_of_the_catalogue_is_whole(mutant: Mutant) -> None:
    assert mutant.clauses
    assert set(mutant.clauses) <= CLAUSES.keys()
    assert mutant.description.endswith(".")
    assert (mutant.break_it is None) == bool(mutant.judge)
    if mutant.test:
        assert mutant.test in {name for test in collect() for name in (test.id, test.short)}


def test_what_is_judged_elsewhere_has_its_judge_there() -> None:
    judges = {mutant.judge for mutant in CATALOGUE.values() if mutant.judge}
    files = sorted({judge.partition("::")[0] for judge in judges})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert judges <= set(done.stdout.splitlines()), done.stdout + done.stderr


def test_what_is_declared_to_survive_is_in_the_catalogue() -> None:
    assert load_debt().of(Missing.KILL).keys() <= CATALOGUE.keys()


# --- the command ------------------------------------------------------------------------------------------


def test_a_clause_is_shown_with_its_tests_and_mutants() -> None:
    out = spec("revert-004").stdout
    assert "\nTests:\n  test_scenarios.py::test_scenario[memory-and-disks]\n" in out
    assert "\nTests that also look at it:\n" in out
    assert "\nMutants:\n" in out
    assert "one-disk-not-reverted" in out


def test_links_goes_with_nothing_else() -> None:
    done = spec("--links", "XLS-REVERT")
    assert done.returncode == 2
    assert "--links looks at the whole specification" in done.stderr


def test_json_has_tests_and_mutants() -> None:
    data: dict[str, Any] = json.loads(spec("--json", "revert-004").stdout)
    assert data["format"] == 1
    (clause,) = data["clauses"]
    assert clause["id"] == "XLS-REVERT-004"
    assert {"id", "kind", "purpose"} == clause["tests"][0].keys()
    assert "one-disk-not-reverted" in [mutant["name"] for mutant in clause["mutants"]]
