# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every machine computes the same division, in which nothing is lost, nothing done twice, and all is fair."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xlsnap_conformance.sharding import (
    Shard,
    Work,
    divide,
    fingerprint,
    makespan,
    shipped_seconds,
    slice_seed,
    slice_size,
    weigh,
)

WORKS = st.lists(
    st.builds(
        Work,
        id=st.text("abcdefgh", min_size=1, max_size=4),
        seconds=st.floats(0.001, 100),
        scenarios=st.sampled_from((1, 1, 2, 8, 60)),
    ),
    max_size=40,
    unique_by=lambda work: work.id,
)
SHARDS = st.integers(1, 50)


@given(WORKS, SHARDS)
def test_every_slice_of_every_test_is_run_by_exactly_one_shard(works: list[Work], shards: int) -> None:
    division = divide(works, shards)
    assert len(division) == shards
    slices: dict[str, list[int]] = {work.id: [] for work in works}
    of: dict[str, set[int]] = {work.id: set() for work in works}
    for shares in division:
        for share in shares:
            slices[share.id] += share.slices
            of[share.id].add(share.of)
    for work in works:
        (number,) = of[work.id]
        assert sorted(slices[work.id]) == list(range(number))
        assert number <= work.scenarios


@given(WORKS, SHARDS, st.randoms(use_true_random=False))
def test_the_order_of_collection_changes_nothing(works: list[Work], shards: int, random: object) -> None:
    shuffled = list(works)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert divide(shuffled, shards) == divide(works, shards)


@given(WORKS.filter(bool), SHARDS)
def test_no_shard_has_much_more_than_its_share(works: list[Work], shards: int) -> None:
    """The longest shard is at most a fair share and the longest thing that cannot be cut."""
    division = divide(works, shards)
    fair = sum(work.seconds for work in works) / shards
    longest = max(max(work.seconds / work.scenarios, min(work.seconds, fair)) for work in works)
    assert makespan(division, works) <= fair + longest + 1e-6


def test_a_test_of_scenarios_is_cut_only_when_it_is_longer_than_a_fair_share() -> None:
    works = [Work("generated", 30.0, 8), *(Work(f"fixed-{number}", 1.0) for number in range(30))]
    (alone,) = divide(works, 1)
    assert all(share.whole for share in alone)
    assert makespan(divide(works, 2), works) == 30.0
    eight = divide(works, 8)
    assert {share.of for shares in eight for share in shares if share.id == "generated"} == {8}
    assert makespan(eight, works) <= 8.5


@pytest.mark.parametrize(("scenarios", "of"), [(8, 1), (8, 3), (60, 7), (2, 2)])
def test_slices_have_all_scenarios_and_seeds_of_their_own(scenarios: int, of: int) -> None:
    assert sum(slice_size(scenarios, number, of) for number in range(of)) == scenarios
    assert len({slice_seed(7, number, of) for number in range(of)}) == of
    assert slice_seed(7, 0, 1) == 7


def test_a_fingerprint_tells_divisions_apart() -> None:
    works = [Work("a", 1.0), Work("b", 2.0), Work("c", 4.0)]
    assert fingerprint(divide(works, 2)) == fingerprint(divide(works[::-1], 2))
    assert fingerprint(divide(works, 2)) != fingerprint(divide(works, 3))
    assert fingerprint(divide(works, 2)) != fingerprint(divide(works[:2], 2))


def test_a_test_that_was_never_timed_counts_as_the_median() -> None:
    works = weigh({"new": 1, "a": 1, "b": 1, "c": 8}, {"a": 1.0, "b": 3.0, "c": 9.0, "gone": 100.0})
    assert works == [Work("new", 3.0), Work("a", 1.0), Work("b", 3.0), Work("c", 9.0, 8)]
    assert weigh({"new": 1}, {}) == [Work("new", 1.0)]


def test_the_shipped_seconds_are_of_the_tests_that_there_are() -> None:
    from xlsnap_conformance.collecting import collect

    tests, timed = {test.id for test in collect()}, set(shipped_seconds())
    assert len(tests & timed) >= 0.8 * len(tests), "write them anew: see docs/scaling.md"


@pytest.mark.parametrize("text", ["", "3", "0/2", "3/2", "1/0", "1/2/3", "-1/2", "1/99999", "a/b", "1 / 2"])
def test_what_is_no_shard_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="shard"):
        Shard.parse(text)
    assert str(Shard.parse("3/8")) == "3/8"
