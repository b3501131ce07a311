# SPDX-License-Identifier: LGPL-2.1-or-later
"""Placeholders: Jinja templates for words and files, Jinja expressions for conditions and results (pure).

A template yields the text of one word or one file. No shell reads it, so that nothing needs quoting but what
the file's own language wants: ``{{ name | xl }}`` is a string of xl.cfg.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2
import jinja2.meta

from ... import protocol as p
from ...failures import HarnessError
from ...snapshot_conf import quoted, text_of
from ...trace import Create
from .commands import Action, Conditional, Profile, Words

Values = Mapping[str, Any]

_ENVIRONMENT = jinja2.Environment(
    undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
)
_ENVIRONMENT.filters["xl"] = quoted


def _find(rows: list[dict[str, Any]], wanted: object, *keys: str) -> dict[str, Any] | None:
    """Filter: the first row that has a value under one of the keys, None if there is none."""
    return next((row for row in rows if any(row.get(key) == wanted for key in keys)), None)


def _pick(rows: list[dict[str, Any]], **keys: str) -> list[dict[str, Any]]:
    """Filter: rows with other names for some of their members: ``disks | pick(vdev="device")``."""
    return [{name: row.get(key) for name, key in keys.items()} for row in rows]


_ENVIRONMENT.filters |= {"find": _find, "pick": _pick}

ALWAYS = ("root", "conf")
"""Names that every verb has beside the members of its request."""


def fill(template: str, values: Values) -> str:
    """Return a template with its placeholders filled in."""
    return _ENVIRONMENT.from_string(template).render(values)


def evaluate(expression: str, values: Values) -> Any:
    """Return the value of an expression; None where it is undefined."""
    return _ENVIRONMENT.compile_expression(expression)(**values)


def words(command: Words, values: Values) -> list[str]:
    """Return the argument vector of a command."""
    found: list[str] = []
    for word in command:
        if isinstance(word, Conditional):
            if evaluate(word.when, values):
                found += [fill(each, values) for each in word.add]
        else:
            found.append(fill(word, values))
    return found


def values_of(request: p.Request[Any], root: str, tables: Values) -> dict[str, Any]:
    """Return what placeholders stand for: the members of the request, the profile's tables, and `ALWAYS`.

    ``conf`` is the text of an xl.snapshot.conf that asks for the same as a `SnapshotCreate`.
    """
    values: dict[str, Any] = {name: getattr(request, name) for name in request.__struct_fields__}
    conf = None
    if isinstance(request, p.SnapshotCreate):
        conf = request.config if request.config is not None else text_of(_as_step(request))
    return {**tables, "root": root, **values, "conf": conf}


def _as_step(request: p.SnapshotCreate) -> Create:
    return Create(
        name=request.name,
        description=request.description,
        memory=request.memory,
        disks=request.disks,
        type=request.type,
    )


def check(profile: Profile, path: str) -> None:
    """Look at all templates and expressions before anything runs.

    :raise HarnessError: naming the one with a syntax error or an unknown name.
    """
    for name, action in profile.verbs.items():
        known = {*p.VERBS[name].arguments.__struct_fields__, *ALWAYS, *profile.tables}
        for place, text, more in _texts(action):
            try:
                unknown = jinja2.meta.find_undeclared_variables(_ENVIRONMENT.parse(text)) - known - more
            except jinja2.TemplateError as error:
                raise HarnessError(f"profile {path}: verbs.{name}.{place}: {error}: {text!r}") from None
            if unknown:
                there = ", ".join(sorted(known | more))
                raise HarnessError(
                    f"profile {path}: verbs.{name}.{place}: there is no {min(unknown)!r}; there are {there}"
                )


_OUTPUT = {"stdout", "match", "printed"}


def _texts(action: Action) -> list[tuple[str, str, set[str]]]:
    """Return all texts of an action with their places, and the names that they know beside the usual."""
    none: set[str] = set()
    found: list[tuple[str, str, set[str]]] = []
    for file, text in action.files.items():
        found += [("files", file, none), (f"files.{file}", text, none)]
    for command in action.commands:
        for word in command:
            if isinstance(word, Conditional):
                found += [("run", _expression(word.when), none), *(("run", each, none) for each in word.add)]
            else:
                found.append(("run", word, none))
    if action.json is not None:
        found.append(("json", _expression(action.json), _OUTPUT))
    found += [(f"result.{key}", _expression(each), _OUTPUT) for key, each in action.result.items()]
    found += [(f"fields.{key}", _expression(each), {"row"}) for key, each in action.fields.items()]
    found += [("refuse", _expression(each), none) for each in action.refuse]
    return found


def _expression(text: str) -> str:
    return "{{ " + text + " }}"
