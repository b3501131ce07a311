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


def search(
    subject: Subject,
    shape: str,
    *,
    seed: int,
    effort: Effort,
    is_known: Callable[[ConformanceFailure], bool] = lambda failure: False,
) -> int:
    """Generate scenarios for a domain of this shape; return the number of observations that were compared.

    :param seed: the same seed gives the same scenarios.
    :param is_known: says of a failure whether it is known: the search goes on for others.
    :raise ConformanceFailure: with the shrunk trace of the first failure that is not known; if there is none,
        the first one that is.
    """
    examples, steps = EFFORTS[effort]
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
        raise shrink(failure, subject, is_known=is_known) from None
    except Flaky as error:
        raise HarnessError(f"a failure could not be repeated: {error}") from error
    if met:
        raise met[0]
    return checks
