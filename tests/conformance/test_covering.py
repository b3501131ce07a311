# SPDX-License-Identifier: LGPL-2.1-or-later
"""Few tests for all clauses, and little effort on slow hosts."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st
from xlsnap_conformance.covering import cover
from xlsnap_conformance.profiles import EFFORTS, Effort
from xlsnap_conformance.search import extent

TESTS = st.dictionaries(st.text(max_size=3), st.sets(st.integers(0, 20).map(str)), max_size=12)


@given(TESTS)
def test_what_is_chosen_names_all_clauses_and_none_in_vain(tests: dict[str, set[str]]) -> None:
    chosen = cover(tests, dict.fromkeys(tests, 1))
    named: set[str] = set().union(*(tests[test] for test in chosen)) if chosen else set()
    assert named == (set().union(*tests.values()) if tests else set())
    assert chosen == [test for test in tests if test in chosen]
    assert len(chosen) <= len(named)


def test_the_cheap_ones_are_preferred() -> None:
    tests = {"both": {"1", "2"}, "one": {"1"}, "two": {"2"}}
    assert cover(tests, {"both": 10, "one": 1, "two": 1}) == ["one", "two"]
    assert cover(tests, {"both": 1.5, "one": 1, "two": 1}) == ["both"]


def test_a_slow_host_gets_fewer_and_shorter_scenarios() -> None:
    for effort in Effort:
        assert extent(effort, 1) == EFFORTS[effort]
        examples, steps = extent(effort, 15)
        assert 1 <= examples <= EFFORTS[effort][0] // 2
        assert steps <= EFFORTS[effort][1]


def test_a_covering_run_names_each_clause_of_the_profile_that_the_whole_run_names() -> None:
    whole, few = (collected(), collected("--cover"))
    assert 0 < len(few) < len(whole) / 3
    assert set(few) <= set(whole)


def collected(*options: str) -> list[str]:
    command = [sys.executable, "-m", "pytest", "-p", "xlsnap_conformance.plugin", "--collect-only", "-q"]
    command += ["--pyargs", "xlsnap_conformance.suite", "--profile", "core", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return [line for line in done.stdout.splitlines() if "::" in line]
