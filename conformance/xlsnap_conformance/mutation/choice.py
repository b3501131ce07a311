# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which mutants to judge, and in which order tests meet a mutant (pure)."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from hashlib import sha256
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING

from ..clauses import find_clauses
from ..collecting import Kind, SuiteTest

if TYPE_CHECKING:
    from ..drivers.reference.mutants import Mutant

MOST_CHANGED = 10
"""Mutants of changed code that the quick choice takes."""

FUNCTION_STEPS = 12
"""A test function takes about as long as a fixed scenario of so many steps."""

_MUTANTS = "xlsnap_conformance.drivers.reference.mutants"
_PACKAGES = ("xlsnap", "xlsnap_grammars", "xlsnap_conformance")


# --- the order of tests -----------------------------------------------------------------------------------


class Reach(StrEnum):
    """Which tests a mutant meets, if none kills it before."""

    PURPOSE = "purpose"
    """Those that are for its clauses."""
    ABLE = "able"
    """Those that can find its clauses broken."""
    ALL = "all"
    """All: the others show whether it is noticed by a clause that is not its own."""


def order(
    tests: Sequence[SuiteTest], clauses: Collection[str], *, first: str = "", reach: Reach = Reach.ABLE
) -> list[SuiteTest]:
    """Return the tests that a mutant meets that breaks ``clauses``, those that notice it soonest first.

    :param first: the test that the catalogue names, by its id or as a scenario.
    """
    own = set(clauses)

    def late(test: SuiteTest) -> tuple[bool, bool, bool, bool, int]:
        return (
            first not in (test.id, test.short),
            not own.intersection(test.clauses),
            test.kind is Kind.GENERATED,
            not own.intersection(test.purpose),
            test.steps if test.kind is Kind.SCENARIO else FUNCTION_STEPS,
        )

    def met(test: SuiteTest) -> bool:
        named = {Reach.PURPOSE: test.purpose, Reach.ABLE: test.clauses}.get(reach)
        return named is None or first in (test.id, test.short) or bool(own.intersection(named))

    return sorted(filter(met, tests), key=late)


# --- the choice of mutants --------------------------------------------------------------------------------


def select(catalogue: Mapping[str, Mutant], names: Sequence[str]) -> list[Mutant]:
    """Return the mutants with these names, or that break these clauses; all when none is named.

    A clause may be named as `clauses.find_clauses` takes it: "XLS-REVERT-004", "revert".

    :raise ValueError: a name is neither, or no mutant breaks the clause.
    """
    if not names:
        return list(catalogue.values())
    chosen: set[str] = set()
    for name in names:
        clauses = {clause.id for clause in find_clauses(name)} if name else set()
        breaking = {each.name for each in catalogue.values() if clauses.intersection(each.clauses)}
        found = {name} if name in catalogue else breaking
        if not found:
            problem = "no mutant breaks clause" if clauses else "no mutant and no clause"
            raise ValueError(f"{problem} {name!r}; 'xlsnap-conformance mutants --list' lists all")
        chosen |= found
    return [mutant for mutant in catalogue.values() if mutant.name in chosen]


def quick(catalogue: Mapping[str, Mutant], changed: Collection[str] = (), salt: str = "") -> list[Mutant]:
    """Return a few mutants that the suite judges: the first of each area, and some whose code has changed.

    :param changed: names of modules that have changed; see `targets`.
    :param salt: chooses among the mutants of changed code, where there are more than `MOST_CHANGED`.
    """
    able = [mutant for mutant in catalogue.values() if not mutant.judge]
    chosen = {mutant.clauses[0].split("-")[1]: mutant.name for mutant in reversed(able)}
    touched = [mutant.name for mutant in able if targets(mutant).intersection(changed)]
    touched.sort(key=lambda name: sha256(f"{salt}{name}".encode()).digest())
    wanted = {*chosen.values(), *touched[:MOST_CHANGED]}
    return [mutant for mutant in able if mutant.name in wanted]


def targets(mutant: Mutant) -> frozenset[str]:
    """Return the modules of the code that a mutant patches, and where it stands itself.

    They are read from the patch: the modules of the names that its code uses.
    """
    if not isinstance(mutant.break_it, FunctionType):
        return frozenset()
    functions = _reached(mutant.break_it)
    words = {word for function in functions for word in _words(function.__code__)}
    used = {
        id(value): value
        for function in functions
        for word in words.intersection(function.__globals__)
        if (value := function.__globals__[word]) is not None
    }
    found = {function.__module__ for function in functions}
    for value in used.values():
        if isinstance(value, ModuleType):
            found |= {value.__name__, *_owners(value, words)}
        elif not isinstance(value, FunctionType) or not value.__module__.startswith(_MUTANTS):
            found.add(str(getattr(value, "__module__", "")))
    return frozenset(filter(_ours, found))


def _reached(function: FunctionType) -> list[FunctionType]:
    """Return a patch and the functions of the catalogue that it uses."""
    found = [function]
    for reached in found:  # which grows meanwhile
        for word in _words(reached.__code__):
            value = reached.__globals__.get(word)
            if isinstance(value, FunctionType) and value not in found:
                found += [value] if value.__module__.startswith(_MUTANTS) else []
    return found


def _owners(module: ModuleType, words: Collection[str]) -> Iterator[str]:
    """Yield where the things of a module come from that are named."""
    for word in words:
        value = getattr(module, word, None)
        yield str(value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", ""))


def _ours(module: str) -> bool:
    return module.split(".")[0] in _PACKAGES


def _words(code: CodeType) -> Iterator[str]:
    """Yield the names and the texts in the code of a function and of those in it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, CodeType):
            yield from _words(constant)


def modules_of(files: Collection[str]) -> set[str]:
    """Return the loaded modules whose files are among these paths."""
    found = set()
    for name, module in list(sys.modules.items()):
        if _ours(name) and getattr(module, "__file__", None) in files:
            found.add(name)
    return found
