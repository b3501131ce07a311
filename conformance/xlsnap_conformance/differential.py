# SPDX-License-Identifier: LGPL-2.1-or-later
"""One trace on several implementations and the model, and where they part.

`draft` draws a trace from the model alone. `watch` does it with one implementation and notes after each step
what can be seen, without judging; `foresee` notes the same for the model. Notes of several are compared fact
by fact: no implementation is the right one here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import hypothesis
import msgspec
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.stateful import run_state_machine_as_test

from . import model
from . import protocol as p
from . import trace as do
from .failures import ImplementationError
from .guest import ProbeClosed, ProbeError, ProbeTimeout
from .live import LiveDomain
from .machine import EXTERNAL_SHAPES, SHAPES, SnapshotMachine
from .model import World
from .scenario import wanted
from .subject import Subject
from .trace import DomainOf, Step, Trace

MODEL = "model"
"""The model's name among the implementations."""

Facts = Mapping[str, str]
"""What can be seen after a step: what is looked at ("snapshots", "sector 7 of hda"), and what is there."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A fact that is not the same for all: after which step (from 1), which, and what each has."""

    step: int
    fact: str
    seen: Mapping[str, str]


# --- a trace ----------------------------------------------------------------------------------------------


class _Draft:
    """A stage on which nothing is done: only the model moves, and steps are noted."""

    def __init__(self, domain: DomainOf, able: frozenset[str]) -> None:
        self.world = World(domain)
        self.capabilities = able
        self.steps: list[Step] = []

    def begin(self) -> None: ...

    def play(self, step: Step) -> None:
        outcome = model.apply(self.world, step)
        refused = outcome.refused.kinds[0] if outcome.refused else None
        self.steps.append(msgspec.structs.replace(step, refused=refused))
        self.world = outcome.after

    def finish(self) -> None: ...

    def close(self) -> None: ...


def draft(shape: str, seed: int, able: frozenset[str], *, steps: int = 30) -> Trace:
    """Draw a trace on a domain of this shape that needs no more than ``able``; the same for the same seed."""
    domain, *more = EXTERNAL_SHAPES.get(shape) or (SHAPES[shape],)
    drafts: list[_Draft] = []

    class Machine(SnapshotMachine):
        def __init__(self) -> None:
            drafts.append(_Draft(domain, able))
            super().__init__(drafts[-1], *more)

    chosen = settings(
        max_examples=1,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        verbosity=Verbosity.quiet,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(hypothesis.seed(seed)(Machine), settings=chosen)
    drawn = tuple(drafts[-1].steps)
    return Trace(title=f"drawn, {shape}, seed {seed}", domain=domain, steps=drawn)  # type: ignore[arg-type]


# --- what is seen -----------------------------------------------------------------------------------------


def foresee(trace: Trace) -> list[Facts]:
    """Return what the model says can be seen after each step."""
    world = World(trace.domain)
    seen: list[Facts] = []
    keys: dict[str, None] = {}
    sectors: dict[tuple[str, int], None] = {}
    for step in trace.steps:
        outcome = model.apply(world, step)
        world = outcome.after
        _remember(step, keys, sectors)
        facts = {"answer": f"refused: {outcome.refused.kinds[0]}" if outcome.refused else "done"}
        facts["domain"] = world.state
        facts["snapshots"] = ", ".join(world.names()) or "none"
        if world.state == "running":
            facts |= {f"variable {key}": world.variables.get(key) or "unset" for key in keys}
            facts |= {
                f"sector {lba} of {vdev}": world.word(vdev, lba) or "zeros"
                for vdev, lba in sectors
                if world.disk(vdev) is not None
            }
        seen.append(facts)
    return seen


def watch(trace: Trace, subject: Subject) -> Iterator[Facts]:
    """Do a trace with an implementation; yield what can be seen after each step.

    It ends early where a step that the model has done is refused: what follows builds on it.
    """
    domain = LiveDomain(subject, trace.domain)
    world = World(trace.domain)
    keys: dict[str, None] = {}
    sectors: dict[tuple[str, int], None] = {}
    try:
        domain.begin()
        for step in trace.steps:
            _remember(step, keys, sectors)
            answer = _answer(domain, step, world)
            world = model.apply(world, step).after
            yield {"answer": answer, **_look(domain, world, keys, sectors)}
            if (answer == "done") != (step.refused is None):
                return
    finally:
        domain.close()


def _answer(domain: LiveDomain, step: Step, world: World) -> str:
    if not wanted(world, step) <= domain.subject.capabilities:
        return "unsupported"
    try:
        domain.perform(step, world)
    except ImplementationError as error:
        return f"refused: {error.kind}"
    except (ProbeError, ProbeTimeout, ProbeClosed) as error:
        return f"guest: {error}"
    return "done"


def _remember(step: Step, keys: dict[str, None], sectors: dict[tuple[str, int], None]) -> None:
    if isinstance(step, do.Set):
        keys[step.key] = None
    elif isinstance(step, do.Write):
        sectors[step.vdev, step.lba] = None


def _look(
    domain: LiveDomain, world: World, keys: Mapping[str, None], sectors: Mapping[tuple[str, int], None]
) -> Facts:
    state = domain.state()
    facts = {"domain": "stopped" if state == "absent" else state, "snapshots": _listed(domain)}
    if state != "running":
        return facts
    try:
        guest = domain.guest()
        facts |= {f"variable {key}": guest.get(key) or "unset" for key in keys}
        for vdev, lba in sectors:
            if world.disk(vdev) is not None:
                facts[f"sector {lba} of {vdev}"] = guest.read(domain.disk_number_of[vdev], lba) or "zeros"
    except (ImplementationError, ProbeError, ProbeTimeout, ProbeClosed) as error:
        facts["guest"] = str(error)
    return facts


def _listed(domain: LiveDomain) -> str:
    try:
        listed = domain.subject.call(p.SnapshotList(domain=domain.name)).snapshots
    except ImplementationError as error:
        return f"not listed: {error.kind}"
    return ", ".join(snapshot.name for snapshot in listed) or "none"


# --- comparing --------------------------------------------------------------------------------------------


def differences(notes: Mapping[str, Sequence[Facts]]) -> list[Difference]:
    """Return where facts begin to differ, in the order of the steps; one who has ended says nothing.

    A difference that stays is told once.
    """
    found = []
    before: dict[str, Mapping[str, str]] = {}
    for index in range(max(map(len, notes.values()), default=0)):
        present = {name: facts[index] for name, facts in notes.items() if index < len(facts)}
        for fact in dict.fromkeys(fact for facts in present.values() for fact in facts):
            seen = {name: facts.get(fact, "") for name, facts in present.items()}
            differ = len(set(seen.values())) > 1 and not _cannot_be_asked(fact, seen)
            if differ and before.get(fact) != seen:
                found.append(Difference(index + 1, fact, seen))
            before[fact] = seen if differ else {}
    return found


def _cannot_be_asked(fact: str, seen: Mapping[str, str]) -> bool:
    """Say whether a list of a stopped domain is missing where that is not claimed: no difference."""
    told = {value for value in seen.values() if not value.startswith("not listed")}
    return fact == "snapshots" and len(told) <= 1
