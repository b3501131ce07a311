# SPDX-License-Identifier: LGPL-2.1-or-later
"""Operations that are cut short: the driver, a command or the emulator ends in the middle, or space does.

A second driver, beside the suite's own, is asked and killed. Then the next operation on the domain must find
or make it as it was before, or as it should be afterwards.
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xlsnap_conformance import model
from xlsnap_conformance import protocol as p
from xlsnap_conformance import trace as do
from xlsnap_conformance.beside import Second, emulators, wait_until
from xlsnap_conformance.command_line import CommandLine, file_with
from xlsnap_conformance.drivers import command_of
from xlsnap_conformance.failures import ConformanceFailure, HarnessError, ImplementationError
from xlsnap_conformance.fence import Fence
from xlsnap_conformance.model import World
from xlsnap_conformance.plugin import RunContext
from xlsnap_conformance.scenario import Scenario
from xlsnap_conformance.subject import Subject
from xlsnap_conformance.trace import DiskOf, DomainOf, Step
from xlsnap_conformance.wording import describe

from .conftest import Need, NewScenario, Tell

pytestmark = pytest.mark.needs("crash")

LARGE = DomainOf(disks=(DiskOf(vdev="hda"), DiskOf(vdev="xvda")), memory_mib=512)
"""Enough memory for its writing to take a while, also where all of it is zero."""

TWO = DomainOf(disks=(DiskOf(vdev="hda"), DiskOf(vdev="xvda")))

RECOVERED = ("XLS-FAIL-006",)


def needs(need: Need, *capabilities: str) -> None:
    """Skip the test unless all are claimed."""
    for capability in ("memory", "revert", "delete", *capabilities):
        need(capability)


def begin(scenario: Scenario) -> None:
    """Give the domain two snapshots and a working state that is neither."""
    for name in ("one", "two"):
        scenario.play(do.Set(key="a", value=name))
        scenario.play(do.Write(vdev="hda", lba=1, word=name))
        scenario.play(do.Create(name=name))
    scenario.play(do.Set(key="a", value="now"))
    scenario.play(do.Write(vdev="xvda", lba=2, word="now"))


def request_for(scenario: Scenario, step: Step) -> p.Request[Any]:
    """Return the driver's request for a step."""
    domain = scenario.domain.name
    if isinstance(step, do.Create):
        memory = scenario.domain.placed(step).memory
        return p.SnapshotCreate(domain=domain, name=step.name, memory=memory)
    if isinstance(step, do.Revert):
        return p.SnapshotRevert(domain=domain, name=step.name)
    assert isinstance(step, do.Delete)
    return p.SnapshotDelete(domain=domain, name=step.name)


def after(world: World, *steps: Step) -> World:
    """Return the world after steps that are carried out."""
    for step in steps:
        world = model.apply(world, step).after
    return world


def recovers(scenario: Scenario, step: Step, clauses: tuple[str, ...], what: str) -> bool:
    """Take a snapshot, the next operation; say whether the step was finished by then, and not undone.

    :raise ConformanceFailure: with the clauses if the domain is neither as before nor as after the step.
    """
    domain, old = scenario.domain, scenario.world
    known = set(old.names())
    step_name = getattr(step, "name", None)
    following = do.Create(name=f"next-{len(old.snapshots)}")
    domain.reconnect()
    now = int(time.time())
    scenario.accepts(request_for(scenario, following), (*clauses, "XLS-CREATE-001"))
    for name in (step_name, following.name):
        if name is not None and name not in known:
            domain.times[name] = (0, now + 3600)
    worlds = [after(old, following), after(old, step, following)]
    index = scenario.settle(worlds, clauses, what)
    scenario.play(do.Delete(name=str(following.name)), also=clauses)
    return index == 1


@pytest.mark.clauses("XLS-FAIL-006")
def test_killed_while_memory_is_written(new_scenario: NewScenario, need: Need, tell: Tell) -> None:
    """The memory image has begun to grow: the snapshot cannot be complete, and the guest is paused."""
    needs(need, "crash", "memory-path")
    scenario = new_scenario(LARGE)
    begin(scenario)
    step = do.Create(name="cut", memory=f"{do.SCRATCH}/memory")
    memory = scenario.domain.scratch / "memory"
    with Second(scenario.subject) as second:
        scenario.domain.reconnect()
        asked = second.ask(request_for(scenario, step))
        begun = wait_until(memory.exists, asked)
        second.signal(signal.SIGKILL)
        asked.wait()
    if not begun:
        raise HarnessError("the memory image was not seen: nothing would be shown")
    finished = recovers(scenario, step, RECOVERED, "killed while the memory image was being written")
    scenario.finish()
    tell(f"the snapshot was {'finished' if finished else 'undone'} by the next operation")


