# SPDX-License-Identifier: LGPL-2.1-or-later
"""How a run scales over machines: the real division of the real tests, on machines that are simulated.

What is simulated is time only: a machine needs `SETUP` seconds before its first test (a checkout, packages, a
virtual environment), runs its shard in one process, and is lost with probability `LOSS`; then its shard is
run again on another one. Which tests a shard has, and in which slices, is computed by what runs use. The time
that merging takes is measured.
"""

from __future__ import annotations

import random
import statistics
import time

from rich.console import Console
from rich.table import Table
from xlsnap_conformance.machine import EXTERNAL_SHAPES, SHAPES
from xlsnap_conformance.merging import merge
from xlsnap_conformance.profiles import EFFORTS, Effort
from xlsnap_conformance.results import Implementation, Run, ShardOf, Status, TestResult
from xlsnap_conformance.sharding import Division, Work, divide, shipped_seconds, weigh

SETUP = 60.0
LOSS = 0.01
REPEATS = 20
MACHINES = (1, 2, 4, 8, 16, 32, 64, 125, 250, 500, 1000)


def works(effort: Effort) -> list[Work]:
    """Return the tests of profile all; those of generated scenarios take longer with more effort."""
    scenarios, steps = EFFORTS[effort]
    usual_scenarios, usual_steps = EFFORTS[Effort.NORMAL]
    factor = scenarios * steps / (usual_scenarios * usual_steps)
    shapes = {*SHAPES, *EXTERNAL_SHAPES}

    def is_generated(id: str) -> bool:
        return "test_generated" in id and id.partition("[")[2].rstrip("]") in shapes

    seconds = {id: value * (factor if is_generated(id) else 1) for id, value in shipped_seconds().items()}
    return weigh({id: scenarios if is_generated(id) else 1 for id in seconds}, seconds)


def shard_seconds(division: Division, known: dict[str, Work]) -> list[float]:
    """Return how long each shard runs its tests."""
    return [
        sum(known[share.id].seconds * len(share.slices) / share.of for share in shares) for shares in division
    ]


def until_all_are_done(seconds: list[float], draw: random.Random) -> float:
    """Return when the last shard is done; a machine that is lost was lost at any moment of its run."""
    ends = []
    for length in seconds:
        end = 0.0
        while draw.random() < LOSS:
            end += draw.random() * (SETUP + length)
        ends.append(end + SETUP + length)
    return max(ends)


def merging_seconds(division: Division) -> float:
    """Measure how long the reports of all shards take to merge."""
    runs = [
        Run(
            kit="0",
            implementation=Implementation(name="simulated"),
            profile="all",
            seed=1,
            started="2026-01-01T00:00:00+00:00",
            duration=1.0,
            shard=ShardOf(index=index, of=len(division), division=division),
            tests=tuple(TestResult(id=share.id, status=Status.PASS, seconds=1.0) for share in shares),
        )
        for index, shares in enumerate(division, start=1)
    ]
    start = time.perf_counter()
    merge(runs)
    return time.perf_counter() - start


def main() -> None:
    """Print a table for each effort."""
    console = Console(width=100)
    for effort in (Effort.NORMAL, Effort.DEEP):
        tests = works(effort)
        known = {work.id: work for work in tests}
        total = sum(work.seconds for work in tests)
        table = Table(
            title=f"effort {effort}: {len(tests)} tests, {total:.0f} s of work", title_justify="left"
        )
        for column in ("machines", "longest shard", "all done", "speed-up", "efficiency", "idle", "merge"):
            table.add_column(column, justify="right")
        one = None
        for machines in MACHINES:
            division = divide(tests, machines)
            seconds = shard_seconds(division, known)
            draw = random.Random(machines)
            done = statistics.mean(until_all_are_done(seconds, draw) for _ in range(REPEATS))
            one = one or done
            table.add_row(
                str(machines),
                f"{max(seconds):.1f} s",
                f"{done:.0f} s",
                f"{one / done:.1f}",
                f"{one / done / machines:.0%}",
                str(sum(not shares for shares in division)),
                f"{merging_seconds(division):.2f} s",
            )
        console.print(table)


if __name__ == "__main__":
    main()
