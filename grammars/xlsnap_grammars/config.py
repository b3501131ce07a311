# SPDX-License-Identifier: LGPL-2.1-or-later
"""The values that the settings of a file leave, as libxlu keeps them."""

from __future__ import annotations

from typing import Any, TypeAlias

from .diagnostics import Problem, Source, quoted
from .settings import RawValue, Setting, read_settings
from .strings import read_string

ConfigValue: TypeAlias = str | list[Any]
"""Text (of a number too), or a list of values."""


def parse_config(text: str | bytes, *, filename: str = "<config>") -> dict[str, ConfigValue]:
    """Parse a file in the xl configuration language, as libxlu of Xen 4.17 does.

    Numbers stay text, a later setting of a key replaces an earlier one, ``+=`` appends to it, and lists nest.
    Bytes are decoded like file names (UTF-8 with `surrogateescape`), so nothing is lost. Where this parser
    differs from libxlu on purpose is listed in `DEVIATIONS`.

    :raises ConfigError: with all errors of the file.
    """
    source = Source(text, filename)
    problems: list[Problem] = []
    values: dict[str, ConfigValue] = {}
    for setting in read_settings(source, problems):
        value = plain(setting.value, problems)
        before = values.get(setting.key) if setting.append else None
        if before is not None and isinstance(before, str) != isinstance(value, str):
            problems.append(mixed(setting))
        else:
            values[str(setting.key)] = appended(before, value)
    source.check(problems)
    return values


def appended(before: ConfigValue | None, value: ConfigValue) -> ConfigValue:
    """Return `value` added to `before`, which is of the same kind, or None; a list `before` is changed."""
    if isinstance(before, list):
        before.extend(value)
        return before
    return f"{before or ''}{value}" if isinstance(value, str) else value


def mixed(setting: Setting) -> Problem:
    """Return the problem that `setting` adds a list to a string, or a string to a list."""
    if isinstance(setting.value, list):
        message, hint = (
            f"{quoted(setting.key)} is a string: no list can be added to it",
            "add a string, or set it with =",
        )
    else:
        message, hint = f"{quoted(setting.key)} is a list: no string can be added to it", "write += [ … ]"
    return Problem(setting.position, message, hint)


def plain(value: RawValue, problems: list[Problem]) -> ConfigValue:
    """Return what `value` stands for; every wrong escape is added to `problems`."""
    if not isinstance(value, list):
        return read_string(value.value, value.start_pos or 0, problems)
    result = list(value)
    unread = [result]
    while unread:
        items = unread.pop()
        for index, item in enumerate(items):
            if isinstance(item, list):
                items[index] = list(item)
                unread.append(items[index])
            else:
                items[index] = read_string(item.value, item.start_pos or 0, problems)
    return result
