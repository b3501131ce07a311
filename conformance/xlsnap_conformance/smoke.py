# SPDX-License-Identifier: LGPL-2.1-or-later
"""Check a driver itself before anything is judged with it, and say what is wrong with it.

It asks for one domain and one snapshot and looks at nothing but the driver: that it starts, keeps to the
protocol, reaches the guest, says what it does, and leaves nothing behind. What the implementation refuses is
told, and never held against the driver. `CHECKS` are all checks, in their order.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from .failures import DriverError, HarnessError, ImplementationError
from .fence import Fence
from .guest import ProbeClosed, ProbeError, ProbeTimeout
from .protocol import VERBS
from .smoke_checks import CHECKS as CHECKS
from .smoke_checks import Bench, Skipped, Slow, Wrong

LIMITS = {name: min(verb.seconds, 60.0) for name, verb in VERBS.items()} | {"hello": 20.0}
"""How long each verb may take here, in seconds."""


class Outcome(StrEnum):
    """How a check ended."""

    OK = "ok"
    REFUSED = "refused"
    """The implementation refused what was asked: no fault of the driver's, as far as can be seen."""
    SLOW = "slow"
    SKIPPED = "skipped"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has found; ``text`` is one line, ``log`` the end of the driver's log if it broke down."""

    check: str
    outcome: Outcome
    text: str
    log: str = ""


_MAY_BE_REFUSED = frozenset({"takes a snapshot", "reverts", "deletes"})
"""Checks of the operations under test: that they are refused is for the suite to judge."""

_GOES_ON = frozenset({"tells what can be done", "refuses a verb that it does not know", "is quick"})
"""Checks whose failure does not keep the next one from making sense."""


def smoke(command: str, fence: Fence, *, limits: Mapping[str, float] | None = None) -> Iterator[Finding]:
    """Check a driver; yield what each check finds. After one without which nothing works the rest is skipped.

    :param command: as after ``--driver``.
    :param limits: time limits in seconds by verb, instead of `LIMITS`.
    """
    bench = Bench(command, {**LIMITS, **(limits or {})}, fence, name=fence.new_name(), uuid=str(uuid.uuid4()))
    stopped = ""
    try:
        for check, function in CHECKS.items():
            if stopped and check != "is quick":
                yield Finding(check, Outcome.SKIPPED, stopped)
                continue
            finding = _carry_out(check, function, bench)
            yield finding
            refused = finding.outcome is Outcome.REFUSED and check not in _MAY_BE_REFUSED
            if (finding.outcome is Outcome.WRONG and check not in _GOES_ON) or refused:
                stopped = "not tried after that"
    finally:
        for driver in (bench.driver, bench.subject and bench.subject.driver):
            if driver is not None:
                with suppress(HarnessError):
                    driver.close()


def _carry_out(check: str, function: Callable[[Bench], str], bench: Bench) -> Finding:
    try:
        return Finding(check, Outcome.OK, function(bench))
    except Wrong as error:
        return Finding(check, Outcome.WRONG, str(error))
    except Skipped as error:
        return Finding(check, Outcome.SKIPPED, str(error))
    except Slow as error:
        return Finding(check, Outcome.SLOW, str(error))
    except DriverError as error:
        return Finding(check, Outcome.WRONG, error.message, error.log)
    except ImplementationError as error:
        if error.kind == "unsupported" and check not in _MAY_BE_REFUSED:
            return Finding(check, Outcome.WRONG, f"refused as unsupported: {error.message}")
        return Finding(check, Outcome.REFUSED, str(error))
    except (ProbeClosed, ProbeTimeout, ProbeError) as error:
        return Finding(check, Outcome.WRONG, f"the guest does not answer: {error}")
    except HarnessError as error:
        return Finding(check, Outcome.WRONG, str(error).partition("\n")[0])
