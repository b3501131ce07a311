# SPDX-License-Identifier: LGPL-2.1-or-later
"""The catalogue, and the tools with which a mutant patches the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from xlsnap import plan, steps
from xlsnap.steps import Plan, PlannedStep

replace = msgspec.structs.replace


Part = Literal["toolstack", "model"]
"""What a mutant breaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """Something that is broken in one way.

    ``clauses`` are those that it breaks: who judges it must name one of them. ``bug`` is a real one of this
    kind, or empty. ``test`` is the test of the suite that tells it from the reference soonest, "" where the
    order of `mutation.choice` does: a scenario's name, or "test_live.py::test_x[case]".

    ``break_it`` patches the process that runs what is broken: the driver's for a ``toolstack``, the suite's
    for its own ``model``, which must then find fault with the reference. Where ``judge`` is not empty it is a
    test of this project that breaks something by itself and passes when it notices; ``break_it`` is None.
    """

    name: str
    clauses: tuple[str, ...]
    description: str
    bug: str = ""
    test: str = ""
    part: Part = "toolstack"
    judge: str = ""
    break_it: Callable[[], None] | None = None


CATALOGUE: dict[str, Mutant] = {}
"""All mutants by name."""


def mutant(
    *clauses: str, bug: str = "", test: str = "", part: Part = "toolstack"
) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Enter a patch into the catalogue; the mutant's name and description are those of the function."""

    def enter(break_it: Callable[[], None]) -> Callable[[], None]:
        name = break_it.__name__.replace("_", "-")
        description = (break_it.__doc__ or "").strip().splitlines()[0]
        _enter(
            Mutant(
                name=name,
                clauses=clauses,
                description=description,
                bug=bug,
                test=test,
                part=part,
                break_it=break_it,
            )
        )
        return break_it

    return enter


def elsewhere(name: str, *clauses: str, judge: str, description: str, bug: str = "") -> None:
    """Enter what a test of this project breaks by itself, because the suite cannot judge it.

    :param judge: the test that passes when it notices: "tests/crash/test_mutants.py::test_x[case]".
    """
    _enter(Mutant(name=name, clauses=clauses, description=description, bug=bug, judge=judge))


def _enter(new: Mutant) -> None:
    if new.name in CATALOGUE:
        raise ValueError(f"two mutants have the name {new.name}")
    CATALOGUE[new.name] = new


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
