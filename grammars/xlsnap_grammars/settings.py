# SPDX-License-Identifier: LGPL-2.1-or-later
"""From the text of a file to its settings, and to everything that is wrong with its syntax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from .deviations import MAX_DEPTH
from .diagnostics import Problem, Source
from .parsers import parser

if TYPE_CHECKING:
    from lark import Token

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

    if source.text.count("[") > MAX_DEPTH:
        from .resumption import too_deep

        if found := too_deep(source.text):
            problems += found
            return []
    grammar = parser("config", "file", _Builder)
    try:
        return cast(list[Setting], grammar.parse(source.text))
    except UnexpectedInput:
        # Only a wrong file pays for being read a second time, with care.
        from .recovery import read_around_errors

        return read_around_errors(grammar, source.text, problems)
