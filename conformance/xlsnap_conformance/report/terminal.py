# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a run shows while it goes on: a live display on a terminal, plain lines elsewhere.

The plain form is for logs of CI: one line a test as it ends, no colour, no control sequences.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from ..results import Run, Status, TestResult
from . import text
from .table import STYLES, show

PLAIN_WIDTH = 120
"""Columns of the table where the width is not known."""


class Progress:
    """Shows nothing while the run goes on; the base of those that do."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.done = 0
        self.expected = 0

    def header(self, line: str) -> None:
        """Say what the run is about."""
        self.console.print(Text(line), soft_wrap=True)

    def total(self, number: int) -> None:
        """Tell how many tests there will be."""
        self.expected = number

    def started(self, test: str) -> None:
        """Tell that a test began."""

    def finished(self, result: TestResult) -> None:
        """Tell how a test ended."""
        self.done += 1

    def close(self) -> None:
        """End the progress display; no test follows."""

    def summary(self, run: Run, directory: Path | None) -> None:
        """Show failures, clauses and verdicts; ``directory`` is where the report is, if there is one."""
        show(self.console, run, directory)


class PlainProgress(Progress):
    """One line for each test that ends."""

    def finished(self, result: TestResult) -> None:
        """Print how a test ended."""
        super().finished(result)
        width = len(str(self.expected))
        count = f"[{self.done:>{width}}/{self.expected}]"
        message = f" - {text.one_line(result.message, 160)}" if result.message else ""
        line = f"{count} {result.status:<13} {text.one_line(result.name)} ({result.seconds:.1f} s){message}"
        self.console.print(Text(line), soft_wrap=True)


class LiveProgress(Progress):
    """A bar with the tests that run now; what does not pass is printed above it at once."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.bar = Bar(
            SpinnerColumn(),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
        )
        self.task = self.bar.add_task("starting", total=None)
        self.running: dict[str, float] = {}

    def header(self, line: str) -> None:
        """Print what the run is about, and start the bar."""
        super().header(line)
        self.bar.start()

    def total(self, number: int) -> None:
        """Set the length of the bar."""
        super().total(number)
        self.bar.update(self.task, total=number)

    def started(self, test: str) -> None:
        """Show the test among those that run."""
        self.running[test] = time.monotonic()
        self._describe()

    def finished(self, result: TestResult) -> None:
        """Move the bar; print a line if the test did not pass."""
        super().finished(result)
        self.running.pop(result.id, None)
        if result.status not in (Status.PASS, Status.UNSUPPORTED):
            line = Text.assemble((f"{result.status:<13} ", STYLES[result.status]), result.name)
            if result.message:
                line.append(f"  {result.message}", style="bright_black")
            self.bar.console.print(line)
        self.bar.update(self.task, completed=self.done)
        self._describe()

    def close(self) -> None:
        """Take the bar away."""
        self.bar.stop()

    def _describe(self) -> None:
        names = [test.partition("::")[2] for test in self.running]
        self.bar.update(self.task, description=escape(text.cut(", ".join(names), 70)))


def progress(stream: TextIO) -> Progress:
    """Return the progress display that suits ``stream``."""
    if stream.isatty():
        # A descriptor of its own: while a test runs, pytest sends what is written to the other one elsewhere.
        own = os.fdopen(os.dup(stream.fileno()), "w", buffering=1, encoding=stream.encoding, errors="replace")
        return LiveProgress(console(own))
    return PlainProgress(console(stream))


def console(stream: TextIO) -> Console:
    """Return a console for ``stream``, which writes no control sequences unless that is a terminal."""
    if stream.isatty():
        return Console(file=stream, highlight=False)
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdigit() and int(columns) > 0 else PLAIN_WIDTH
    return Console(file=stream, width=width, color_system=None, force_terminal=False, highlight=False)
