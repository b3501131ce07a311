# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is wrong with a text, where, and how to put it right."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from dataclasses import dataclass

_WINDOW = 100  # characters of a long source line that are shown around the caret


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One error or warning about one place in a text.

    ``line`` and ``column`` count from 1; a column is one character, and so is a byte that is not UTF-8.
    ``source_line`` is the line as it was read, which may hold anything: ``str()`` shows it safely.
    """

    message: str
    filename: str
    line: int
    column: int
    source_line: str
    hint: str | None = None

    def __str__(self) -> str:
        """Give ``file:line:column: message``, the source line, a caret under the column, and the hint."""
        line, caret = _window(self.source_line, self.column - 1)
        lines = [f"{printable(self.filename)}:{self.line}:{self.column}: {self.message}"]
        lines += [f"    {line}", f"    {' ' * caret}^"]
        if self.hint is not None:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


class ConfigError(Exception):
    """A text that the grammar rejects.

    ``diagnostics`` has every error of the text in the order of their places; ``str()`` shows them all.
    """

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        super().__init__(diagnostics)
        self.diagnostics = diagnostics

    def __str__(self) -> str:
        """Show every diagnostic, one after another."""
        return "\n".join(map(str, self.diagnostics))


@dataclass(frozen=True, slots=True)
class Problem:
    """An error or warning before its place is turned into a line and a column."""

    position: int  # index into the text
    message: str
    hint: str | None = None


class Source:
    """A text that is being read: knows which line and column a position is at."""

    def __init__(self, text: str | bytes, filename: str) -> None:
        """Take a text; bytes are decoded as file names are: UTF-8, with `surrogateescape` for other bytes.

        So no byte is lost, and `os.fsencode` gives back the bytes of a string of the file.

        :raises ConfigError: for a str with a surrogate that stands for no byte.
        """
        self.text = text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else text
        self.filename = filename
        self._starts: list[int] = []
        self._line = (0, "")
        try:
            self.text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            self.check([Problem(error.start, f"{quoted(self.text[error.start])} is not a character")])

    def line_of(self, position: int) -> int:
        """Return the number of the line that holds `position`, from 1."""
        if not self._starts:
            self._starts = [0]
            while end := self.text.find("\n", self._starts[-1]) + 1:
                self._starts.append(end)
        return bisect_right(self._starts, position)

    def diagnostic(self, problem: Problem) -> Diagnostic:
        """Return `problem` with its line and column."""
        line = self.line_of(problem.position)
        start = self._starts[line - 1]
        if self._line[0] != line:
            end = self.text.find("\n", start)
            self._line = (line, self.text[start:] if end < 0 else self.text[start:end])
        column = problem.position - start + 1
        return Diagnostic(problem.message, self.filename, line, column, self._line[1], problem.hint)

    def diagnostics(self, problems: list[Problem]) -> tuple[Diagnostic, ...]:
        """Return `problems` with their lines and columns, in the order of their places."""
        return tuple(map(self.diagnostic, sorted(problems, key=lambda problem: problem.position)))

    def check(self, problems: list[Problem]) -> None:
        """Raise a `ConfigError` if there are any `problems`."""
        if problems:
            raise ConfigError(self.diagnostics(problems))


def printable(text: str) -> str:
    """Return `text` with everything that a terminal might obey, or not show, written as an escape."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def quoted(text: str, limit: int = 40) -> str:
    """Return `text` for use in a message: in quotes, printable, and not longer than `limit` characters."""
    return f"'{printable(text if len(text) <= limit else text[: limit - 1] + '…')}'"


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8
        code -= 0xDC00
    named = {"\t": " ", "\n": r"\n", "\r": r"\r"}.get(character)
    return named or (
        rf"\x{code:02x}" if code < 0x100 else rf"\u{code:04x}" if code < 0x10000 else rf"\U{code:08x}"
    )


def _window(line: str, column: int) -> tuple[str, int]:
    """Return what is shown of `line` around the index `column`, and the width of what is shown before it."""
    start = max(0, min(column - _WINDOW // 2, len(line) - _WINDOW))
    end = start + _WINDOW
    before = ("…" if start > 0 else "") + printable(line[start:column])
    after = printable(line[column:end]) + ("…" if end < len(line) else "")
    return before + after, sum(map(_width, before))


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