OPERATIONS: dict[str, tuple[Step, tuple[str, ...]]] = {
    "create": (do.Create(name="cut"), RECOVERED),
    "revert": (do.Revert(name="one"), ("XLS-FAIL-011", "XLS-FAIL-006")),
    "delete": (do.Delete(name="two"), ("XLS-DELETE-011", "XLS-FAIL-006")),
}

KILLS = 3
"""How often an operation is killed, at times spread over what it takes."""


@pytest.mark.parametrize(
    "operation",
    [pytest.param(name, marks=pytest.mark.clauses(*clauses)) for name, (_, clauses) in OPERATIONS.items()],
)
def test_killed_at_any_time(
    operation: str, new_scenario: NewScenario, need: Need, xlsnap_run: RunContext, tell: Tell
) -> None:
    """Once the operation is left alone, to learn how long it takes; then it is killed at times within."""
    needs(need, "crash")
    scenario = new_scenario(TWO)
    step, clauses = OPERATIONS[operation]
    chance = random.Random(f"{xlsnap_run.seed} {operation}")
    begin(scenario)
    seconds = _takes(scenario, step)
    ends = []
    for number in range(KILLS):
        delay = seconds * (number + chance.uniform(0.2, 0.8)) / KILLS
        with Second(scenario.subject) as second:
            second.driver.call(p.SnapshotList(domain=scenario.domain.name))  # what is slow at first
            scenario.domain.flush_before(do.Check())
            scenario.domain.reconnect()
            asked = second.ask(request_for(scenario, step))
            asked.wait(delay)
            second.signal(signal.SIGKILL)
            asked.wait()
        what = f"{describe(step)}: killed after {delay * 1000:.0f} of about {seconds * 1000:.0f} ms"
        finished = recovers(scenario, step, clauses, what)
        ends.append("finished" if finished else "undone")
        if finished:
            _again(scenario, step)
    scenario.finish()
    tell(f"about {seconds * 1000:.0f} ms; killed {KILLS} times: {', '.join(ends)}")


def _takes(scenario: Scenario, step: Step) -> float:
    """Return how long a step takes, in seconds; everything is as before then."""
    with Second(scenario.subject) as second:
        second.driver.call(p.SnapshotList(domain=scenario.domain.name))

        def measured(step: Step, world: World) -> str | None:
            scenario.domain.flush_before(step)
            scenario.domain.reconnect()
            start = time.monotonic()
            second.driver.call(request_for(scenario, step))
            scenario.domain.times.setdefault(str(getattr(step, "name", "")), (0, int(time.time())))
            spent.append(time.monotonic() - start)
            return step.name if isinstance(step, do.Create) else None

        spent: list[float] = []
        scenario.play(step, by=measured)
    _again(scenario, step)
    return spent[0]


def _again(scenario: Scenario, step: Step) -> None:
    """Make it possible to do a step once more."""
    if isinstance(step, do.Create):
        scenario.play(do.Delete(name=str(step.name)))
    elif isinstance(step, do.Revert):
        scenario.play(do.Set(key="a", value="now"))
        scenario.play(do.Write(vdev="hda", lba=1, word="now"))
    elif isinstance(step, do.Delete):
        scenario.play(do.Create(name=step.name))


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.clauses("XLS-FAIL-012")
def test_signal_ends_a_command(name: str, new_scenario: NewScenario, need: Need, tell: Tell) -> None:
    """It comes while the memory image is being written."""
    needs(need, "cli", "crash", "memory-path", "snapshot-config")
    scenario = new_scenario(LARGE)
    domain = scenario.domain
    scenario.play(do.Set(key="a", value="1"))
    memory = domain.scratch / "memory"
    command = CommandLine(scenario.subject)
    file = file_with(domain, f'name = "cut"\nmemory = "{memory}"\n')
    domain.reconnect()
    process = command.start("snapshot-create", str(file), domain.name)
    begun = wait_until(lambda: memory.exists() or process.poll() is not None) and memory.exists()
    process.send_signal(signal.Signals[name])
    ended = command.wait(process, ("snapshot-create", name))
    if not begun:
        raise HarnessError(f"the memory image was not seen: nothing would be shown ({ended})")
    step = do.Create(name="cut", memory=f"{do.SCRATCH}/memory")
    finished = recovers(scenario, step, ("XLS-FAIL-012",), f"a create was ended by {name}")
    if ended.status == 0 and not finished:
        raise ConformanceFailure(
            ("XLS-FAIL-012", "XLS-FAIL-002"),
            f"a command that was ended by {name} tells of success",
            expected="another status than 0",
            observed=str(ended),
        )
    tell(f"status {ended.status}, the snapshot was {'finished' if finished else 'undone'}")


def growing(path: Path) -> Callable[[], bool]:
    """Return a function that says whether a file has grown since it was first seen with something in it.

    A toolstack may make the file, and write its head, before it does anything else.
    """
    head = 0

    def grown() -> bool:
        nonlocal head
        size = path.stat().st_size if path.exists() else 0
        head = head or size
        return size > head

    return grown


