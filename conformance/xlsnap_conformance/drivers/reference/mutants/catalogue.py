# SPDX-License-Identifier: LGPL-2.1-or-later
"""The catalogue, and the tools with which a mutant patches the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from xlsnap import plan, steps
from xlsnap.steps import Plan, PlannedStep

replace = msgspec.structs.replace


@dataclass(frozen=True, slots=True)
class Mutant:
    """A broken toolstack.

    ``clauses`` are those that it breaks: the suite must name one of them. ``bug`` is a real one of this kind,
    or empty. ``break_it`` patches this process.
    """

    name: str
    clauses: tuple[str, ...]
    description: str
    bug: str
    break_it: Callable[[], None]


CATALOGUE: dict[str, Mutant] = {}
"""All mutants by name."""


def mutant(*clauses: str, bug: str = "") -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Enter a patch into the catalogue; the mutant's name and description are those of the function."""

    def enter(break_it: Callable[[], None]) -> Callable[[], None]:
        name = break_it.__name__.replace("_", "-")
        description = (break_it.__doc__ or "").strip().splitlines()[0]
        CATALOGUE[name] = Mutant(name, clauses, description, bug, break_it)
        return break_it

    return enter


def wrap(owner: Any, name: str, replacement: Callable[..., Any]) -> None:
    """Replace a function or method by one that gets the original as its first argument."""
    original = getattr(owner, name)
    setattr(owner, name, lambda *args, **kwargs: replacement(original, *args, **kwargs))


Edit = Callable[[list[PlannedStep]], list[PlannedStep]]


def edit_steps(function: str, edit: Edit) -> None:
    """Change the steps of the plans that a function of `plan` returns."""

    def edited(original: Callable[..., Plan], *args: Any, **kwargs: Any) -> Plan:
        made = original(*args, **kwargs)
        return replace(made, steps=tuple(edit(list(made.steps))))

    wrap(plan, function, edited)


def without(*kinds: type[steps.Step]) -> Edit:
    """Return an edit that drops the steps of these kinds."""
    return lambda planned: [step for step in planned if not isinstance(step.do, kinds)]


def edit_description(edit: Callable[[Any], Any]) -> None:
    """Change what a new snapshot says of itself."""
    wrap(plan, "describe", lambda original, *args, **kwargs: edit(original(*args, **kwargs)))


def edit_metadata(edit: Callable[[Any], Any]) -> None:
    """Change the metadata that is written, and nothing else."""
    wrap(plan.create, "to_json", lambda original, snapshot: original(edit(snapshot)))
