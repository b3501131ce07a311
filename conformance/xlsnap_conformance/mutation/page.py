# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kill matrix as Markdown, for the documentation, and as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..clauses import load_clauses
from ..report import look
from ..report.html import page, source, style
from ..report.markdown import plain
from ..results import Status
from .matrix import BAD, Fate, Judged, Matrix, encode

if TYPE_CHECKING:
    from ..drivers.reference.mutants import Mutant

LOOK: dict[Fate, look.Look] = {
    Fate.KILLED: look.STATUS[Status.PASS],
    Fate.FOREIGN: look.STATUS[Status.FAIL],
    Fate.SURVIVED: look.STATUS[Status.FAIL],
    Fate.PAID: look.STATUS[Status.FAIL],
    Fate.KNOWN: look.STATUS[Status.KNOWN],
    Fate.UNABLE: look.STATUS[Status.UNSUPPORTED],
    Fate.ERROR: look.STATUS[Status.HARNESS_ERROR],
}

TITLE = "# The mutants, and what catches them"
INTRODUCTION = """\
A mutant is something that is broken in one way on purpose: the reference toolstack, or the model that the
suite judges with. It proves that the suite can fail: a test must find a clause broken that the mutant is said
to break. This page is written by `xlsnap-conformance mutants --docs`; [adding.md](adding.md) tells how to add
a mutant. Where "caught by" is a file of `tests/`, that test breaks something by itself, because the suite
cannot reach it.
"""


def chapters(matrix: Matrix) -> list[tuple[str, list[Judged]]]:
    """Return the mutants of each chapter, which is that of their first clause."""
    clauses = load_clauses()
    found: dict[str, list[Judged]] = {clause.chapter: [] for clause in clauses.values()}
    for mutant in matrix.mutants:
        found[clauses[mutant.clauses[0]].chapter].append(mutant)
    return [(chapter, mutants) for chapter, mutants in found.items() if mutants]


def columns(mutants: Sequence[Judged]) -> list[str]:
    """Return the clauses that mutants break, or that were seen broken, in the specification's order."""
    named = {clause for mutant in mutants for clause in (*mutant.clauses, *mutant.broken)}
    return [id for id in load_clauses() if id in named]


def markdown(matrix: Matrix) -> str:
    """Return the matrix as tables, one a chapter."""
    lines = [TITLE, "", INTRODUCTION, f"The last run of all: {matrix.summary}."]
    lines += [
        f"All {matrix.controlled} tests that caught them pass on the reference."
        if not matrix.control
        else f"Not passed by the reference: {', '.join(plain(verdict.test) for verdict in matrix.control)}."
    ]
    if matrix.selected:
        lines[3:] = [f"Only a part: {plain(matrix.selected)}: {matrix.summary}."]
    lines += [f"\n**Error:** {plain(error)}" for error in matrix.errors]
    rows = {mutant.name: (mutant.clauses[0], _row(mutant)) for mutant in matrix.mutants}
    return "\n".join([*lines, *_tables(rows)]) + "\n"


def updated(page: str, matrix: Matrix, catalogue: Mapping[str, Mutant]) -> str:
    """Return the page of all mutants with the rows of those that were judged now.

    Rows of mutants that are not in the catalogue any more go, those that are new say that they are.
    """
    head = page.partition("\n## ")[0]
    found = {row.split("**")[1]: row for row in page.splitlines() if row.startswith("| **")}
    found |= {mutant.name: _row(mutant) for mutant in matrix.mutants}
    rows = {name: (each.clauses[0], found.get(name) or _unjudged(each)) for name, each in catalogue.items()}
    return "\n".join([head.rstrip("\n"), *_tables(rows)]) + "\n"


def _tables(rows: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    """Yield the lines of a table for each chapter; ``rows`` has a clause and a line for each mutant."""
    clauses = load_clauses()
    for chapter in dict.fromkeys(clause.chapter for clause in clauses.values()):
        lines = [line for clause, line in rows.values() if clauses[clause].chapter == chapter]
        if lines:
            yield from (
                "",
                f"## {chapter}",
                "",
                "| mutant | breaks | caught by | time |",
                "|---|---|---|--:|",
            )
            yield from lines


def _row(mutant: Judged) -> str:
    told = plain(mutant.description)
    told += f" *{plain(mutant.bug)}*" if mutant.bug else ""
    caught = f"`{_short(mutant.test)}`" if mutant.test else ""
    if mutant.broken:
        caught += f" {' '.join(mutant.broken[:1])}"
    if mutant.fate is not Fate.KILLED:
        caught = f"**{mutant.fate}**: {plain(mutant.message)} {caught}".strip()
    time = f"{mutant.seconds:.1f} s" if mutant.fate is Fate.KILLED else ""
    return f"| **{mutant.name}**: {told} | {', '.join(mutant.clauses)} | {caught} | {time} |"


def _unjudged(mutant: Mutant) -> str:
    told = f"**{mutant.name}**: {plain(mutant.description)}"
    told += f" *{plain(mutant.bug)}*" if mutant.bug else ""
    return f"| {told} | {', '.join(mutant.clauses)} | not judged yet | |"


def _short(test: str) -> str:
    """Return what a reader recognises a test by."""
    return test.removeprefix("test_scenarios.py::test_scenario[").removesuffix("]") if _fixed(test) else test


def _fixed(test: str) -> bool:
    return test.startswith("test_scenarios.py::test_scenario[")


def cell(mutant: Judged, clause: str) -> tuple[str, str]:
    """Return the sign and the CSS class of a cell of the matrix."""
    own, seen = clause in mutant.clauses, clause in mutant.broken
    if own and (seen or (mutant.judge and mutant.fate is Fate.KILLED)):
        return "●", look.STATUS[Status.PASS].key
    if own:
        bad = mutant.fate in BAD
        return "○", look.STATUS[Status.FAIL if bad else Status.UNSUPPORTED].key
    return ("+", look.STATUS[Status.KNOWN].key) if seen else ("", "")


def html(matrix: Matrix) -> str:
    """Return the page."""
    return page(
        "mutants.html.j2",
        f"{style()}\n{source('mutants.css')}",
        matrix=matrix,
        look=LOOK,
        chapters=[(chapter, mutants, columns(mutants)) for chapter, mutants in chapters(matrix)],
        cell=cell,
        short_test=_short,
        clauses=load_clauses(),
        fates=[(LOOK[fate], fate.value, matrix.count(fate)) for fate in Fate if matrix.count(fate)],
        good=matrix.exit_code == 0,
    )


def write(matrix: Matrix, directory: Path) -> None:
    """Write the matrix to a directory: ``mutants.json``, ``mutants.html`` and ``mutants.md``.

    :raise OSError: a file cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "mutants.json").write_bytes(encode(matrix))
    (directory / "mutants.html").write_text(html(matrix), encoding="utf-8")
    (directory / "mutants.md").write_text(markdown(matrix), encoding="utf-8")
