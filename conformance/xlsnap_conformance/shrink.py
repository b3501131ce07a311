# SPDX-License-Identifier: LGPL-2.1-or-later
"""Make a trace that fails as small as it can be: leave out steps, then what the steps say beyond need.

A domain must be started for each try. So this works on traces and asks the model which steps still make
sense; Hypothesis's own shrinking works on the draws behind the steps and wastes many more tries.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import msgspec

from . import trace as do
from .failures import ConformanceFailure, HarnessError
from .model import World, apply, possible
from .scenario import replay
from .sharing import SharedFailures
from .subject import Subject
from .trace import Step, Trace

DEFAULT_SECONDS = 60.0

TRIES = 25
"""So many tries there are at least, however slow the implementation is, within `LONGEST_SECONDS`."""

LONGEST_SECONDS = 300.0


def shrink(
    failure: ConformanceFailure,
    subject: Subject,
    *,
    seconds: float = DEFAULT_SECONDS,
    is_known: Callable[[ConformanceFailure], bool] = lambda failure: False,
    shared: SharedFailures | None = None,
) -> ConformanceFailure:
    """Return a failure that breaks one of the same clauses, by as small a trace as is found within `seconds`.

    With a slow implementation it may take longer: see `TRIES`.

    The result is `failure` itself if nothing smaller fails so. One that `is_known` is no result.

    :param shared: where others find what is found here, and what they find is taken from.
    """
    search = _Search(failure, subject, seconds, is_known, shared)
    search.tell(None)
    while search.improve(_fewer_steps) or search.improve(_fewer_disks) or search.improve(_plainer_steps):
        pass
    return search.best


class _Search:
    def __init__(
        self,
        failure: ConformanceFailure,
        subject: Subject,
        seconds: float,
        is_known: Callable[[ConformanceFailure], bool],
        shared: SharedFailures | None,
    ) -> None:
        self.best = failure
        self.shared = shared
        self.is_known = is_known
        self.clause_ids = frozenset(failure.clause_ids)
        self.subject = subject
        self.begin = time.monotonic()
        self.end = self.begin + seconds
        self.longest = 0.0
        self.tried: set[bytes] = set()

    def improve(self, candidates: Callable[[Trace], Iterator[Trace]]) -> bool:
        """Try what a function makes of the best trace until one fails in the same way; say if one did."""
        trace = self.best.trace
        if trace is None:
            return False
        for candidate in self._smaller_of_others(trace):
            if self._fails(candidate):
                return True
        for candidate in candidates(msgspec.structs.replace(trace, failure=None)):
            if time.monotonic() > self.end:
                return False
            if self._fails(candidate):
                return True
        return False

    def tell(self, before: Trace | None) -> None:
        """Let others know of the best trace, which takes the place of the one before."""
        if self.shared is None or self.best.trace is None:
            return
        self.shared.keep(self.best.trace)
        if before is not None:
            self.shared.forget(before)

    def _smaller_of_others(self, trace: Trace) -> list[Trace]:
        """Return what others have found meanwhile that is smaller."""
        known = self.shared.known() if self.shared is not None else []
        return [other for other in known if len(other.steps) < len(trace.steps)]

    def _fails(self, candidate: Trace) -> bool:
        key = msgspec.json.encode(candidate)
        if key in self.tried or not makes_sense(candidate):
            return False
        self.tried.add(key)
        begin = time.monotonic()
        try:
            replay(candidate, self.subject)
        except ConformanceFailure as failure:
            if set(failure.clause_ids) & self.clause_ids and not self.is_known(failure):
                before, self.best = self.best, failure
                self.tell(before.trace)
                return True
        except HarnessError:
            self.end = 0.0  # what was found so far is worth more than what broke the search
        finally:
            self._allow_for(time.monotonic() - begin)
        return False

    def _allow_for(self, seconds: float) -> None:
        """Let the search take longer where one try takes long."""
        self.longest = max(self.longest, seconds)
        if self.end > 0.0:
            self.end = max(self.end, self.begin + min(TRIES * self.longest, LONGEST_SECONDS))


def makes_sense(trace: Trace) -> bool:
    """Say whether all steps of a trace are possible, and those are refused that say so."""
    world = World(trace.domain)
    for step in trace.steps:
        if not possible(world, step):
            return False
        outcome = apply(world, step)
        if (outcome.refused is None) != (step.refused is None):
            return False
        world = outcome.after
    return True


def _fewer_steps(trace: Trace) -> Iterator[Trace]:
    """Yield the trace without some of its steps: half of them, a quarter, …, one; never without the last."""
    size = max(1, (len(trace.steps) - 1) // 2)
    while size:
        for start in range(max(0, len(trace.steps) - 1 - size), -1, -size):
            kept = trace.steps[:start] + trace.steps[min(start + size, len(trace.steps) - 1) :]
            if len(kept) < len(trace.steps):
                yield msgspec.structs.replace(trace, steps=kept)
        size //= 2


def _fewer_disks(trace: Trace) -> Iterator[Trace]:
    """Yield the trace with one disk less, without the steps that need it."""
    for gone in trace.domain.disks[1:]:
        disks = tuple(disk for disk in trace.domain.disks if disk is not gone)
        steps = tuple(step for step in trace.steps if not _needs(step, gone.vdev))
        domain = msgspec.structs.replace(trace.domain, disks=disks)
        yield msgspec.structs.replace(trace, domain=domain, steps=steps)


def _needs(step: Step, vdev: str) -> bool:
    if isinstance(step, do.Create):
        return any(disk.vdev == vdev for disk in step.disks or ())
    if isinstance(step, do.Start):
        return vdev in (step.disks or ())
    return getattr(step, "vdev", None) == vdev or getattr(step, "what", None) == vdev


_PLAIN: dict[str, object] = {
    "description": None,
    "as_config": False,
    "disks": None,
    "memory": "yes",
    "paused": False,
    "type": "internal",
    "live": False,
    "children": False,
    "children_only": False,
}
"""Members of steps, and the value that says least."""


def _plainer_steps(trace: Trace) -> Iterator[Trace]:
    """Yield the trace with one member of one step as plain as can be."""
    for index, step in enumerate(trace.steps):
        for member, plain in _PLAIN.items():
            if getattr(step, member, plain) != plain:
                plainer = msgspec.structs.replace(step, **{member: plain})
                steps = (*trace.steps[:index], plainer, *trace.steps[index + 1 :])
                yield msgspec.structs.replace(trace, steps=steps)
