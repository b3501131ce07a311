# SPDX-License-Identifier: LGPL-2.1-or-later
"""One report from those of several machines that shared a run out among them (pure).

A shard whose report is lost costs its own tests and no more: what it had to run is known from the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from . import results, verdicts
from .results import ClauseResult, Evidence, Run, ShardOf, Status, TestResult
from .sharding import fingerprint

_SAME = ("kit", "implementation", "profile", "seed", "strict")
"""What all reports of one run have in common."""


def merge(runs: Sequence[Run]) -> Run:
    """Return the run that all shards together are. Where a shard was run twice the later run counts.

    :raise ValueError: if they are not shards of one run.
    """
    if not runs:
        raise ValueError("there is no report to merge")
    shards = _latest(runs)
    first = next(iter(shards.values()))
    tests = _joined(test for run in shards.values() for test in run.tests)
    lost = _lost(shards)
    tests = {**tests, **{id: _not_run(id, which, tests.get(id)) for id, which in lost.items()}}
    known = {clause.id: clause for run in shards.values() for clause in run.clauses}
    clauses = verdicts.summarise_clauses(_unjudged(known.values()), tests.values())
    errors = tuple(
        f"shard {run.shard}: {error}" for run in shards.values() for error in run.errors if run.shard
    )
    interrupted = any(run.interrupted for run in shards.values())
    selected = _selected_beside_shard(first)
    obstacles = verdicts.obstacles(interrupted=interrupted, selected=selected, errors=errors)
    return msgspec.structs.replace(
        first,
        started=min(run.started for run in shards.values()),
        duration=max(run.duration for run in shards.values()),
        interrupted=interrupted,
        selected=selected,
        shard=None,
        errors=errors,
        profiles=verdicts.summarise_profiles(
            dict.fromkeys(profile.name for profile in first.profiles),
            clauses,
            partial={profile.name for profile in first.profiles if profile.partial},
            asked=first.profile,
            implementation=first.implementation,
            strict=first.strict,
            incomplete=", ".join(filter(None, (obstacles, "tests of lost shards" if lost else ""))),
        ),
        clauses=clauses,
        tests=tuple(tests.values()),
    )


def _latest(runs: Sequence[Run]) -> dict[int, Run]:
    """Return the runs by the index of their shards, in order."""
    first, division = runs[0], _shard(runs[0]).division
    found: dict[int, Run] = {}
    for run in runs:
        shard = _shard(run)
        for member in _SAME:
            if getattr(run, member) != getattr(first, member):
                raise ValueError(
                    f"these are not shards of one run: shard {_shard(first)} has {member} "
                    f"{_told(getattr(first, member))}, shard {shard} has {_told(getattr(run, member))}"
                )
        if fingerprint(shard.division) != fingerprint(division):
            raise ValueError(
                f"shards {_shard(first)} and {shard} divide the tests differently: give all the same --times"
            )
        if shard.index not in found or run.started > found[shard.index].started:
            found[shard.index] = run
    return dict(sorted(found.items()))


def _shard(run: Run) -> ShardOf:
    if run.shard is None:
        raise ValueError("a report is of a whole run, not of a shard: run with --shard I/N")
    return run.shard


def _told(value: object) -> str:
    name = getattr(value, "name", None)
    return f"{name} {getattr(value, 'version', '')}".strip() if name is not None else str(value)


def _joined(tests: Iterable[TestResult]) -> dict[str, TestResult]:
    """Return one result for each test: the worst of its slices, with the time of all."""
    joined: dict[str, TestResult] = {}
    for test in tests:
        before = joined.get(test.id)
        if before is None:
            joined[test.id] = test
            continue
        worse = before if results.worst((before.status, test.status)) is before.status else test
        joined[test.id] = msgspec.structs.replace(
            worse,
            clauses=tuple(dict.fromkeys((*before.clauses, *test.clauses))),
            broken=tuple(dict.fromkeys((*before.broken, *test.broken))),
            unclaimed=tuple(dict.fromkeys((*before.unclaimed, *test.unclaimed))),
            seconds=round(before.seconds + test.seconds, 3),
        )
    return joined


def _lost(shards: dict[int, Run]) -> dict[str, str]:
    """Return the tests of which a part was not run, and the shards that it would have been."""
    shard = _shard(next(iter(shards.values())))
    lost: dict[str, list[str]] = {}
    for index, shares in enumerate(shard.division, start=1):
        done = {test.id for test in shards[index].tests} if index in shards else set()
        for share in shares:
            if share.id not in done:
                lost.setdefault(share.id, []).append(f"{index}/{shard.of}")
    return {id: ", ".join(which) for id, which in lost.items()}


def _not_run(id: str, which: str, known: TestResult | None) -> TestResult:
    """Return the result of a test that a lost shard had; a slice that failed elsewhere counts."""
    if known is not None and known.status is Status.FAIL:
        return known
    return TestResult(
        id=id,
        status=Status.HARNESS_ERROR,
        clauses=known.clauses if known is not None else (),
        seconds=known.seconds if known is not None else 0.0,
        message=f"not run: no result of shard {which}; run it again with --shard",
        evidence=Evidence(),
    )


def _unjudged(clauses: Iterable[ClauseResult]) -> list[ClauseResult]:
    return [msgspec.structs.replace(clause, status=None, tests=()) for clause in clauses]


def _selected_beside_shard(run: Run) -> str:
    """Return why not all tests of the profile were run, apart from the division among machines."""
    return " ".join(run.selected.replace(f"--shard {run.shard}", "").split())
