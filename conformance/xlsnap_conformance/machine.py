# SPDX-License-Identifier: LGPL-2.1-or-later
"""Generated scenarios: a Hypothesis state machine that draws steps, plays them and shrinks what fails.

Each rule draws one or two steps and plays them; `scenario.Scenario` does the checking. Words and values
that the guest writes rise with each write, so that no two states of the guest look alike. The rules are
weighted so that trees grow deep: deleting and power cycles are rarer than work, create and revert.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from . import trace as do
from .failures import HarnessError
from .model import ACTIVE, World, possible
from .profiles import Effort
from .protocol import DiskChoice
from .scenario import Scenario
from .subject import Subject
from .trace import SCRATCH, DiskOf, DomainOf, Step
from .wording import needed

SHAPES: dict[str, DomainOf] = {
    "one-disk": DomainOf(disks=(DiskOf(vdev="hda"),)),
    "two-disks": DomainOf(disks=(DiskOf(vdev="hda"), DiskOf(vdev="xvda"))),
    "read-only-disks": DomainOf(
        disks=(
            DiskOf(vdev="hda"),
            DiskOf(vdev="xvda", readonly=True),
            DiskOf(vdev="hdc", format="raw", cdrom=True),
        )
    ),
    "raw-disk": DomainOf(disks=(DiskOf(vdev="hda"), DiskOf(vdev="hdb", format="raw"))),
}
"""Domains that scenarios are generated for."""

EFFORTS: dict[Effort, tuple[int, int]] = {
    Effort.QUICK: (2, 15),
    Effort.NORMAL: (6, 30),
    Effort.DEEP: (60, 60),
}
"""Number of scenarios for each shape, and of rules in each."""

# Names that have been taken for something else: internal ids, options' values, files, other encodings.
GOOD_NAMES = ("1", "2", "3", "base", "a b", "yes", "base.save", "schnee-☃", "$HOME", "'\"", "d.1", "a%20b")
BAD_NAMES = ("", ".", "..", "a/b", "-n", "a\nb", "é" * 101, "\x7f")
KEYS = ("a", "b", "c")
LBAS = (1, 7, 2047)

_MAX_SNAPSHOTS = 8


class SnapshotMachine(RuleBasedStateMachine):
    """Draws and plays steps on one domain."""

    def __init__(self, subject: Subject, domain: DomainOf, title: str) -> None:
        super().__init__()
        self.failed = False
        self.counter = 0
        self.scenario = Scenario(subject, domain, title=title)
        try:
            self.scenario.begin()
        except BaseException:
            self.scenario.close()
            raise

    @property
    def world(self) -> World:
        """The domain as it must be."""
        return self.scenario.world

    def play(self, step: Step) -> None:
        """Play a step, unless the implementation does not claim to be able to; remember if it failed."""
        wanted = set(needed(step, stopped=self.world.state == "stopped"))
        if not wanted <= self.scenario.subject.capabilities:
            return
        try:
            self.scenario.play(step)
        except BaseException:
            self.failed = True
            raise

    def teardown(self) -> None:
        """Take the last look, unless something has failed already, and remove the domain."""
        try:
            if not self.failed:
                self.scenario.finish()
        finally:
            self.scenario.close()

    def unique(self, letter: str) -> str:
        """Return a word that was not written before."""
        self.counter += 1
        return f"{letter}{self.counter}"

    def fresh_name(self, data: st.DataObject) -> str:
        """Draw a name that no snapshot has."""
        taken = {snapshot.name for snapshot in self.world.snapshots}
        return data.draw(st.sampled_from([name for name in GOOD_NAMES if name not in taken]), label="name")

    def some_snapshot(self, data: st.DataObject) -> str:
        """Draw the name of a snapshot, one of the newest first."""
        return data.draw(st.sampled_from([s.name for s in reversed(self.world.snapshots)]), label="snapshot")

    def writable(self) -> list[DiskOf]:
        """Return the disks that the guest can write to."""
        return [disk for disk in self.world.domain.disks if disk.writable]

    # --- the guest works ----------------------------------------------------------------------------------

    @precondition(lambda self: self.world.state == "running")
    @rule(key=st.sampled_from(KEYS))
    def guest_sets(self, key: str) -> None:
        """The guest changes its memory."""
        self.play(do.Set(key=key, value=self.unique("v")))

    @precondition(lambda self: self.world.state == "running")
    @rule(data=st.data(), lba=st.sampled_from(LBAS))
    def guest_writes(self, data: st.DataObject, lba: int) -> None:
        """The guest changes a disk."""
        disk = data.draw(st.sampled_from(self.writable()), label="disk")
        self.play(do.Write(vdev=disk.vdev, lba=lba, word=self.unique("w")))

    @precondition(lambda self: self.world.state == "running")
    @rule(key=st.sampled_from(KEYS), lba=st.sampled_from(LBAS))
    def guest_works(self, key: str, lba: int) -> None:
        """The guest changes its memory and all its disks."""
        self.play(do.Set(key=key, value=self.unique("v")))
        for disk in self.writable():
            self.play(do.Write(vdev=disk.vdev, lba=lba, word=self.unique("w")))

    # --- the domain's life --------------------------------------------------------------------------------

    @precondition(lambda self: self.world.state in ACTIVE)
    @rule()
    def pause_or_unpause(self) -> None:
        """Pause a running domain, let a paused one run."""
        self.play(do.Pause() if self.world.state == "running" else do.Unpause())

    @precondition(lambda self: self.world.state == "stopped" or len(self.world.snapshots) >= 2)
    @rule(power_cycle=st.booleans(), paused=st.booleans())
    def stop_or_start(self, power_cycle: bool, paused: bool) -> None:
        """Power cycle or destroy an active domain, start a stopped one."""
        if self.world.state == "stopped":
            self.play(do.Start(paused=paused))
        else:
            self.play(do.PowerCycle() if power_cycle else do.Destroy())

    # --- snapshots ----------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.state in ACTIVE and len(self.world.snapshots) < _MAX_SNAPSHOTS)
    @rule(
        data=st.data(),
        memory=st.sampled_from(("yes", "no", "path")),
        description=st.sampled_from((None, "before the upgrade", 'quotes " and \\')),
        as_config=st.booleans(),
    )
    def create(self, data: st.DataObject, memory: str, description: str | None, as_config: bool) -> None:
        """Take a snapshot, of all disks or of some."""
        disks = self.choice_of_disks(data)
        if memory == "no" and disks == ():
            memory = "yes"
        if memory == "path":
            memory = f"{SCRATCH}/{self.unique('memory')}"
        self.play(
            do.Create(
                name=self.fresh_name(data),
                description=description,
                memory=memory,
                disks=disks,
                as_config=as_config,
            )
        )

    def choice_of_disks(self, data: st.DataObject) -> tuple[DiskChoice, ...] | None:
        """Draw the disks of a snapshot: all, or a subset of those that can hold one."""
        able = [disk.vdev for disk in self.writable() if disk.format == "qcow2"]
        everything_is_able = len(able) == len(self.writable())
        if everything_is_able and (len(able) < 2 or data.draw(st.booleans(), label="all disks")):
            return None
        vdevs = data.draw(st.sets(st.sampled_from(able), min_size=1), label="disks")
        return tuple(DiskChoice(vdev=vdev) for vdev in sorted(vdevs))

    @precondition(lambda self: self.world.snapshots)
    @rule(data=st.data(), paused=st.sampled_from((False, False, True)))
    def revert(self, data: st.DataObject, paused: bool) -> None:
        """Revert to any snapshot."""
        self.play(do.Revert(name=self.some_snapshot(data), paused=paused))

    @precondition(lambda self: len(self.world.snapshots) >= 2)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """Delete any snapshot."""
        self.play(do.Delete(name=self.some_snapshot(data)))

    # --- requests that must be refused ----------------------------------------------------------------------

    @rule(data=st.data())
    def bad_request(self, data: st.DataObject) -> None:
        """Ask for something that must be refused and must change nothing."""
        make = data.draw(st.sampled_from(sorted(_BAD_REQUESTS)), label="bad request")
        step = _BAD_REQUESTS[make](self, data)
        if step is not None and possible(self.world, step):
            self.play(step)


def _duplicate(machine: SnapshotMachine, data: st.DataObject) -> Step | None:
    return do.Create(name=machine.some_snapshot(data)) if machine.world.snapshots else None


def _bad_name(machine: SnapshotMachine, data: st.DataObject) -> Step | None:
    return do.Create(name=data.draw(st.sampled_from(BAD_NAMES), label="bad name"))


def _wrong_disk(machine: SnapshotMachine, data: st.DataObject) -> Step | None:
    """A disk that does not exist, cannot be written, cannot hold a snapshot, or is named twice."""
    vdevs = {disk.vdev for disk in machine.world.domain.disks if not disk.writable or disk.format == "raw"}
    wrong = data.draw(st.sampled_from(["hdd", "hda", *sorted(vdevs)]), label="wrong disk")
    return do.Create(name=machine.fresh_name(data), disks=(DiskChoice(vdev="hda"), DiskChoice(vdev=wrong)))


def _occupied_memory(machine: SnapshotMachine, data: st.DataObject) -> Step | None:
    path = f"{SCRATCH}/occupied"
    if path not in machine.world.files:
        return do.PutFile(path=path)
    return do.Create(name=machine.fresh_name(data), memory=path)


def _unwritable_memory(machine: SnapshotMachine, data: st.DataObject) -> Step | None:
    """A path that nobody finds wrong before the file is made: the name is too long for a file."""
    return do.Create(name=machine.fresh_name(data), memory=f"{SCRATCH}/{'m' * 300}")


def _unknown(machine: SnapshotMachine, data: st.DataObject) -> Step | None:
    name = machine.fresh_name(data)
    return data.draw(st.sampled_from((do.Revert(name=name), do.Delete(name=name))), label="unknown")


_BAD_REQUESTS: dict[str, Callable[[SnapshotMachine, Any], Step | None]] = {
    "duplicate name": _duplicate,
    "bad name": _bad_name,
    "wrong disk": _wrong_disk,
    "memory path taken": _occupied_memory,
    "memory path unwritable": _unwritable_memory,
    "unknown snapshot": _unknown,
}


def search(subject: Subject, shape: str, *, seed: int, effort: Effort, shrink: bool = True) -> int:
    """Generate scenarios for a domain of this shape; return the number of observations that were compared.

    :param seed: the same seed gives the same scenarios.
    :raise ConformanceFailure: with the shrunk trace of the first failure.
    """
    examples, steps = EFFORTS[effort]
    checks = 0

    class Machine(SnapshotMachine):
        def __init__(self) -> None:
            super().__init__(subject, SHAPES[shape], f"generated, {shape}, seed {seed}")

        def teardown(self) -> None:
            nonlocal checks
            super().teardown()
            checks += self.scenario.checks

    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=phases,
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(hypothesis.seed(seed)(Machine), settings=chosen)
    except Flaky as error:
        raise HarnessError(f"a failure could not be repeated: {error}") from error
    return checks
