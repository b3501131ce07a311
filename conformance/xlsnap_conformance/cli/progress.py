# SPDX-License-Identifier: LGPL-2.1-or-later
"""How far a long piece of work is: a line that changes on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich import progress as bars

LINE_SECONDS = 5.0
"""Plain lines about the same thing are at least this far apart."""


class Progress:
    """Takes reports: what goes on, how much is done, of how much (0: not known).

    It shows them on standard error. A context manager.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._bars: bars.Progress | None = None
        self._task: bars.TaskID | None = None
        self._text = ""
        self._next = 0.0
        self._start = time.monotonic()

    def __enter__(self) -> Progress:
        if self._stream.isatty():
            self._bars = _bars(self._stream)
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, text: str, done: int = 0, total: int = 0) -> None:
        """Take a report."""
        if self._bars is not None:
            if self._task is None or text != self._text:
                if self._task is not None:
                    self._bars.remove_task(self._task)
                self._task = self._bars.add_task(text, total=total or None)
            self._bars.update(self._task, completed=done, total=total or None)
        elif text != self._text or time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_SECONDS
            part = f": {min(100, 100 * done // total)} %" if total and text == self._text else ""
            elapsed = time.monotonic() - self._start
            print(f"{elapsed:6.1f} s  {text}{part}", file=self._stream, flush=True)
        self._text = text


def _bars(stream: TextIO) -> bars.Progress:
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=24),
        progress.TaskProgressColumn(),
        progress.TimeElapsedColumn(),
        console=Console(file=stream),
        transient=True,
    )
