# SPDX-License-Identifier: LGPL-2.1-or-later
"""The verb ``parse``: what the grammars make of a text, as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import xlsnap_grammars as grammars
from xlsnap_grammars import ConfigError

from ... import protocol as p


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value


_PARSERS: Mapping[p.Language, Callable[[str], Any]] = {
    "xl.cfg": lambda text: grammars.parse_config(text),
    "xl-disk": lambda text: grammars.parse_disk(text),
    "xl.snapshot.conf": lambda text: grammars.parse_snapshot_config(text),
}


def parse(request: p.Parse) -> p.ParseResult:
    """Return what the text means, or all that is wrong with it."""
    try:
        value = _PARSERS[request.language](request.text)
    except ConfigError as error:
        return p.ParseResult(
            errors=tuple(
                p.ParseError(message=each.message, line=each.line, column=each.column)
                for each in error.diagnostics
            )
        )
    plain = _plain(value)
    warnings = tuple(str(each) for each in getattr(value, "warnings", ()))
    if isinstance(plain, dict):
        plain.pop("warnings", None)
    return p.ParseResult(value=plain, warnings=warnings)
