# SPDX-License-Identifier: LGPL-2.1-or-later
"""Choose few tests that name every clause once: for hosts on which a whole run takes hours (pure)."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from typing import TypeVar

T = TypeVar("T", bound=Hashable)


def cover(tests: Mapping[T, Collection[str]], costs: Mapping[T, float]) -> list[T]:
    """Return tests that together name all the clauses that all of `tests` name, in their order.

    Greedy: what names most clauses that are missing yet, for its cost, is taken next. That is at most a
    logarithm worse than the best choice, which is hard to find.

    >>> cover({"a": {"1", "2"}, "b": {"2"}, "c": {"3"}}, {"a": 1, "b": 1, "c": 1})
    ['a', 'c']
    """
    missing = {clause for clauses in tests.values() for clause in clauses}
    taken: set[T] = set()
    while missing:
        best = max(tests, key=lambda test: len(missing.intersection(tests[test])) / costs[test])
        taken.add(best)
        missing.difference_update(tests[best])
    return [test for test in tests if test in taken]
