# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clauses, tests and mutants: what belongs together, what lacks something, and whether that is declared.

What lacks a test or a mutant must stand in ``spec/debt.toml`` with the reason; what stands there and lacks
nothing any more must go::

    [[debt]]
    missing = "test"                 # a member of `Missing`
    of = ["XLS-FAIL-004"]
    reason = "the suite ends no QEMU"
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from .clauses import Clause, specification_directory

if TYPE_CHECKING:
    from .collecting import SuiteTest
    from .drivers.reference.mutants import Mutant

DEBT = "debt.toml"
"""File beside the chapters of the specification."""


class Missing(StrEnum):
    """What can be missing, and of what."""

    TEST = "test"
    """of a clause: no test of the suite names it"""
    MUTANT = "mutant"
    """of a clause: no mutant breaks it"""
    CLAUSE = "clause"
    """of a test of the suite: it names no clause"""
    KILL = "kill"
    """of a mutant: it survives"""


TITLES: dict[Missing, str] = {
    Missing.TEST: "clauses without tests",
    Missing.MUTANT: "clauses without mutants",
    Missing.CLAUSE: "tests without clauses",
    Missing.KILL: "mutants that survive",
}


class Debt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Things that lack the same for the same reason."""

    missing: Missing
    of: tuple[str, ...]
    reason: str


class DebtFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file of what is known to be missing."""

    debt: tuple[Debt, ...] = ()

    def of(self, missing: Missing) -> dict[str, str]:
        """Return the reason for each thing that is declared to lack this."""
        return {name: entry.reason for entry in self.debt if entry.missing is missing for name in entry.of}


def load_debt(path: Path | None = None) -> DebtFile:
    """Return what is declared in ``spec/debt.toml``, or in another file of this form.

    :raise ValueError: if the file is not in form; the message names it.
    :raise OSError: if it cannot be read.
    """
    file = path or specification_directory() / DEBT
    try:
        declared = msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), DebtFile)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: {error}") from error
    named: set[tuple[Missing, str]] = set()
    for entry in declared.debt:
        if not entry.reason.strip():
            raise ValueError(f"{file}: no reason is given for {', '.join(entry.of)}")
        for name in entry.of:
            if (entry.missing, name) in named:
                raise ValueError(f"{file}: {name} stands twice under missing = {entry.missing.value!r}")
            named.add((entry.missing, name))
    return declared


class TestLink(msgspec.Struct, frozen=True):
    """A test of a clause: whether it is ``for`` this clause, or only ``watches`` it."""

    __test__ = False  # the name begins with "Test"; pytest shall not collect it

    id: str
    kind: str
    purpose: bool


class MutantLink(msgspec.Struct, frozen=True):
    """A mutant that breaks a clause; ``judge`` is the test of the project that judges it, "" the suite."""

    name: str
    description: str
    bug: str = ""
    judge: str = ""


class LinkedClause(msgspec.Struct, frozen=True, kw_only=True):
    """A clause with its tests and mutants, as ``spec --json`` prints it; see `clauses.Clause`.

    ``debt`` says what is declared to be missing, and why.
    """

    id: str
    level: str
    profiles: tuple[str, ...]
    editions: tuple[str, ...]
    text: str
    rationale: str
    source: str
    chapter: str
    file: str
    line: int
    tests: tuple[TestLink, ...]
    mutants: tuple[MutantLink, ...]
    debt: dict[str, str] = {}


class Specification(msgspec.Struct, frozen=True, kw_only=True):
    """The specification, or a part of it, in machine-readable form."""

    kit: str
    clauses: tuple[LinkedClause, ...]
    format: int = 1


def tests_of(clause: str, tests: Iterable[SuiteTest]) -> list[SuiteTest]:
    """Return the tests that can find a clause broken, those that are for it first."""
    able = [test for test in tests if clause in test.clauses]
    return sorted(able, key=lambda test: clause not in test.purpose)


def mutants_of(clause: str, mutants: Iterable[Mutant]) -> list[Mutant]:
    """Return the mutants that break a clause."""
    return [mutant for mutant in mutants if clause in mutant.clauses]


def linked(
    clause: Clause, tests: Iterable[SuiteTest], mutants: Iterable[Mutant], debt: DebtFile
) -> LinkedClause:
    """Return a clause with what belongs to it."""
    return LinkedClause(
        id=clause.id,
        level=clause.level,
        profiles=clause.profiles,
        editions=clause.editions,
        text=clause.text,
        rationale=clause.rationale,
        source=clause.source,
        chapter=clause.chapter,
        file=clause.file,
        line=clause.line,
        tests=tuple(
            TestLink(test.id, test.kind.value, clause.id in test.purpose)
            for test in tests_of(clause.id, tests)
        ),
        mutants=tuple(
            MutantLink(mutant.name, mutant.description, mutant.bug, mutant.judge)
            for mutant in mutants_of(clause.id, mutants)
        ),
        debt={
            missing.value: reason
            for missing in (Missing.TEST, Missing.MUTANT)
            if (reason := debt.of(missing).get(clause.id)) is not None
        },
    )


def gaps(
    clauses: Mapping[str, Clause], tests: Sequence[SuiteTest], mutants: Iterable[Mutant]
) -> dict[Missing, tuple[str, ...]]:
    """Return what lacks something, in the order of the specification and of the suite.

    A mutant of the model breaks no toolstack, and is no proof that a clause's test can fail one.
    """
    tested = {clause for test in tests for clause in test.clauses}
    broken = {clause for mutant in mutants if mutant.part == "toolstack" for clause in mutant.clauses}
    return {
        Missing.TEST: tuple(id for id in clauses if id not in tested),
        Missing.MUTANT: tuple(id for id in clauses if id not in broken),
        Missing.CLAUSE: tuple(test.id for test in tests if not test.clauses),
    }


def undeclared(found: Mapping[Missing, Sequence[str]], debt: DebtFile) -> dict[Missing, tuple[str, ...]]:
    """Return what lacks something and is not declared."""
    return {
        missing: tuple(name for name in names if name not in debt.of(missing))
        for missing, names in found.items()
    }


def stale(found: Mapping[Missing, Sequence[str]], debt: DebtFile) -> dict[Missing, tuple[str, ...]]:
    """Return what is declared and lacks nothing, or does not exist; only for kinds that were looked for."""
    return {
        missing: tuple(name for name in debt.of(missing) if name not in names)
        for missing, names in found.items()
    }
