# SPDX-License-Identifier: LGPL-2.1-or-later
"""Play a scenario: do each step to a real domain, and compare what comes of it with the model.

`Scenario.play` asks the model what must come of a step, has it done, and lets the oracles look. The first
difference raises `ConformanceFailure` with the clauses that are broken and the trace that leads there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from . import model
from . import protocol as p
from . import trace as do
from .expectations import broken_clauses
from .failures import ConformanceFailure, HarnessError, ImplementationError
from .guest import ProbeClosed, ProbeError, ProbeTimeout
from .live import LiveDomain
from .looking import Observer
from .model import Outcome, World
from .oracles import Aspect, Finding
from .protocol import R
from .subject import Subject
from .trace import DomainOf, Failure, Step, Trace
from .wording import describe, needed

Performer = Callable[[Step, World], str | None]
"""Does a step to a domain that is as the world says; returns the name that a snapshot got.

It raises `ImplementationError` for a refusal, of kind "" where nobody says whose fault it is.
"""


_OF_LISTS = (Aspect.NOT_LISTED, Aspect.LISTED_TOO_MUCH)


def wanted(world: World, step: Step) -> set[str]:
    """Return what the implementation must be able to do for a step in a world."""
    snapshot = world.find(step.name) if isinstance(step, do.Revert | do.Delete) else None
    external = snapshot is not None and bool(snapshot.external)
    return set(needed(step, stopped=world.state == "stopped", external=external))


class Unsupported(Exception):
    """The implementation does not claim to be able to do this."""


class Scenario:
    """A domain, its model, and the steps so far. A context manager: leaving it removes the domain.

    :ivar domain: the real domain.
    :ivar world: the domain as it must be now.
    :ivar before: as it had to be before the last step.
    :ivar steps: what was done, with the refusals that were right.
    :ivar checks: number of observations that were compared with the model.
    """

    def __init__(
        self, subject: Subject, description: DomainOf, *, title: str = "", thorough: bool = True
    ) -> None:
        """Prepare a scenario; nothing runs before `begin`.

        :param thorough: see `Observer`.
        """
        self.subject = subject
        self.title = title
        self.domain = LiveDomain(subject, description)
        self.world = World(description)
        self.before = self.world
        self.steps: list[Step] = []
        self.checks = 0
        self._observer = Observer(self.domain, thorough=thorough)
        self._also: tuple[str, ...] = ()

    @property
    def capabilities(self) -> frozenset[str]:
        """What the implementation claims."""
        return self.subject.capabilities

    def __enter__(self) -> Scenario:
        try:
            self.begin()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def begin(self) -> None:
        """Start the domain.

        :raise HarnessError: if it does not come up: then nothing can be said.
        """
        self.domain.begin()

    def finish(self) -> None:
        """Look at everything, stop the domain, and judge its images while nobody has them open."""
        self.play(do.Check())
        if self.world.state != "stopped":
            self.play(do.Destroy())
        self._judge(self._observer.last_findings(self.world), do.Check())

    def close(self) -> None:
        """Remove the domain and all that belongs to it."""
        self.domain.close()

    # --- steps ----------------------------------------------------------------------------------------------

    def play(self, step: Step, *, by: Performer | None = None, also: tuple[str, ...] = ()) -> None:
        """Do a step and check what came of it.

        :param by: does the step in another way than the driver's verb for it.
        :param also: clauses that are broken, too, if anything is not as the model says.
        :raise ConformanceFailure: if that is not what the model says.
        :raise Unsupported: if the implementation does not claim to be able to do it.
        """
        self._also = also
        if missing := wanted(self.world, step) - self.subject.capabilities:
            raise Unsupported(", ".join(sorted(missing)))
        if not model.possible(self.world, step):
            raise HarnessError(f"step {len(self.steps) + 1} makes no sense: the domain is {self.world.state}")
        self.before = self.world
        outcome = model.apply(self.world, step)
        expected = outcome.refused.kinds[0] if outcome.refused else None
        if (step.refused is None) != (expected is None) and step.refused is not None:
            raise HarnessError(f"step {len(self.steps) + 1} says {step.refused!r}, the model {expected!r}")
        step = msgspec.structs.replace(step, refused=expected)
        self.steps.append(step)
        name, error = self._attempt(step, by or self.domain.perform)
        if error is not None and outcome.permitted is not None:
            outcome = Outcome(self.world, outcome.permitted)
        self._judge_answer(step, outcome, error)
        self.world = outcome.after
        if isinstance(step, do.Create) and name is not None:
            self.world = model.apply(self.before, step, chosen=name).after
            self._judge(self._name_findings(step, name), step)
        self._judge(self._observations(step), step)
        formats = {vdev: image.format for vdev, image in self.domain.chains.present.items()}
        self.world = replace(self.world, formats=formats)
        self._also = ()

    def _attempt(self, step: Step, do_it: Performer) -> tuple[str | None, ImplementationError | None]:
        """Do a step; return the name that a snapshot got, or the refusal."""
        try:
            return do_it(step, self.world), None
        except ImplementationError as error:
            return None, error
        except (ProbeTimeout, ProbeClosed) as error:
            self._fail_silent_guest(step, error)
        except ProbeError as error:
            self._judge([Finding(Aspect.SECTORS, "the guest cannot use its disk", "done", str(error))], step)
        return None, None

    def _judge_answer(self, step: Step, outcome: Outcome, error: ImplementationError | None) -> None:
        refused = outcome.refused
        if refused is None and error is not None:
            finding = Finding(Aspect.ACCEPTED, f"refused: {describe(step)}", "done", str(error))
            self._judge([finding], step)
        if refused is not None and error is None:
            summary = f"accepted, though {refused.reason}"
            self._fail((refused.clause, "XLS-FAIL-002"), summary, f"refused: {refused.reason}", "accepted")
        if refused is not None and error is not None and error.kind not in ("", *refused.kinds):
            finding = Finding(
                Aspect.ERROR_KIND, f"{refused.reason}: refused as {error.kind}", refused.kinds[0], str(error)
            )
            self._judge([finding], step)
        self.checks += 1

    def refuses(
        self,
        request: p.Request[Any],
        clause: str,
        reason: str,
        *,
        kinds: tuple[p.ErrorKind, ...] = ("input",),
    ) -> str:
        """Send a request that must be refused and must change nothing; return the error's text.

        For what steps cannot say: bad configurations, other domains.

        :raise ConformanceFailure: if it is accepted, refused for another reason, or changes something.
        """
        refused = model.Refused(kinds, clause, reason)
        error: ImplementationError | None = None
        self.before = self.world
        self.domain.reconnect()
        try:
            self.subject.call(request)
        except ImplementationError as refusal:
            error = refusal
        step = do.Check(refused=kinds[0])
        self._judge_answer(step, Outcome(self.world, refused), error)
        self._judge(self._observations(step), step)
        return str(error)

    def accepts(self, request: p.Request[R], clauses: tuple[str, ...]) -> R:
        """Send a request that must be carried out, and return its result.

        For what steps cannot say. The model does not hear of it: what it changes must be undone.

        :raise ConformanceFailure: if it is refused.
        """
        self.checks += 1
        try:
            return self.subject.call(request)
        except ImplementationError as error:
            self._fail(clauses, f"{type(request).__name__} was refused", "done", str(error))

    def undisturbed(self, clauses: tuple[str, ...], by: str) -> None:
        """Look at everything after something was done elsewhere that must not touch this domain.

        :raise ConformanceFailure: with `clauses` if anything is not as it was.
        """
        self.before = self.world
        for finding in self._observations(do.Check()):
            self._fail(clauses, f"{by}: {finding.summary}", finding.expected, finding.observed)
        self.checks += 1

    def settle(
        self, worlds: Sequence[World], clauses: tuple[str, ...], what: str, *, step: Step | None = None
    ) -> int:
        """Look at everything after something whose outcome is open; return which of `worlds` it is.

        :param step: the step that led there, if it says what may have changed.
        :raise ConformanceFailure: with `clauses` if it is none of them.
        """
        self.before, known = worlds[0], (self.domain.chains, self.domain.attached)
        self.checks += 1
        complaints: list[Finding] = []
        for index, world in enumerate(worlds):
            self.world = world
            self.domain.chains, self.domain.attached = known
            finding = self._first_finding(step or do.Check())
            if finding is None:
                return index
            complaints.append(finding)
        told = dict.fromkeys(finding.summary for finding in complaints)
        nearest = next((each for each in complaints if each.aspect not in _OF_LISTS), complaints[0])
        self._fail(clauses, f"{what}: {', or '.join(told)}", nearest.expected, nearest.observed)

    def _first_finding(self, step: Step) -> Finding | None:
        try:
            return next(self._observer.findings(step, self.world), None)
        except (ProbeTimeout, ProbeClosed) as error:
            return Finding(Aspect.RUN_STATE, "the guest does not answer", "an answer", str(error))

    # --- looking --------------------------------------------------------------------------------------------

    def _observations(self, step: Step) -> Iterator[Finding]:
        """Yield what differs after a step."""
        try:
            yield from self._observer.findings(step, self.world)
        except (ProbeTimeout, ProbeClosed) as error:
            self._fail_silent_guest(step, error)

    def expect_memory(self, checksum: str, clause: str, summary: str) -> None:
        """Compare the guest's large memory area with a checksum that it gave before."""
        self.checks += 1
        observed = self.domain.guest().memory_sum()
        if observed != checksum:
            self._fail((clause,), summary, checksum, observed)

    def ignore(self, path: Path) -> None:
        """Do not take a thing in the scratch directory for something that was left behind."""
        self._observer.ignored.add(path.name)

    def _name_findings(self, step: do.Create, name: str) -> Iterator[Finding]:
        """A name that was given is the name; another must be an integer near the epoch seconds."""
        if step.name is not None:
            if name != step.name:
                summary = "the snapshot got another name than asked for"
                yield Finding(Aspect.DEFAULT_NAME, summary, step.name, name)
            return
        first, last = self.domain.times[name]
        if not (name.isdecimal() and first <= int(name) <= last + len(self.before.snapshots)):
            summary = "the default name is not the epoch seconds"
            yield Finding(Aspect.DEFAULT_NAME, summary, f"{first} to {last}", name)

    # --- failing --------------------------------------------------------------------------------------------

    def _judge(self, findings: Iterable[Finding], step: Step) -> None:
        self.checks += 1
        for finding in findings:
            clauses = broken_clauses(finding, step, self.before)
            self._fail(clauses, finding.summary, finding.expected, finding.observed)

    def _fail_silent_guest(self, step: Step, error: Exception) -> None:
        """A guest that should run does not answer: say in what state its domain is."""
        state = self.domain.state()
        summary = f"the guest does not answer, its domain is {state}"
        self._judge([Finding(Aspect.RUN_STATE, summary, "running", str(error))], step)

    def _fail(self, clauses: tuple[str, ...], summary: str, expected: Any, observed: Any) -> NoReturn:
        hide = self._for_the_reader
        clauses = tuple(dict.fromkeys((*self._also, *clauses)))
        failure = Failure(
            step=len(self.steps),
            clauses=clauses,
            summary=hide(summary),
            expected=hide(expected),
            observed=hide(observed),
            before=self.before.tree(),
            after=self.world.tree(),
            implementation=self.subject.name,
        )
        trace = self.trace(failure)
        raise ConformanceFailure(
            clauses, failure.summary, expected=failure.expected, observed=failure.observed, trace=trace
        )

    def _for_the_reader(self, value: Any) -> Any:
        """Replace what differs from run to run, so that a trace stays the same."""
        if isinstance(value, str):
            return value.replace(str(self.domain.scratch), do.SCRATCH).replace(self.domain.name, "DOMAIN")
        if isinstance(value, dict):
            return {str(key): self._for_the_reader(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._for_the_reader(item) for item in value]
        return value

    def trace(self, failure: Failure | None = None) -> Trace:
        """Return what was done so far as a trace."""
        clauses = failure.clauses if failure else ()
        return Trace(
            title=self.title,
            clauses=clauses,
            domain=self.world.domain,
            steps=tuple(self.steps),  # type: ignore[arg-type]
            failure=failure,
        )


def replay(trace: Trace, subject: Subject) -> Scenario:
    """Play a trace from beginning to end, with the last look; return the scenario, already closed.

    :raise ConformanceFailure: if the implementation does not do what the model says.
    """
    with Scenario(subject, trace.domain, title=trace.title) as scenario:
        for step in trace.steps:
            scenario.play(step)
        scenario.finish()
    return scenario
