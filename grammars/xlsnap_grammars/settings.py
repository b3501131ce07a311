# SPDX-License-Identifier: LGPL-2.1-or-later
"""From the text of a file to its settings, and to everything that is wrong with its syntax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from .causes import State, explain
from .diagnostics import Problem, Source
from .parsers import parser
from .recovery import Resumption, begins_setting, resume, too_deep

if TYPE_CHECKING:
    from lark import Lark, Token
    from lark.exceptions import UnexpectedInput
    from lark.parsers.lalr_interactive_parser import InteractiveParser

# A recursive type needs Any until Python 3.12 has the type statement.
RawValue: TypeAlias = "Token | list[Any]"
"""A value as it is written: a STRING or NUMBER token, or a list of such values."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One ``key = value`` or ``key += value`` of a file."""

    key: Token
    append: bool
    value: RawValue

    @property
    def position(self) -> int:
        """Where the setting begins in the text."""
        return self.key.start_pos or 0


class _Builder:
    """Makes settings; one method for each rule of ``config.lark`` whose result is wanted."""

    @staticmethod
    def file(settings: list[Setting]) -> list[Setting]:
        return settings

    @staticmethod
    def setting(parts: list[Any]) -> Setting:
        key, operator, value = parts
        return Setting(key, operator.type == "APPEND", value)

    @staticmethod
    def list(values: list[Any]) -> list[Any]:
        return values


def read_settings(source: Source, problems: list[Problem]) -> list[Setting]:
    """Return the settings of a file in their order, and add every syntax error to `problems`.

    When there are errors, the settings between them are still returned, so that they can be checked too.
    """
    from lark.exceptions import UnexpectedInput

    if found := too_deep(source.text):
        problems += found
        return []
    grammar = parser("config", "file", _Builder)
    try:
        return cast(list[Setting], grammar.parse(source.text))
    except UnexpectedInput:
        # Only a wrong file pays for being read a second time, with care.
        return _read_around_errors(grammar, source.text, problems)


def _read_around_errors(grammar: Lark, text: str, problems: list[Problem]) -> list[Setting]:
    settings: list[Setting] = []
    folded: set[str] = set()
    start: Resumption | None = Resumption(0)
    while start is not None:
        stretch = _begin(grammar, text, start)
        error = _read(stretch)
        settings += _settings(stretch)
        if error is None:
            break
        position = _position(error, len(text))
        lists = _open_lists(stretch)
        follows = bool(start.lists) and lists[: len(start.lists)] == start.lists
        if lists and (position == len(text) or begins_setting(text, position)):
            # A list that an earlier error left open may well be closed in what was skipped then.
            if not follows:
                problems.append(Problem(lists[-1], "this list is not closed", "end it with ]"))
        else:
            problem, cause = explain(text, position, _state(stretch, bool(lists)))
            if cause is None or cause.message not in folded:
                problems.append(problem)
            if cause is not None and cause.folded:
                folded.add(cause.message)
        start = resume(text, position, lists)
    return settings


def _begin(grammar: Lark, text: str, start: Resumption) -> InteractiveParser:
    """Return a parser that is about to read from `start`, with the lists open that are open there."""
    from lark import Token

    stretch = grammar.parse_interactive(text)
    # Not with a TextSlice: Lark counts the lines before it, so each error would cost time for the whole text.
    lexer = stretch.lexer_thread.state
    assert lexer is not None
    lexer.line_ctr.char_pos = start.position
    if start.lists:
        stretch.feed_token(Token("KEY", ""))
        stretch.feed_token(Token("ASSIGN", "="))
        for position in start.lists:
            stretch.feed_token(Token("LSQB", "[", position))
        if start.after_item:
            stretch.feed_token(Token("STRING", "''"))
    return stretch


def _read(stretch: InteractiveParser) -> UnexpectedInput | None:
    from lark.exceptions import UnexpectedInput

    try:
        stretch.exhaust_lexer()
        stretch.feed_eof()  # type: ignore[no-untyped-call]
    except UnexpectedInput as error:
        return error
    return None


def _position(error: UnexpectedInput, end: int) -> int:
    token = getattr(error, "token", None)
    return end if token is not None and token.type == "$END" else int(error.pos_in_stream or 0)


def _settings(stretch: InteractiveParser) -> list[Setting]:
    """Return the settings that were complete when the parser stopped, but not one that was reopened."""
    from lark import Tree

    found: list[Any] = []
    for part in stretch.parser_state.value_stack:
        found += part.children if isinstance(part, Tree) else part if isinstance(part, list) else [part]
    return [part for part in found if isinstance(part, Setting) and part.key]


def _open_lists(stretch: InteractiveParser) -> tuple[int, ...]:
    """Return where the lists begin that were open when the parser stopped."""
    stack = stretch.parser_state.value_stack
    lists = [part.start_pos for part in stack if getattr(part, "type", None) == "LSQB"]
    if stack and getattr(stack[-1], "type", None) == "RSQB":  # closed, but not yet taken off the stack
        lists.pop()
    return tuple(lists)


# The first terminal of these that the parser would have taken tells what it was waiting for.
_WAITING_FOR = (("KEY", State.SETTING), ("ASSIGN", State.OPERATOR), ("STRING", State.VALUE))


def _state(stretch: InteractiveParser, in_list: bool) -> State:
    choices = stretch.choices()  # type: ignore[no-untyped-call]
    for terminal, state in _WAITING_FOR:
        if terminal in choices:
            return State.ITEM if state is State.VALUE and in_list else state
    return State.SEPARATOR if in_list else State.END
