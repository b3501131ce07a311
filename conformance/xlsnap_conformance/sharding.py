# SPDX-License-Identifier: LGPL-2.1-or-later
"""Divide a run among machines (pure): each computes the same division, and runs its own shard of it.

Tests are handed out by the seconds that they took before, the longest first, to the shard that has least to
do. A test of generated scenarios that is longer than a fair share is cut in slices, each of which draws
scenarios of its own. The division depends on nothing but tests, seconds and number of shards; `fingerprint`
tells two divisions apart, so that shards of different ones are never merged.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import re
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

MAX_SHARDS = 10_000


class Shard(msgspec.Struct, frozen=True):
    """One of ``of`` machines; ``index`` counts from 1."""

    index: int
    of: int

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "3/8".

        :raise ValueError: if that is no shard.
        """
        match = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text)
        if match is None:
            raise ValueError(f"{text!r} is no shard: write I/N, as 3/8 for the third of eight")
        index, of = int(match[1]), int(match[2])
        if not 1 <= index <= of <= MAX_SHARDS:
            raise ValueError(
                f"there is no shard {index} of {of}: shards count from 1 to N, N at most {MAX_SHARDS}"
            )
        return cls(index, of)


class Work(msgspec.Struct, frozen=True):
    """A test, how many seconds it takes, and in how many ``scenarios`` it can be cut: 1 if it cannot."""

    id: str
    seconds: float
    scenarios: int = 1


class Share(msgspec.Struct, frozen=True):
    """What a shard runs of a test: these ``slices`` (from 0) of the ``of`` slices that it is cut in."""

    id: str
    slices: tuple[int, ...] = (0,)
    of: int = 1

    @property
    def whole(self) -> bool:
        """Whether nothing of the test is left for other shards."""
        return len(self.slices) == self.of


Division = tuple[tuple[Share, ...], ...]
"""For each shard, the first one first, what it runs."""


def divide(works: Iterable[Work], shards: int) -> Division:
    """Return what each of ``shards`` machines runs; every slice of every test goes to exactly one."""
    works = sorted(works, key=lambda work: work.id)
    fair = sum(work.seconds for work in works) / shards
    slices = [
        (work.seconds / of, work.id, number, of)
        for work in works
        for of in (_slices(work, fair),)
        for number in range(of)
    ]
    slices.sort(key=lambda slice: (-slice[0], *slice[1:]))
    heap = [(0.0, shard) for shard in range(shards)]
    taken: list[dict[tuple[str, int], list[int]]] = [{} for _ in range(shards)]
    for seconds, id, number, of in slices:
        load, shard = heap[0]
        taken[shard].setdefault((id, of), []).append(number)
        heapq.heapreplace(heap, (load + seconds, shard))
    return tuple(
        tuple(Share(id, tuple(numbers), of) for (id, of), numbers in sorted(shares.items()))
        for shares in taken
    )


SLICES_OF_A_SHARE = 4
"""A test that is cut is cut this much finer than a fair share: small slices fill up what shards have left."""


def _slices(work: Work, fair: float) -> int:
    """Return in how many slices a test is cut; one that is no longer than a fair share stays whole."""
    if work.seconds <= fair or fair <= 0:
        return 1
    return min(work.scenarios, math.ceil(SLICES_OF_A_SHARE * work.seconds / fair))


def fingerprint(division: Division) -> str:
    """Return a short text that differs for different divisions."""
    return hashlib.sha256(msgspec.json.encode(division)).hexdigest()[:16]


def slice_seed(seed: int, number: int, of: int) -> int:
    """Return the seed of a slice; the only slice of a test that is not cut has the seed of the run."""
    if of == 1:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed} {number}/{of}".encode()).digest()[:4])


def slice_size(scenarios: int, number: int, of: int) -> int:
    """Return how many of a test's scenarios a slice has; over all slices that is all of them."""
    return scenarios // of + (number < scenarios % of)


# --- seconds ----------------------------------------------------------------------------------------------


def recorded_seconds(path: Path) -> dict[str, float]:
    """Return the seconds of each test, by id, from the report of an earlier run.

    :raise ValueError: if it is no report.
    :raise OSError: if it cannot be read.
    """
    from .results import load

    return {test.id: test.seconds for test in load(path).tests}


_SHIPPED = Path(__file__).parent / "suite" / "seconds.json"


def shipped_seconds() -> dict[str, float]:
    """Return the seconds that each test took with the reference toolstack when the kit was made."""
    return msgspec.json.decode(_SHIPPED.read_bytes(), type=dict[str, float])


def weigh(ids: Mapping[str, int], seconds: Mapping[str, float]) -> list[Work]:
    """Return tests with their seconds; one that was never timed counts as the median of the others.

    :param ids: each test, and the number of scenarios that it can be cut in.
    """
    known = [seconds[id] for id in ids if id in seconds]
    usual = statistics.median(known) if known else 1.0
    return [Work(id, max(seconds.get(id, usual), 0.001), scenarios) for id, scenarios in ids.items()]


def makespan(division: Division, works: Sequence[Work]) -> float:
    """Return the seconds of the shard that has most to do."""
    seconds = {work.id: work.seconds for work in works}
    return max(
        sum(seconds[share.id] * len(share.slices) / share.of for share in shares) for shares in division
    )


def write_shipped_seconds(report: Path) -> None:
    """Ship the seconds of a run of all tests with the reference toolstack."""
    seconds = {id: round(value, 1) for id, value in sorted(recorded_seconds(report).items())}
    _SHIPPED.write_bytes(msgspec.json.format(msgspec.json.encode(seconds), indent=1) + b"\n")


if __name__ == "__main__":  # python -m xlsnap_conformance.sharding REPORT
    write_shipped_seconds(Path(sys.argv[1]))
