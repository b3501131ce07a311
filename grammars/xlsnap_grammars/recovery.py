# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reading a file that has errors, so that one run finds them all. Imported only when there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput

from .causes import State, explain
from .diagnostics import Problem
from .resumption import Resumption, begins_setting, resume
from .settings import Setting

if TYPE_CHECKING:
    from lark.parsers.lalr_interactive_parser import InteractiveParser


def read_around_errors(grammar: Lark, text: str, problems: list[Problem]) -> list[Setting]:
    """Parse `text` from error to error; add each to `problems`, and return the settings between them."""
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
