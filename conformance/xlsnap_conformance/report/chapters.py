# SPDX-License-Identifier: LGPL-2.1-or-later
"""A run, chapter by chapter: the order in which reports show it."""

from __future__ import annotations

from ..results import ClauseResult, Run, TestResult

OTHER = "other"
"""Chapter of the tests that name no clause of the run."""


def chapters(run: Run) -> list[tuple[str, list[ClauseResult]]]:
    """Return the clauses of each chapter, both in the order of the specification."""
    found: dict[str, list[ClauseResult]] = {}
    for clause in run.clauses:
        found.setdefault(clause.chapter, []).append(clause)
    return list(found.items())


def tests_by_chapter(run: Run) -> list[tuple[str, list[TestResult]]]:
    """Return the tests of each chapter; a test belongs where its first clause is."""
    where = {clause.id: clause.chapter for clause in run.clauses}
    found: dict[str, list[TestResult]] = {name: [] for name, _ in chapters(run)}
    for test in run.tests:
        chapter = next((where[id] for id in test.clauses if id in where), OTHER)
        found.setdefault(chapter, []).append(test)
    return [(name, tests) for name, tests in found.items() if tests]
