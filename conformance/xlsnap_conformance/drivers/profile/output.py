# SPDX-License-Identifier: LGPL-2.1-or-later
"""Read what a command printed: a pattern's groups, rows of a table, JSON; what an error means (pure)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from ... import protocol as p
from ..serving import Refused
from .commands import Action, Failure
from .templates import Values, evaluate

ROWS: dict[str, str] = {
    "domain_list": "domains",
    "domain_disks": "disks",
    "snapshot_list": "snapshots",
}
"""Verbs whose result is a list, and the member that it is."""


def result(verb: str, action: Action, stdout: str, values: Values) -> p.Result:
    """Return the result of a verb from what its last command printed.

    :raise Refused: if it has not the form that the profile says; that is the driver's fault.
    """
    told: dict[str, Any] = {}
    match = None
    if action.pattern is not None:
        match = re.search(action.pattern, stdout)
        if match is None:
            raise _wrong(verb, "the pattern is not in what was printed", stdout)
        told |= {name: value for name, value in match.groupdict().items() if value is not None}
    groups = match.groupdict() if match else {}
    known = {**values, "stdout": stdout, "match": groups, "printed": _printed(verb, action, stdout)}
    told |= {name: evaluate(expression, known) for name, expression in action.result.items()}
    if verb in ROWS:
        told[ROWS[verb]] = [_row(row, action, values) for row in _rows(verb, action, stdout, known)]
    try:
        return msgspec.convert(_without_none(told), p.VERBS[verb].result, strict=False)
    except msgspec.ValidationError as error:
        raise _wrong(verb, str(error), stdout) from None


def _printed(verb: str, action: Action, stdout: str) -> Any:
    if action.json is None and not any("printed" in each for each in action.result.values()):
        return None
    try:
        return json.loads(stdout)
    except ValueError as error:
        raise _wrong(verb, f"no JSON was printed ({error})", stdout) from None


def _rows(verb: str, action: Action, stdout: str, known: Values) -> Iterable[Any]:
    if action.rows is not None:
        return [match.groupdict() for match in re.finditer(action.rows, stdout)]
    rows = evaluate(action.json, known) if action.json is not None else None
    if not isinstance(rows, list):
        raise _wrong(verb, "what was printed has no list", stdout)
    return rows


def _row(row: Any, action: Action, values: Values) -> dict[str, Any]:
    told = dict(row) if action.rows is not None else {}
    for name, expression in action.fields.items():
        told[name] = evaluate(expression, {**values, "row": row})
    return _without_none(told)


def _without_none(told: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if value is not None}


def _wrong(verb: str, what: str, stdout: str) -> Refused:
    return Refused("bug", f"profile: verbs.{verb}: {what}: {stdout[:200]!r}")


def refusal(failures: Iterable[Failure], status: int, stderr: str) -> Refused:
    """Return what a command that failed means: what the profile says first, else the host's fault."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    message = " ".join(lines) or f"exit status {status}"
    for failure in failures:
        if failure.exit is not None and status not in failure.exit:
            continue
        if failure.pattern is None or re.search(failure.pattern, stderr):
            return Refused(failure.kind, message)
    return Refused("host", message)
