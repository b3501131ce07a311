# SPDX-License-Identifier: LGPL-2.1-or-later
"""Several runs side by side: other implementations, other versions, or the same one over time.

`compare` is pure; `html_page`, `markdown` and `table` show what it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..results import ClauseResult, Run, Status, Verdict
from . import html, look, text
from .markdown import plain
from .table import STYLES, VERDICT_STYLES


@dataclass(frozen=True, slots=True)
class Row:
    """A clause and its status in each run; None where a run was not about it or had no test of it."""

    clause: ClauseResult
    statuses: tuple[Status | None, ...]

    @property
    def differs(self) -> bool:
        """Whether the runs that judged the clause disagree."""
        return len({status for status in self.statuses if status is not None}) > 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """The runs, their names, each profile's verdicts, and the clauses in the order of the specification."""

    runs: tuple[Run, ...]
    names: tuple[str, ...]
    profiles: dict[str, tuple[Verdict | None, ...]]
    rows: tuple[Row, ...]

    @property
    def differing(self) -> tuple[Row, ...]:
        """The clauses that the runs disagree about."""
        return tuple(row for row in self.rows if row.differs)


def compare(runs: Sequence[Run]) -> Comparison:
    """Return ``runs`` side by side.

    :raise ValueError: if there are fewer than two.
    """
    if len(runs) < 2:
        raise ValueError("a comparison needs two reports at least")
    clauses = {clause.id: clause for run in runs for clause in run.clauses}
    statuses = [{clause.id: clause.status for clause in run.clauses} for run in runs]
    verdicts = [{profile.name: profile.verdict for profile in run.profiles} for run in runs]
    profiles = dict.fromkeys(profile.name for run in runs for profile in run.profiles)
    return Comparison(
        runs=tuple(runs),
        names=_names(runs),
        profiles={name: tuple(found.get(name) for found in verdicts) for name in profiles},
        rows=tuple(
            Row(clause, tuple(found.get(id) for found in statuses)) for id, clause in sorted_by_text(clauses)
        ),
    )


def sorted_by_text(clauses: dict[str, ClauseResult]) -> list[tuple[str, ClauseResult]]:
    """Return clauses by chapter, and by id within one."""
    return sorted(clauses.items(), key=lambda item: (_chapter_number(item[1].chapter), item[0]))


def _chapter_number(chapter: str) -> tuple[int, str]:
    number = chapter.partition(".")[0]
    return (int(number) if number.isdecimal() else 99, chapter)


def _names(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return a name for each run: name and version; what tells two of one name apart is added."""
    short = [
        text.one_line(" ".join(filter(None, (run.implementation.name, run.implementation.version))), 60)
        for run in runs
    ]
    if len(set(short)) == len(short):
        return tuple(short)
    return tuple(
        f"{name}, {run.started.replace('T', ' ')[:16]}" if short.count(name) > 1 else name
        for name, run in zip(short, runs, strict=True)
    )


# --- as a page --------------------------------------------------------------------------------------------


def html_page(comparison: Comparison) -> str:
    """Return a page that needs nothing else."""
    chapters: dict[str, list[Row]] = {}
    for row in comparison.rows:
        chapters.setdefault(row.clause.chapter, []).append(row)
    return html.page(
        "comparison.html.j2",
        f"{html.style()}\n{html.source('comparison.css')}",
        comparison=comparison,
        look=look.STATUS,
        verdict_look=look.VERDICT,
        chapters=chapters,
    )


# --- as text ----------------------------------------------------------------------------------------------


def markdown(comparison: Comparison) -> str:
    """Return the verdicts, and the clauses about which the runs disagree."""
    head = " | ".join(plain(name) for name in comparison.names)
    rule = "|---" * (len(comparison.names) + 1) + "|"
    lines = [f"| profile | {head} |", rule]
    for profile, verdicts in comparison.profiles.items():
        lines.append(f"| {plain(profile)} | {' | '.join(verdict or '' for verdict in verdicts)} |")
    lines += ["", f"{len(comparison.differing)} of {len(comparison.rows)} clauses differ.", ""]
    if comparison.differing:
        lines += [f"| clause | {head} |", rule]
    for row in comparison.differing:
        lines.append(f"| {row.clause.id} | {' | '.join(status or '' for status in row.statuses)} |")
    return "\n".join(lines) + "\n"


def table(console: Console, comparison: Comparison) -> None:
    """Print the same as a table."""
    profiles = _table(comparison, "profile")
    for name, verdicts in comparison.profiles.items():
        profiles.add_row(name, *_cells(verdicts, VERDICT_STYLES.get))
    console.print(profiles)
    console.print(f"\n{len(comparison.differing)} of {len(comparison.rows)} clauses differ.\n")
    if comparison.differing:
        clauses = _table(comparison, "clause")
        for row in comparison.differing:
            clauses.add_row(row.clause.id, *_cells(row.statuses, STYLES.get))
        console.print(clauses)


def _table(comparison: Comparison, first: str) -> Table:
    made = Table(first, box=box.SIMPLE_HEAD, pad_edge=False)
    for name in comparison.names:
        made.add_column(Text(name))
    return made


def _cells(values: Sequence[str | None], style: Callable[..., str | None]) -> list[Text]:
    return [Text(value or "", style=style(value) or "") for value in values]
