# SPDX-License-Identifier: LGPL-2.1-or-later
"""Search for a scenario that fails: play what others have found, then what is drawn; shrink what fails."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.database import ExampleDatabase
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

from .failures import ConformanceFailure, HarnessError
from .machine import EXTERNAL_SHAPES, SHAPES, SnapshotMachine
from .profiles import EFFORTS, Effort
from .scenario import Scenario, replay
from .sharding import Share, slice_seed, slice_size
from .sharing import SharedFailures
from .shrink import makes_sense, shrink
from .subject import Subject
from .wording import capabilities

IsKnown = Callable[[ConformanceFailure], bool]
Settled = Callable[[ConformanceFailure], ConformanceFailure]
"""Makes of a failure the one that is told: the smallest that is found."""

SLOW = 5.0
"""From this time scale on a host is slow: there a generated scenario takes minutes."""


def extent(effort: Effort, time_scale: float) -> tuple[int, int]:
    """Return the number of scenarios and of actions in each, which is much smaller on a slow host (pure).

    >>> extent(Effort.NORMAL, 1), extent(Effort.NORMAL, 15)
    ((8, 30), (1, 15))
    """
    examples, steps = EFFORTS[effort]
    return (examples, steps) if time_scale < SLOW else (max(1, examples // 8), max(10, steps // 2))


def search(
    subject: Subject,
    shape: str,
    *,
    seed: int,
    effort: Effort,
    is_known: IsKnown = lambda failure: False,
    smaller: bool = True,
    share: Share | None = None,
    database: ExampleDatabase | None = None,
) -> int:
    """Generate scenarios for a domain of this shape; return the number of observations that were compared.

    :param seed: the same seed gives the same scenarios.
    :param is_known: says of a failure whether it is known: the search goes on for others.
    :param smaller: whether the trace of a failure is shrunk.
    :param share: the slices of the scenarios that are to be played; all of them by default.
    :param database: where runs share what they find: what others have found is played first.
    :raise ConformanceFailure: with the trace of the first failure that is not known; if there is none,
        the first one that is.
    """
    share = share or Share(shape)
    shared: SharedFailures | None = None
    checks = 0
    met: list[ConformanceFailure] = []

    def settled(failure: ConformanceFailure) -> ConformanceFailure:
        return shrink(failure, subject, is_known=is_known, shared=shared) if smaller else failure

    if database is not None:
        shared = SharedFailures(database, subject.driver.hello.implementation, shape)
        checks += _play_known(subject, shared, is_known, settled, met)
    for number in share.slices:
        checks += _search_slice(subject, shape, (seed, number, share.of), effort, is_known, settled, met)
    if met:
        raise met[0]
    return checks


def _play_known(
    subject: Subject,
    shared: SharedFailures,
    is_known: IsKnown,
    settled: Settled,
    met: list[ConformanceFailure],
) -> int:
    """Play what others have found to fail; forget what does not fail any more."""
    checks = 0
    for trace in shared.known():
        if not capabilities(trace) <= subject.capabilities or not makes_sense(trace):
            continue
        try:
            checks += replay(trace, subject).checks
        except ConformanceFailure as failure:
            if not is_known(failure):
                raise settled(failure) from None
            met.append(failure)
        else:
            shared.forget(trace)
    return checks


def _search_slice(
    subject: Subject,
    shape: str,
    drawn_from: tuple[int, int, int],
    effort: Effort,
    is_known: IsKnown,
    settled: Settled,
    met: list[ConformanceFailure],
) -> int:
    """Generate the scenarios of one slice: of the run's seed, a number from 0, and the number of slices."""
    seed, number, of = drawn_from
    scenarios, steps = extent(effort, subject.driver.time_scale)
    scenarios = slice_size(scenarios, number, of)
    if scenarios == 0:
        return 0
    played: list[Scenario] = []
    domain, *able = EXTERNAL_SHAPES.get(shape) or (SHAPES[shape],)
    part = f", slice {number + 1} of {of}" if of > 1 else ""

    class Machine(SnapshotMachine):
        def __init__(self) -> None:
            title = f"generated, {shape}, seed {seed}{part}"
            scenario = Scenario(subject, domain, title=title, thorough=False)
            played.append(scenario)
            super().__init__(scenario, *able, is_known=is_known)

        def teardown(self) -> None:
            super().teardown()
            if self.known_failure is not None:
                met.append(self.known_failure)

    chosen = settings(
        max_examples=scenarios,
        stateful_step_count=steps,
        deadline=None,
        database=None,  # `SharedFailures` keeps traces, which outlive a change of the machine
        phases=(Phase.generate,),  # `shrink` needs far fewer domains than Hypothesis's shrinking
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(hypothesis.seed(slice_seed(seed, number, of))(Machine), settings=chosen)
    except ConformanceFailure as failure:
        raise settled(failure) from None
    except Flaky as error:
        raise HarnessError(f"a failure could not be repeated: {error}") from error
    return sum(scenario.checks for scenario in played)
