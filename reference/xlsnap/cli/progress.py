# SPDX-License-Identifier: LGPL-2.1-or-later
"""How far a long operation is: a bar on a terminal, lines elsewhere, nothing for a short one."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from .settings import PROGRAM
from .text import complain, shown

if TYPE_CHECKING:
    from rich import progress as bars

DELAY_SECONDS = 1.0
"""What takes less than this, from the first report on, is not worth a word."""

LINE_SECONDS = 5.0
"""Lines are at least this far apart."""


class Progress:
    """Takes reports of an operation and shows them on standard error, which may be no terminal, or closed."""

    def __init__(self, stream: TextIO | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._on_terminal = stream is not None and stream.isatty()
        self._next: float | None = None  # when something may be shown
        self._bars: bars.Progress | None = None
        self._texts: dict[str, bars.TaskID] = {}

    @classmethod
    def on_stderr(cls) -> Progress:
        """Show it on standard error."""
        return cls(sys.stderr)

    def __call__(self, text: str, done: int, total: int) -> None:
        """Take a report: what goes on, how many bytes are done, how many there are (0: not known)."""
        now = self._clock()
        if self._next is None:
            self._next = now + DELAY_SECONDS
        if self._stream is None or now < self._next:
            return
        if self._on_terminal:
            self._draw(text, done, total)
        else:
            self._next = now + LINE_SECONDS
            part = f": {min(100, 100 * done // total)} %" if total > 0 else ""
            complain(f"{PROGRAM}: {text}{part}")

    def _draw(self, text: str, done: int, total: int) -> None:
        if self._bars is None:
            self._bars = _new_bars(self._stream)
            self._bars.start()
        if text not in self._texts:
            for task in self._texts.values():
                self._bars.remove_task(task)
            self._texts = {text: self._bars.add_task(shown(text))}
        self._bars.update(self._texts[text], completed=done, total=total or None)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Leave the terminal as it was."""
        if self._bars is not None:
            self._bars.stop()


def _new_bars(stream: TextIO | None) -> bars.Progress:
    from rich import progress as bars
    from rich.console import Console

    return bars.Progress(
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TimeRemainingColumn(),
        console=Console(file=stream),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
