# SPDX-License-Identifier: LGPL-2.1-or-later
"""The end of a run on standard output: what failed, the clauses in a table, the verdicts."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..results import ClauseResult, Run, Status, TestResult, Verdict
from ..verdicts import alike
from . import text, trace_name

STYLES: dict[Status | None, str] = {
    Status.PASS: "green",
    Status.UNSUPPORTED: "bright_black",
    Status.KNOWN: "yellow",
    Status.BLOCKED: "magenta",
    Status.HARNESS_ERROR: "magenta",
    Status.FAIL: "bold red",
    None: "bright_black",
}
VERDICT_STYLES = {
    Verdict.CONFORMS: "bold green",
    Verdict.DOES_NOT_CONFORM: "bold red",
    Verdict.NOT_CLAIMED: "bold",
    Verdict.UNDECIDED: "bold yellow",
}
SHOWN_FAILURES = 20
"""Kinds of failure that are shown here."""
SHOWN_STEPS = 20
"""Steps of a scenario that are shown here; the report has them all."""
SHOWN_CHARACTERS = 2000
"""Characters of a value that are shown here."""


def show(console: Console, run: Run, directory: Path | None = None) -> None:
    """Print the end of a run; ``directory`` is where its report is, if there is one."""
    console.print()
    for error in run.errors:
        console.print(Text(f"harness error: {text.tail(error, 4000)}", style=STYLES[Status.HARNESS_ERROR]))
        console.print()
    groups: dict[tuple[Status, str], list[TestResult]] = {}
    for test in run.tests:
        if test.status in (Status.FAIL, Status.HARNESS_ERROR):
            groups.setdefault((test.status, test.message), []).append(test)
    for group in list(groups.values())[:SHOWN_FAILURES]:
        _failure(console, group, directory)
    if len(groups) > SHOWN_FAILURES:
        console.print(f"… {len(groups) - SHOWN_FAILURES} more kinds of failure\n")
    untested = [clause.id for clause in run.clauses if clause.status is None]
    if len(untested) < len(run.clauses):
        console.print(clause_table(run, width=console.width, plain=not console.is_terminal))
        if untested:
            console.print()
            told = f"no test ran for {len(untested)} more: {', '.join(ranges(untested))}"
            console.print(Text(told, "bright_black"))
        console.print()
    _verdicts(console, run)
    if directory is not None:
        console.print(Text(f"report: {directory / 'index.html'}"), soft_wrap=True)


def _failure(console: Console, alike: list[TestResult], directory: Path | None) -> None:
    """Tell of the first of several tests that ended alike, and name the others."""
    test, *others = alike
    style = STYLES[test.status]
    console.print(
        Text.assemble((f"{test.status}: ", style), (text.one_line(test.name), "bold")), soft_wrap=True
    )
    rows = {
        "clauses": _some(test.broken or test.clauses, 8),
        "message": test.message,
        "expected": test.evidence.expected,
        "observed": test.evidence.observed,
    }
    if others:
        rows["also in"] = _some([text.one_line(other.name) for other in others], 12)
    if directory is not None and test.evidence.trace is not None:
        rows["replay"] = f"xlsnap-conformance replay {shlex.quote(str(directory / trace_name(test)))}"
    for label, value in rows.items():
        if value:
            console.print(Text(f"  {label:<9} {text.visible(value, SHOWN_CHARACTERS)}"), soft_wrap=True)
    steps = test.evidence.steps
    for number, step in enumerate(steps[:SHOWN_STEPS], start=1):
        console.print(Text(f"  {f'step {number}':<9} {text.one_line(step)}"), soft_wrap=True)
    if len(steps) > SHOWN_STEPS:
        console.print(f"  … {len(steps) - SHOWN_STEPS} more steps")
    if test.status is Status.HARNESS_ERROR and test.evidence.log:
        console.print(Text(_indented(text.tail(test.evidence.log, 3000)), "bright_black"), soft_wrap=True)
    console.print()


def _some(names: Sequence[str], number: int) -> str:
    more = f" and {len(names) - number} more" if len(names) > number else ""
    return ", ".join(names[:number]) + more


def _indented(value: str) -> str:
    return "\n".join(f"  | {line}" for line in value.splitlines())


def clause_table(run: Run, *, width: int, plain: bool) -> Table:
    """Return the table of the clauses that were tested, in the order of the specification."""
    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for heading in ("clause", "level", "status"):
        table.add_column(heading, no_wrap=True)
    table.add_column("tests", justify="right", no_wrap=True)
    table.add_column("text", no_wrap=True)
    tested = [clause for clause in run.clauses if clause.status is not None]
    taken = max((len(clause.id) for clause in tested), default=0) + len("SHOULD harness-error tests") + 8
    room = max(width - taken, 20)
    for clause in tested:
        table.add_row(
            Text(clause.id),
            Text(clause.level, "bright_black" if clause.level != "MUST" else ""),
            Text(clause.status or "untested", STYLES[clause.status]),
            Text(_tried(clause)),
            Text(_shortened(clause.text, room)),
        )
    return table


def _tried(clause: ClauseResult) -> str:
    """Return the number of tests, and of how many, if some need what is not claimed."""
    number, untried = len(clause.tests), len(clause.untried)
    return f"{number - untried} of {number}" if 0 < untried < number else str(number)


def _shortened(value: str, room: int) -> str:
    value = " ".join(value.split())
    return value if len(value) <= room else value[: room - 1].rsplit(" ", 1)[0].rstrip(",;:") + "…"


def ranges(ids: list[str]) -> list[str]:
    """Return clause ids with those of one area as one word: "XLS-LIST-001 002 007"."""
    areas: dict[str, list[str]] = {}
    for id in ids:
        area, _, number = id.rpartition("-")
        areas.setdefault(area, []).append(number)
    return [f"{area}-{' '.join(numbers)}" for area, numbers in areas.items()]


def _verdicts(console: Console, run: Run) -> None:
    ended = ", ".join(f"{run.count(status)} {status}" for status in Status if run.count(status))
    console.print(
        Text(
            f"{len(run.tests)} tests in {run.duration:.1f} s: {ended or 'none ran'}"
            f" (seed {run.seed}{f'; {text.one_line(run.note)}' if run.note else ''})"
        ),
        soft_wrap=True,
    )
    name = " ".join(filter(None, (run.implementation.name, run.implementation.version)))
    for group in alike(run.profiles):
        profiles = f"profile{'s' if len(group.names) > 1 else ''} {', '.join(group.names)}"
        console.print(
            Text.assemble(
                f"{text.one_line(name)} · {profiles}: ",
                (group.verdict, VERDICT_STYLES[group.verdict]),
                f" ({text.one_line(group.reason)})",
            ),
            soft_wrap=True,
        )
    if run.unclaimed:
        told = f"works but is not claimed: {text.one_line(', '.join(run.unclaimed))}"
        console.print(Text(told, VERDICT_STYLES[Verdict.UNDECIDED]), soft_wrap=True)
    if not run.profiles:
        console.print(
            Text(f"{text.one_line(name)}: {run.verdict}", VERDICT_STYLES[run.verdict]), soft_wrap=True
        )
