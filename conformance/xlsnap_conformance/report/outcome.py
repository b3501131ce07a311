# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the end of a test means: from the exception that left it to a status with evidence.

The table of exceptions and statuses is in `xlsnap_conformance.failures`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest

from ..failures import UNSUPPORTED, ConformanceFailure, DriverError, HarnessError, ImplementationError
from ..results import Evidence, Status, TestResult
from ..script import to_shell
from ..trace import Trace
from . import text


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error``, or what is in it when it is a group (Hypothesis groups what it found)."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def culprit(error: BaseException) -> BaseException:
    """Return the exception that says most of ``error``: a broken clause before anything else."""
    found = list(leaves(error))
    return next((e for e in found if isinstance(e, ConformanceFailure)), found[0] if found else error)


def classify(error: BaseException | None, *, in_test: bool, expected: bool = False) -> Status:
    """Return the status that an exception means.

    ``in_test`` is False for set-up and tear-down, where an assertion says nothing of the implementation.
    ``expected`` is True when the test is marked as one that is known to fail.
    """
    match error:
        case None:
            return Status.PASS
        case pytest.skip.Exception():
            return Status.UNSUPPORTED if str(error).startswith(UNSUPPORTED) else Status.BLOCKED
        case pytest.xfail.Exception():
            return Status.KNOWN
        case ConformanceFailure():
            return Status.KNOWN if expected else Status.FAIL
        case AssertionError() if in_test:
            return Status.KNOWN if expected else Status.FAIL
        case _:
            return Status.HARNESS_ERROR


def message(error: BaseException) -> str:
    """Return one line that says what happened."""
    match error:
        case ConformanceFailure():
            return error.summary
        case DriverError():
            return f"driver: {error.message}"
        case HarnessError():
            return str(error).partition("\n")[0]
        case ImplementationError():
            return f"the suite did not expect this refusal: {error}"
        case pytest.skip.Exception():
            return str(error).removeprefix(UNSUPPORTED)
        case AssertionError():
            return str(error).partition("\n")[0] or "assertion failed"
        case _:
            return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def shareable(trace: Trace, names: Mapping[str, str]) -> Trace:
    """Return ``trace`` as it can be written as JSON, without the user's directories in what was observed.

    The steps stay as they are: they are what ``replay`` does again.
    """
    data = text.encodable(msgspec.to_builtins(trace))
    data["failure"] = _redacted(data.get("failure"), names)
    return msgspec.convert(data, Trace)


def _redacted(value: Any, names: Mapping[str, str]) -> Any:
    match value:
        case str():
            return text.redact(value, names)
        case dict():
            return {key: _redacted(item, names) for key, item in value.items()}
        case list():
            return [_redacted(item, names) for item in value]
        case _:
            return value


def result(
    test: str,
    clauses: tuple[str, ...],
    error: BaseException | None,
    *,
    status: Status,
    seconds: float = 0.0,
    observed: str | None = None,
    unclaimed: tuple[str, ...] = (),
    log: str = "",
    traceback: str = "",
    names: Mapping[str, str] | None = None,
    dialect: str = "xl",
) -> TestResult:
    """Return the typed result of a test that ended with ``error``; all its texts are safe to show.

    ``names`` are the directories that `text.redact` hides, ``dialect`` is that of the script.
    """

    def clean(value: str, limit: int = text.TEXT_LIMIT) -> str:
        return text.visible(text.redact(value, names or {}), limit)

    def tidy(value: Any) -> str | None:
        return None if value is None else clean(text.json_text(value))

    evidence = Evidence(
        expected=tidy(getattr(error, "expected", None)),
        observed=tidy(getattr(error, "observed", None)) or tidy(observed),
        log=text.tail(text.redact("\n".join(filter(None, (traceback, log))), names or {})) or None,
    )
    trace = getattr(error, "trace", None)
    if isinstance(trace, Trace):
        trace = shareable(trace, names or {})
        evidence = msgspec.structs.replace(
            evidence,
            trace=trace,
            script=text.encodable(to_shell(trace, dialect)),
            steps=tuple(text.one_line(step) for step in trace.describe_steps()),
        )
    return TestResult(
        id=test,
        status=status,
        clauses=clauses,
        broken=tuple(getattr(error, "clause_ids", ())),
        seconds=round(seconds, 3),
        message="" if error is None else text.one_line(text.redact(message(error), names or {})),
        evidence=evidence,
        unclaimed=unclaimed,
    )


def unreportable(test: str, clauses: tuple[str, ...], failure: Exception) -> TestResult:
    """Return the result of a test whose evidence could not be made into a report."""
    said = text.one_line(f"{type(failure).__name__}: {failure}")
    return TestResult(
        id=test, status=Status.HARNESS_ERROR, clauses=clauses, message=f"cannot report this test: {said}"
    )
