# SPDX-License-Identifier: LGPL-2.1-or-later
"""How a test of the suite ends, when it does not pass.

::

    AssertionError
     +-- ConformanceFailure      the implementation broke a clause                    fail
    Exception
     +-- HarnessError            driver, host or suite failed: nothing is said of     harness-error
     |    |                      the implementation
     |    +-- DriverError        the driver broke the protocol: bad JSON, wrong id, died, too slow
     +-- ImplementationError     the implementation refused a request (protocol error reply)

A test that needs a capability which the driver does not claim ends in ``pytest.skip`` with a reason that
starts with `UNSUPPORTED`; that is "unsupported". An `ImplementationError` never leaves a test: the code that
sent the request knows whether a refusal was right, and raises `ConformanceFailure` if not.

Each test carries ``@pytest.mark.clauses("XLS-AREA-NNN", …)``: all clauses that it can break. A
`ConformanceFailure` names those that were broken, which may be fewer. What a passing test has seen it tells
with ``record_property("observed", text)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .trace import Trace

UNSUPPORTED = "unsupported: "
"""Beginning of the reason of a test that was skipped for want of a capability."""


class ConformanceFailure(AssertionError):
    """The implementation under test broke at least one clause.

    ``summary`` is one line. ``clause_ids`` are the broken clauses, the nearest one first. ``expected`` and
    ``observed`` are plain data (JSON). ``trace`` holds the steps that lead there, with the snapshot tree
    before and after the last one; None for a test that is not made of steps.
    """

    def __init__(
        self,
        clause_ids: Sequence[str],
        summary: str,
        *,
        expected: Any = None,
        observed: Any = None,
        trace: Trace | None = None,
    ) -> None:
        super().__init__(summary)
        self.clause_ids = tuple(clause_ids)
        self.summary = summary
        self.expected = expected
        self.observed = observed
        self.trace = trace

    def __str__(self) -> str:
        lines = [f"{', '.join(self.clause_ids)}: {self.summary}"]
        if self.expected is not None or self.observed is not None:
            lines += [f"  expected: {self.expected}", f"  observed: {self.observed}"]
        if self.trace is not None:
            lines += [f"  step {n}: {text}" for n, text in enumerate(self.trace.describe_steps(), start=1)]
        return "\n".join(lines)


class HarnessError(Exception):
    """Something else than the implementation under test failed: driver, host, console, or the suite."""


class DriverError(HarnessError):
    """The driver itself broke the protocol; ``log`` is the end of what it wrote to its standard error."""

    def __init__(self, message: str, *, log: str = "") -> None:
        super().__init__(f"{message}\n--- driver's log ---\n{log}" if log else message)
        self.message = message
        self.log = log


class ImplementationError(Exception):
    """The implementation refused a request.

    ``kind`` is whose fault it says it is: ``input``, ``state``, ``host``, ``bug``, or ``unsupported`` when it
    cannot do such a thing at all. ``message`` is its own text.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message
