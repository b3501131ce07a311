# SPDX-License-Identifier: LGPL-2.1-or-later
"""From the results of tests to the status of each clause, and from those to a verdict on each profile."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import msgspec

from .results import (
    NOBODY,
    ClauseResult,
    Implementation,
    ProfileResult,
    Status,
    TestResult,
    Verdict,
    judge,
    worst,
)


def summarise_clauses(
    clauses: Iterable[ClauseResult], tests: Iterable[TestResult]
) -> tuple[ClauseResult, ...]:
    """Return ``clauses`` with the status that ``tests`` give them: the worst one.

    A clause that a test has seen hold is not made unsupported by others that need what is not claimed: those
    are its ``untried`` tests. It is blocked when all tests ended before they could say anything of it.
    """
    by_clause: dict[str, list[TestResult]] = {}
    for test in tests:
        for clause in dict.fromkeys((*test.clauses, *test.broken)):
            by_clause.setdefault(clause, []).append(test)
    return tuple(_judged(clause, by_clause.get(clause.id, [])) for clause in clauses)


def _judged(clause: ClauseResult, tests: list[TestResult]) -> ClauseResult:
    said = {status for test in tests if (status := test.status_for(clause.id)) is not None}
    if Status.PASS in said:
        said.discard(Status.UNSUPPORTED)
    return msgspec.structs.replace(
        clause,
        status=worst(said) or (Status.BLOCKED if tests else None),
        tests=tuple(test.id for test in tests),
        untried=tuple(test.id for test in tests if test.status is Status.UNSUPPORTED),
    )


def obstacles(*, interrupted: bool, selected: str, errors: Iterable[str]) -> str:
    """Return why not all tests of a run count, "" when they do."""
    told = ("it was interrupted" if interrupted else "", selected, "harness errors" if any(errors) else "")
    return ", ".join(filter(None, told))


def summarise_profiles(
    names: Iterable[str],
    clauses: Iterable[ClauseResult],
    *,
    partial: Collection[str] = (),
    asked: str = "",
    implementation: Implementation = NOBODY,
    strict: bool = False,
    incomplete: str = "",
) -> tuple[ProfileResult, ...]:
    """Return a verdict for each of the profiles ``names``, those too of which nothing was tested.

    :param partial: those of which the run was not about all clauses, because ``asked`` was asked for.
    :param incomplete: why not all tests of the run count, "" when they do.
    """
    groups = {name: [clause for clause in clauses if name in clause.profiles] for name in names}
    results = []
    for name, group in groups.items():
        part = name in partial
        why = ", ".join(filter(None, (f"profile {asked} was asked for" if part else "", incomplete)))
        lacking = implementation.lacks(name)
        verdict = judge(group, strict=strict, incomplete=bool(why))
        if lacking is not None and verdict is not Verdict.DOES_NOT_CONFORM:
            verdict = Verdict.NOT_CLAIMED
        counts = _counts(group, strict=strict)
        parts = []
        if lacking is not None:
            parts.append(f"the capability {lacking} is not claimed")
        if not any(clause.status for clause in group):
            parts.append(f"not tested in this run{why and f': {why}'}")
        else:
            parts += [f"not wholly tested in this run: {why}"] if why else []
            if not part or verdict is Verdict.DOES_NOT_CONFORM:
                parts.append(_score(group, counts, strict=strict))
        results.append(
            ProfileResult(name=name, verdict=verdict, reason="; ".join(parts), counts=counts, partial=part)
        )
    return tuple(results)


def _counts(clauses: Iterable[ClauseResult], *, strict: bool) -> dict[str, int]:
    """Return how many of the clauses that count ended how."""
    counting = [c.status for c in clauses if strict or c.level == "MUST"]
    counts = {status.value: counting.count(status) for status in reversed(Status)}
    counts["untested"] = counting.count(None)
    return {status: number for status, number in counts.items() if number}


def _score(clauses: Iterable[ClauseResult], counts: dict[str, int], *, strict: bool) -> str:
    """Return how many of the clauses hold, and what became of the others."""
    held, untested = counts.get(Status.PASS, 0), counts.get("untested", 0)
    others = [
        f"{number} {status}" for status, number in counts.items() if status not in (Status.PASS, "untested")
    ]
    others += [f"{untested} more not tested"] if untested else []
    score = ", ".join([f"{held} of {sum(counts.values()) - untested} tested clauses hold", *others])
    apart = [c for c in clauses if not strict and c.level != "MUST" and c.status is not None]
    if apart:
        good = sum(c.status is Status.PASS for c in apart)
        broken = [c.id for c in apart if c.status in (Status.FAIL, Status.KNOWN)]
        score += f"; apart from them {good} of {len(apart)} SHOULD and MAY clauses"
        score += f", broken: {' '.join(broken)}" if broken else ""
    return score


@dataclass(frozen=True, slots=True)
class Alike:
    """Profiles of which a report says the same."""

    names: tuple[str, ...]
    verdict: Verdict
    reason: str


def alike(profiles: Iterable[ProfileResult]) -> list[Alike]:
    """Return the verdicts for a reader: one for all profiles that have the same for the same reason."""
    groups: dict[tuple[Verdict, str], list[str]] = {}
    for profile in profiles:
        groups.setdefault((profile.verdict, profile.reason), []).append(profile.name)
    return [Alike(tuple(names), verdict, reason) for (verdict, reason), names in groups.items()]
