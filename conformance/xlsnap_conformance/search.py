# SPDX-License-Identifier: LGPL-2.1-or-later
"""Search generated scenarios for a failure, and shrink it."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

from .failures import ConformanceFailure, HarnessError
from .machine import EXTERNAL_SHAPES, SHAPES, SnapshotMachine
from .profiles import Effort
from .shrink import shrink
from .subject import Subject

EFFORTS: dict[Effort, tuple[int, int]] = {
    Effort.QUICK: (2, 15),
    Effort.NORMAL: (8, 30),
    Effort.DEEP: (60, 60),
}
"""Number of scenarios for each shape, and of actions in each."""

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
    is_known: Callable[[ConformanceFailure], bool] = lambda failure: False,
    smaller: bool = True,
) -> int:
    """Generate scenarios for a domain of this shape; return the number of observations that were compared.

    :param seed: the same seed gives the same scenarios.
    :param is_known: says of a failure whether it is known: the search goes on for others.
    :param smaller: whether the trace of a failure is shrunk.
    :raise ConformanceFailure: with the trace of the first failure that is not known; if there is none,
        the first one that is.
    """
    examples, steps = extent(effort, subject.driver.time_scale)
    checks = 0
    met: list[ConformanceFailure] = []
    domain, *able = EXTERNAL_SHAPES.get(shape) or (SHAPES[shape],)

    class Machine(SnapshotMachine):
        def __init__(self) -> None:
            title = f"generated, {shape}, seed {seed}"
            super().__init__(subject, domain, title, *able, is_known=is_known)

        def teardown(self) -> None:
            nonlocal checks
            super().teardown()
            checks += self.scenario.checks
            if self.known_failure is not None:
                met.append(self.known_failure)

    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=(Phase.generate,),  # `shrink` needs far fewer domains than Hypothesis's shrinking
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(hypothesis.seed(seed)(Machine), settings=chosen)
    except ConformanceFailure as failure:
        raise shrink(failure, subject, is_known=is_known) if smaller else failure from None
    except Flaky as error:
        raise HarnessError(f"a failure could not be repeated: {error}") from error
    if met:
        raise met[0]
    return checks
