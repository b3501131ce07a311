# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rows of a benchmark: what was measured, beside what, and the goal.

A benchmark script is a file ``bench_NAME.py`` in this directory of the form ::

    from rows import Row, best_of, main

    def measure():
        yield Row("parse 8 lines", best_of(ours), best_of(theirs), goal="<= 1.2x")

    if __name__ == "__main__":
        main("Grammars", measure)

It runs alone (``python tests/bench/bench_NAME.py``) or with all others (``make bench``).
A goal is shown as met or missed. It never makes the run fail: the figures of a busy machine prove nothing.
"""

import argparse
import json
import math
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

_GOAL = re.compile(r"(?P<relation><=|>=|≤|≥) (?P<limit>[0-9]+(?:\.[0-9]+)?) ?(?P<unit>x|ms|s|% rate)")
_SECONDS = {"ms": 1e-3, "s": 1.0}
_UNITS = ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (math.inf, 1.0, "s"))


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure.

    ``raw_s`` is shown beside: seconds for the same by hand, where the baseline is something else.
    ``ours_s`` and ``baseline_s`` are seconds for the same work; ``baseline_s`` is None when there is nothing
    to compare with. ``goal`` is empty (no goal) or one of ``"<= 1.2x"`` (ours ÷ baseline), ``"<= 150 ms"`` or
    ``"<= 2 s"`` (ours), and ``">= 60 % rate"`` (work per second, ours ÷ baseline).

    :raises ValueError: the goal has another form, or compares with a baseline that is not there.
    """

    name: str
    ours_s: float
    baseline_s: float | None = None
    goal: str = ""
    raw_s: float | None = None

    def __post_init__(self) -> None:
        """Read the goal once, so that a misspelt one cannot pass as met."""
        _ = self.met

    @property
    def ratio(self) -> float | None:
        """Ours ÷ baseline; above 1 means that ours is slower."""
        return self.ours_s / self.baseline_s if self.baseline_s else None

    @property
    def raw_ratio(self) -> float | None:
        """Ours ÷ by hand."""
        return self.ours_s / self.raw_s if self.raw_s else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None when there is no goal."""
        if not self.goal:
            return None
        parts = _GOAL.fullmatch(self.goal)
        if parts is None:
            raise ValueError(f"{self.name}: goal {self.goal!r} is not of a form that {__name__}.Row takes")
        value = self._value_in(parts["unit"])
        limit = float(parts["limit"])
        return value <= limit if parts["relation"] in ("<=", "≤") else value >= limit

    def _value_in(self, unit: str) -> float:
        if unit in _SECONDS:
            return self.ours_s / _SECONDS[unit]
        if self.ratio is None:
            raise ValueError(f"{self.name}: goal {self.goal!r} needs a baseline")
        return self.ratio if unit == "x" else 100 / self.ratio


def best_of(action: Callable[[], object], *, repeats: int = 5, number: int = 1) -> float:
    """Seconds for one call of ``action``: the best of ``repeats`` rounds of ``number`` calls each."""
    return min(_rounds(action, repeats, number))


def median_of(action: Callable[[], object], *, repeats: int = 5, number: int = 1) -> float:
    """Seconds for one call of ``action``: the median of ``repeats`` rounds of ``number`` calls each."""
    return statistics.median(_rounds(action, repeats, number))


def _rounds(action: Callable[[], object], repeats: int, number: int) -> list[float]:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(number):
            action()
        seconds.append((time.perf_counter() - start) / number)
    return seconds


def format_seconds(seconds: float | None) -> str:
    """A duration in the unit that suits it: ``4.7 µs``, ``12.5 ms``, ``1.08 s``."""
    if seconds is None:
        return "-"
    value, unit = next((seconds * factor, unit) for limit, factor, unit in _UNITS if seconds < limit)
    return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"


_COLUMNS = ("", "ours", "baseline", "ratio", "goal", "")
_RAW_COLUMNS = ("raw", "÷ raw")


def _format_ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _cells(row: Row, *, raw: bool) -> tuple[str, ...]:
    times = format_seconds(row.ours_s), format_seconds(row.baseline_s)
    verdict = {None: "", True: "met", False: "MISSED"}[row.met]
    by_hand = (format_seconds(row.raw_s), _format_ratio(row.raw_ratio)) if raw else ()
    return row.name, *times, _format_ratio(row.ratio), *by_hand, row.goal or "-", verdict


def _columns(*, raw: bool) -> tuple[str, ...]:
    return (*_COLUMNS[:4], *(_RAW_COLUMNS if raw else ()), *_COLUMNS[4:])


def print_rows(title: str, rows: Sequence[Row]) -> None:
    """Print the rows as a table: drawn on a terminal, plain aligned lines otherwise."""
    raw = any(row.raw_s is not None for row in rows)
    if sys.stdout.isatty():
        table = Table(*_columns(raw=raw), title=title, title_justify="left")
        for row in rows:
            style = {None: "", True: "green", False: "red"}[row.met]
            *cells, verdict = _cells(row, raw=raw)
            table.add_row(*cells, f"[{style}]{verdict}[/]" if style else verdict)
        Console().print(table)
        return
    lines = [_columns(raw=raw), *(_cells(row, raw=raw) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(title)
    for line in lines:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _to_json(row: Row) -> dict[str, object]:
    return asdict(row) | {"ratio": row.ratio, "raw_ratio": row.raw_ratio, "met": row.met}


def to_json(title: str, rows: Sequence[Row]) -> dict[str, object]:
    """The table as plain data: seconds, ratio, goal and whether it is met."""
    return {"title": title, "rows": [_to_json(row) for row in rows]}


def main(title: str, measure: Callable[[], Iterable[Row]]) -> None:
    """Run one benchmark script: measure, print the rows, and write them as JSON with ``--json FILE``."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to FILE as JSON")
    options = parser.parse_args()
    rows = []
    for row in measure():
        rows.append(row)
        if sys.stderr.isatty():
            print(f"  measured: {row.name}", file=sys.stderr)
    print_rows(title, rows)
    if options.json is not None:
        options.json.write_text(json.dumps(to_json(title, rows), indent=2) + "\n")
