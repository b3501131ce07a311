# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an implementation can do though it does not claim it: which trace shows that, and whether it plays.

A trace shows a capability when a step that must be carried out needs it: whoever refuses everything plays a
trace whose steps must be refused, too.
"""

from __future__ import annotations

from collections.abc import Iterable

from . import model
from .coverage import ORDER
from .failures import ConformanceFailure, HarnessError
from .model import World
from .scenario import Unsupported, replay, wanted
from .subject import Subject
from .trace import Trace
from .wording import capabilities

_UNSEEN = frozenset({"live"})
"""Capabilities of steps that end alike without them: whether the guest went on is no matter of a trace."""


def shown(trace: Trace) -> frozenset[str]:
    """Return the capabilities that an implementation has which plays a trace as the model says."""
    found: set[str] = set()
    world = World(trace.domain)
    for step in trace.steps:
        outcome = model.apply(world, step)
        if outcome.refused is None and outcome.permitted is None:
            found |= wanted(world, step)
        world = outcome.after
    return frozenset(found - _UNSEEN)


def shortest(capability: str, claimed: frozenset[str], traces: Iterable[Trace]) -> Trace | None:
    """Return the shortest trace that shows a capability and needs nothing else that is not claimed.

    None where there is none: then nothing can be said of the capability.
    """
    able = claimed | {capability}
    fit = (
        trace
        for trace in traces
        if capability in shown(trace)
        and capabilities(trace) <= able
        and (ORDER not in trace.clauses or "list-order" in able)
    )
    return min(fit, key=lambda trace: len(trace.steps), default=None)


def works(trace: Trace, capability: str, subject: Subject) -> bool:
    """Say whether a trace ends as the model says, when a capability is taken for claimed.

    A driver that breaks down over what it does not claim has broken no promise.
    """
    try:
        with subject.trying(capability):
            replay(trace, subject)
    except (ConformanceFailure, HarnessError, Unsupported):
        return False
    return True
