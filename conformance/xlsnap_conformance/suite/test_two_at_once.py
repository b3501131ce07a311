# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two operations on one domain at the same time, by two drivers in the same directory."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from xlsnap_conformance import model
from xlsnap_conformance import protocol as p
from xlsnap_conformance import trace as do
from xlsnap_conformance.beside import Asked, Second, wait_until
from xlsnap_conformance.failures import ConformanceFailure, HarnessError, ImplementationError
from xlsnap_conformance.model import World
from xlsnap_conformance.trace import Step
from xlsnap_conformance.wording import describe

from .conftest import Need, NewScenario, Tell
from .test_interrupted import LARGE, TWO, begin, needs, request_for

pytestmark = pytest.mark.needs("concurrency")

PAIRS: dict[str, tuple[Step, Step]] = {
    "the same name": (do.Create(name="x"), do.Create(name="x")),
    "two names": (do.Create(name="x"), do.Create(name="y")),
    "create and revert": (do.Create(name="x"), do.Revert(name="one")),
    "delete and revert": (do.Delete(name="one"), do.Revert(name="one")),
    "the same delete": (do.Delete(name="two"), do.Delete(name="two")),
}


def _orders(world: World, done: list[Step]) -> Iterator[World]:
    """Yield the worlds to which steps lead that were all carried out, one after another in any order."""
    for order in itertools.permutations(done):
        now: World | None = world
        for step in order:
            outcome = model.apply(now, step) if now is not None else None
            now = None if outcome is None or outcome.refused is not None else outcome.after
        if now is not None:
            yield now


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.clauses("XLS-FAIL-007")
def test_two_operations(pair: str, new_scenario: NewScenario, need: Need, tell: Tell) -> None:
    """Each is carried out or refused, and the result is that of one after the other."""
    needs(need, "concurrency")
    scenario = new_scenario(TWO)
    begin(scenario)
    domain, clauses, steps = scenario.domain, ("XLS-FAIL-007",), PAIRS[pair]
    domain.flush_before(do.Check())
    start = threading.Barrier(2)
    errors: list[ImplementationError | None] = [None, None]
    with Second(scenario.subject) as second:
        second.driver.call(p.SnapshotList(domain=domain.name))

        def other() -> None:
            start.wait(timeout=30)
            try:
                second.driver.call(request_for(scenario, steps[1]))
            except ImplementationError as error:
                errors[1] = error

        thread = threading.Thread(target=other, daemon=True)
        thread.start()
        domain.reconnect()
        start.wait(timeout=30)
        try:
            scenario.subject.call(request_for(scenario, steps[0]))
        except ImplementationError as error:
            errors[0] = error
        thread.join(timeout=180)
    if thread.is_alive():
        raise ConformanceFailure(clauses, "of two operations at once one has not ended", observed=pair)
    domain.times |= {name: (0, int(time.time())) for name in ("x", "y")}
    done = [step for step, error in zip(steps, errors, strict=True) if error is None]
    told = [f"{describe(step)}: {error or 'done'}" for step, error in zip(steps, errors, strict=True)]
    worlds = list(_orders(scenario.world, done))
    if not worlds or not done:
        summary = "no order of two operations at once leads to what was told of them"
        raise ConformanceFailure(clauses, summary, expected="one after the other", observed=told)
    scenario.settle(worlds, clauses, f"two operations at once ({'; '.join(told)})")
    scenario.finish()
    tell("; ".join(told))


@pytest.mark.clauses("XLS-LIST-010")
def test_a_list_does_not_wait(new_scenario: NewScenario, need: Need, tell: Tell) -> None:
    """It is answered while another driver's create writes its memory image, and shows what is complete."""
    needs(need, "concurrency", "memory-path")
    scenario = new_scenario(LARGE)
    domain, clauses = scenario.domain, ("XLS-LIST-010",)
    scenario.play(do.Create(name="one"))
    with Second(scenario.subject) as second:
        for number in range(4):
            memory = domain.scratch / f"memory-{number}"
            request = p.SnapshotCreate(domain=domain.name, name=f"long-{number}", memory=str(memory))
            domain.reconnect()
            asked = second.ask(request)
            wait_until(memory.exists, asked)
            listed = scenario.accepts(p.SnapshotList(domain=domain.name), clauses)
            meanwhile = asked.running
            _ended(asked, clauses)
            names = [snapshot.name for snapshot in listed.snapshots]
            if meanwhile:
                if f"long-{number}" in names or "one" not in names:
                    summary = "a list shows something else than what is complete"
                    raise ConformanceFailure(("XLS-LIST-003",), summary, expected=["one"], observed=names)
                tell(f"answered while {request.name!r} was being made: {names}")
                return
    summary = "no list was answered before the operation that went on had ended"
    raise ConformanceFailure(clauses, summary, expected="an answer meanwhile", observed="never")


def _ended(asked: Asked, clauses: tuple[str, ...]) -> None:
    if not asked.wait() or asked.died:
        raise HarnessError("the second driver did not answer")
    if asked.error is not None:
        summary = "an operation failed because of a list"
        raise ConformanceFailure(clauses, summary, expected="done", observed=str(asked.error))


BUSY_SECONDS = 30.0
"""How long an operation may wait for another one: "seconds", and a machine that is busy itself."""


@pytest.mark.clauses("XLS-FAIL-009")
def test_a_domain_that_stays_busy(new_scenario: NewScenario, need: Need, tell: Tell) -> None:
    """The other driver is stopped in the middle of a create, and goes on later."""
    needs(need, "concurrency", "memory-path")
    scenario = new_scenario(LARGE)
    domain, clauses = scenario.domain, ("XLS-FAIL-009",)
    scenario.play(do.Create(name="one"))
    memory = domain.scratch / "memory"
    with Second(scenario.subject) as second, Second(scenario.subject) as third:
        domain.reconnect()
        asked = second.ask(p.SnapshotCreate(domain=domain.name, name="slow", memory=str(memory)))
        wait_until(memory.exists, asked)
        second.signal(signal.SIGSTOP)
        try:
            start = time.monotonic()
            waiting = third.ask(p.SnapshotDelete(domain=domain.name, name="one"))
            in_time = waiting.wait(BUSY_SECONDS)
            waited = time.monotonic() - start
        finally:
            second.signal(signal.SIGCONT)
        _ended(asked, clauses)
        waiting.wait()
    if not in_time:
        summary = "an operation waits without limit for a domain that is busy"
        raise ConformanceFailure(clauses, summary, expected=f"an answer in {BUSY_SECONDS:g} s", observed=None)
    if waiting.error is not None and waiting.error.kind != "state":
        summary = "a domain that is busy is told to be another's fault"
        raise ConformanceFailure(clauses, summary, expected="state", observed=str(waiting.error))
    tell(f"after {waited:.1f} s: {waiting.error or 'done'}")