@pytest.mark.clauses("XLS-FAIL-004")
def test_emulator_ends_in_a_create(new_scenario: NewScenario, need: Need, tell: Tell) -> None:
    """It is killed while it writes the memory image. The domain is gone; its snapshots are not."""
    needs(need, "crash", "memory-path", "revert-stopped", "list-stopped")
    scenario = new_scenario(LARGE)
    begin(scenario)
    domain, clauses = scenario.domain, ("XLS-FAIL-004",)
    domain.flush_before(do.Check())
    processes = emulators(domain.scratch)
    if not processes:
        raise HarnessError("no process has the domain's images open: nothing can be killed")
    memory = domain.scratch / "memory"
    with Second(scenario.subject) as second:
        domain.reconnect()
        asked = second.ask(request_for(scenario, do.Create(name="cut", memory=f"{do.SCRATCH}/memory")))
        wait_until(growing(memory), asked)
        for process in processes:
            process.kill()
        asked.wait()
    if asked.result is not None:
        raise HarnessError("the snapshot was complete before the emulator was killed: nothing would be shown")
    scenario.accepts(p.SnapshotRevert(domain=domain.name, name="two"), (*clauses, "XLS-REVERT-011"))
    worlds = [after(replace(scenario.world, state="stopped"), do.Revert(name="two"))]
    scenario.settle(worlds, clauses, "the emulator was killed in a create, then the domain was reverted")
    scenario.play(do.Revert(name="one"), also=clauses)
    scenario.finish()
    tell(f"{len(processes)} process killed, create: {asked.error}")


# --- no space -----------------------------------------------------------------------------------------------


class Small:
    """A subject that sees a small file system at ``path``, which nobody else sees."""

    def __init__(self, subject: Subject, path: Path) -> None:
        self.subject = subject
        self.path = path

    def files(self) -> list[str]:
        """Return the names of what is in it."""
        return os.listdir(f"/proc/{self.subject.driver.pid}/root{self.path}")


KIB = 256
"""Size of the small file system: less than any memory image of `LARGE`."""


@pytest.fixture
def small(xlsnap_run: RunContext, need: Need) -> Iterator[Small]:
    """A driver of its own, in a mount namespace of its own."""
    needs(need, "crash", "memory-path")
    with Fence() as fence:
        path = fence.path / "small"
        path.mkdir(mode=0o700)
        mount = f'mount -t tmpfs -o size={KIB}k,mode=700 small "$0" && exec "$@"'
        user = ["--map-root-user"] if os.getuid() else []
        words = ["unshare", *user, "--mount", "sh", "-c", mount, str(path)]
        if _cannot([*words, "true"]):
            pytest.skip("unsupported: nothing can be mounted on this host")
        with Subject(shlex.join([*words, *command_of(xlsnap_run.driver)]), fence) as subject:
            yield Small(subject, path)


def _cannot(command: list[str]) -> bool:
    """Say whether a command fails."""
    if shutil.which(command[0]) is None:
        return True
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    return done.returncode != 0


@pytest.mark.parametrize(
    "live",
    [
        pytest.param(False, id="paused", marks=pytest.mark.clauses("XLS-FAIL-005")),
        pytest.param(True, id="live", marks=pytest.mark.clauses("XLS-LIVE-005")),
    ],
)
def test_no_space_for_memory(live: bool, small: Small, need: Need, tell: Tell) -> None:
    """A snapshot to a roomy place works; one to a small file system fails, and the guest has lost nothing."""
    if live:
        need("live")
    clauses = ("XLS-LIVE-005",) if live else ("XLS-FAIL-005",)
    with Scenario(small.subject, LARGE) as scenario:
        scenario.play(do.Set(key="a", value="1"))
        scenario.play(do.Create(name="roomy", memory=f"{do.SCRATCH}/roomy", live=live))
        scenario.play(do.Set(key="a", value="2"))
        domain = scenario.domain
        domain.reconnect()
        request = p.SnapshotCreate(
            domain=domain.name, name="cramped", memory=str(small.path / "memory"), live=live
        )
        try:
            small.subject.call(request)
        except ImplementationError as error:
            told = str(error)
        else:
            raise ConformanceFailure(
                (*clauses, "XLS-FAIL-002"),
                f"a memory image was written to a file system of {KIB} KiB",
                expected="refused: no space",
                observed=f"done; it has {small.files()}",
            )
        scenario.settle([scenario.world], clauses, "there was no space for a memory image")
        if left := small.files():
            raise ConformanceFailure(
                clauses, "a part of the memory image is left", expected=[], observed=left
            )
        scenario.play(do.Set(key="a", value="3"), also=clauses)
        scenario.play(do.Revert(name="roomy"), also=clauses)
        scenario.finish()
    tell(told)
