# SPDX-License-Identifier: LGPL-2.1-or-later
"""Generated scenarios: a Hypothesis state machine that draws steps and plays them.

`ACTIONS` says what may happen, and how often; each draws one or more steps and plays them, and
`scenario.Scenario` does the checking. Words and values that the guest writes rise with each write, so that
no two states of the guest look alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from . import trace as do
from .failures import ConformanceFailure
from .model import ACTIVE, World, possible
from .protocol import DiskChoice
from .scenario import wanted
from .trace import SCRATCH, DiskOf, DomainOf, Step

SHAPES: dict[str, DomainOf] = {
    "one-disk": DomainOf(disks=(DiskOf(vdev="hda"),)),
    "two-disks": DomainOf(disks=(DiskOf(vdev="hda"), DiskOf(vdev="xvde"))),
    "read-only-disks": DomainOf(
        disks=(
            DiskOf(vdev="hda"),
            DiskOf(vdev="xvde", readonly=True),
            DiskOf(vdev="hdc", format="raw", cdrom=True),
        )
    ),
    "raw-disk": DomainOf(disks=(DiskOf(vdev="hda"), DiskOf(vdev="hdb", format="raw"))),
}
"""Domains that scenarios with internal snapshots are generated for.

Beside hda to hdd they have disks from xvde on: a PV guest of Xen calls hda xvda.
"""

EXTERNAL_SHAPES: dict[str, tuple[DomainOf, *tuple[str, ...]]] = {
    "external": (DomainOf(disks=(DiskOf(vdev="hda"),)), "external"),
    "external-raw": (DomainOf(disks=(DiskOf(vdev="hda", format="raw"), DiskOf(vdev="xvde"))), "external"),
    "mixed": (
        DomainOf(disks=(DiskOf(vdev="hda"), DiskOf(vdev="hdb", format="raw"), DiskOf(vdev="xvde"))),
        *("external", "mixed"),
    ),
}
"""Domains for scenarios with external snapshots, and the capabilities that those need beyond core."""

# Names that have been taken for something else: internal ids, options' values, files, other encodings.
GOOD_NAMES = ("1", "2", "3", "base", "a b", "yes", "base.save", "schnee-☃", "$HOME", "'\"", "d.1", "a%20b")
BAD_NAMES = ("", ".", "..", "a/b", "-n", "a\nb", "é" * 101, "\x7f")
KEYS = ("a", "b", "c")
LBAS = (1, 7, 2047)

DESCRIPTIONS = (None, "before the upgrade", 'quotes " and \\')
MAX_SNAPSHOTS = 8


class Stage(Protocol):
    """What steps are played on: a `Scenario` with its domain, or something that only looks like one."""

    @property
    def world(self) -> World:
        """The domain as it must be now."""

    @property
    def capabilities(self) -> frozenset[str]:
        """What can be played."""

    def begin(self) -> None:
        """Start the domain."""

    def play(self, step: Step) -> None:
        """Do a step."""

    def finish(self) -> None:
        """Take a last look."""

    def close(self) -> None:
        """Remove the domain."""


class SnapshotMachine(RuleBasedStateMachine):
    """Draws and plays steps on one domain."""

    def __init__(
        self,
        scenario: Stage,
        *able: str,
        is_known: Callable[[ConformanceFailure], bool] = lambda failure: False,
    ) -> None:
        super().__init__()
        self.able = able
        self.is_known = is_known
        self.known_failure: ConformanceFailure | None = None
        self.playing = False
        self.counter = 0
        self.scenario = scenario

    @initialize(number=st.integers(0, 2**16))
    def begin(self, number: int) -> None:
        """Start the domain, but not for the simplest choice of everything.

        That is what Hypothesis always tries first: a scenario in which the guest works and nothing happens.
        """
        hypothesis.assume(number)
        self.scenario.begin()
        self.playing = True

    @property
    def world(self) -> World:
        """The domain as it must be."""
        return self.scenario.world

    @property
    def type(self) -> Literal["internal", "external"]:
        """The type of the disks of a snapshot that is of no certain disks."""
        return "external" if "external" in self.able else "internal"

    def play(self, step: Step) -> None:
        """Play a step, unless the implementation does not claim to be able to; remember if it failed.

        At a failure that is known the scenario ends: nothing more is played.
        """
        if self.known_failure is not None:
            return
        if not wanted(self.world, step) <= self.scenario.capabilities:
            return
        try:
            self.scenario.play(step)
        except ConformanceFailure as failure:
            self.playing = False
            if not self.is_known(failure):
                raise
            self.known_failure = failure
        except BaseException:
            self.playing = False
            raise

    def teardown(self) -> None:
        """Take the last look, unless something has failed already or nothing began, and remove the domain."""
        try:
            if self.playing:
                self.scenario.finish()
        except ConformanceFailure as failure:
            if not self.is_known(failure):
                raise
            self.known_failure = failure
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

    def choice_of_disks(self, data: st.DataObject) -> tuple[DiskChoice, ...] | None:
        """Draw the disks of a snapshot: all, or a subset of those that can hold one."""
        if "external" in self.able:
            return self.external_disks(data)
        able = [disk.vdev for disk in self.writable() if disk.format == "qcow2"]
        everything_is_able = len(able) == len(self.writable())
        if everything_is_able and (len(able) < 2 or data.draw(st.booleans(), label="all disks")):
            return None
        vdevs = data.draw(st.sets(st.sampled_from(able), min_size=1), label="disks")
        return tuple(DiskChoice(vdev=vdev) for vdev in sorted(vdevs))

    def external_disks(self, data: st.DataObject) -> tuple[DiskChoice, ...]:
        """Draw the disks of a snapshot and the type of each; where types are not mixed it is one for all."""
        vdevs = [disk.vdev for disk in self.writable()]
        chosen = vdevs
        if len(vdevs) > 1 and not data.draw(st.booleans(), label="all disks"):
            chosen = sorted(data.draw(st.sets(st.sampled_from(vdevs), min_size=1), label="disks"))
        disks = [disk for disk in self.writable() if disk.vdev in chosen]
        internal_for_all = all(self.world.format_of(disk) == "qcow2" for disk in disks)
        types = st.sampled_from(("external", "external", "internal"))
        one = data.draw(types, label="type") if internal_for_all else "external"
        return tuple(
            self.external_disk(data, disk.vdev)
            if (data.draw(types, label=f"type of {disk.vdev}") if "mixed" in self.able else one) == "external"
            or self.world.format_of(disk) == "raw"
            else DiskChoice(vdev=disk.vdev)
            for disk in disks
        )

    def external_disk(self, data: st.DataObject, vdev: str) -> DiskChoice:
        """Draw where the overlay of an external disk goes: to a target or to the default place."""
        target = (
            f"{SCRATCH}/{self.unique('overlay')}.qcow2" if data.draw(st.booleans(), label="target") else None
        )
        return DiskChoice(vdev=vdev, type="external", target=target)

    @rule(data=st.data())
    def act(self, data: st.DataObject) -> None:
        """Do one thing of those that make sense now.

        One rule for all: Hypothesis would leave out some of several rules in each scenario, which is good for
        thousands of scenarios and bad for the few that real domains allow.
        """
        if self.known_failure is not None:
            return
        possible_now = [action for action in ACTIONS if action.makes_sense(self.world)]
        # Deletes are what merges images: where there are overlays they come more often.
        more = 3 if "external" in self.able else 0
        weighted = [a.name for a in possible_now for _ in range(a.weight + more * (a.name == "delete"))]
        name = data.draw(st.sampled_from(weighted), label="action")
        next(action for action in possible_now if action.name == name).do(self, data)


@dataclass(frozen=True, slots=True)
class Action:
    """Something that a scenario may do next, and how often it does."""

    name: str
    weight: int
    makes_sense: Callable[[World], bool]
    do: Callable[[SnapshotMachine, st.DataObject], None]


def _guest_sets(machine: SnapshotMachine, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(KEYS), label="key")
    machine.play(do.Set(key=key, value=machine.unique("v")))


def _guest_writes(machine: SnapshotMachine, data: st.DataObject) -> None:
    disk = data.draw(st.sampled_from(machine.writable()), label="disk")
    lba = data.draw(st.sampled_from(LBAS), label="sector")
    machine.play(do.Write(vdev=disk.vdev, lba=lba, word=machine.unique("w")))


def _guest_works(machine: SnapshotMachine, data: st.DataObject) -> None:
    """The guest changes its memory and all its disks."""
    _guest_sets(machine, data)
    lba = data.draw(st.sampled_from(LBAS), label="sector")
    for disk in machine.writable():
        machine.play(do.Write(vdev=disk.vdev, lba=lba, word=machine.unique("w")))


def _pause_or_unpause(machine: SnapshotMachine, data: st.DataObject) -> None:
    machine.play(do.Pause() if machine.world.state == "running" else do.Unpause())


def _power_cycle(machine: SnapshotMachine, data: st.DataObject) -> None:
    machine.play(do.PowerCycle())


def _stop_or_start(machine: SnapshotMachine, data: st.DataObject) -> None:
    if machine.world.state != "stopped":
        machine.play(do.Destroy())
    else:
        machine.play(do.Start(paused=data.draw(st.booleans(), label="paused")))


def _create(machine: SnapshotMachine, data: st.DataObject) -> None:
    """Take a snapshot, of all disks or of some."""
    memory = data.draw(st.sampled_from(("yes", "yes", "no", "path")), label="memory")
    machine.play(
        do.Create(
            name=machine.fresh_name(data),
            description=data.draw(st.sampled_from(DESCRIPTIONS), label="description"),
            memory=f"{SCRATCH}/{machine.unique('memory')}" if memory == "path" else memory,
            disks=machine.choice_of_disks(data),
            as_config=data.draw(st.booleans(), label="as configuration file"),
        )
    )


def _revert(machine: SnapshotMachine, data: st.DataObject) -> None:
    paused = data.draw(st.sampled_from((False, False, False, True)), label="paused")
    machine.play(do.Revert(name=machine.some_snapshot(data), paused=paused))


def _delete(machine: SnapshotMachine, data: st.DataObject) -> None:
    machine.play(do.Delete(name=machine.some_snapshot(data)))


def _bad_request(machine: SnapshotMachine, data: st.DataObject) -> None:
    """Ask for something that must be refused and must change nothing."""
    kind = data.draw(st.sampled_from(sorted(_BAD_REQUESTS)), label="bad request")
    if "external" in machine.able:
        kind = data.draw(st.sampled_from((kind, "target")), label="bad target instead")
    step = _bad_target(machine, data) if kind == "target" else _BAD_REQUESTS[kind](machine, data)
    if step is not None and possible(machine.world, step):
        machine.play(step)


def _running(world: World) -> bool:
    return world.state == "running"


def _active(world: World) -> bool:
    return world.state in ACTIVE


ACTIONS: tuple[Action, ...] = (
    Action("guest works", 6, _running, _guest_works),
    Action("guest sets", 1, _running, _guest_sets),
    Action("guest writes", 1, _running, _guest_writes),
    Action("create", 5, lambda world: _active(world) and len(world.snapshots) < MAX_SNAPSHOTS, _create),
    Action("revert", 5, lambda world: bool(world.snapshots), _revert),
    Action("delete", 2, lambda world: len(world.snapshots) >= 3, _delete),
    Action("pause or unpause", 2, _active, _pause_or_unpause),
    Action("power cycle", 1, lambda world: _active(world) and bool(world.snapshots), _power_cycle),
    Action("stop or start", 1, lambda world: bool(world.snapshots), _stop_or_start),
    Action("bad request", 2, lambda world: True, _bad_request),
)
"""What a scenario may do; the weights make trees grow deep before they are cut."""


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
    return do.Create(name=machine.fresh_name(data), memory=path, type=machine.type)


def _unwritable_memory(machine: SnapshotMachine, data: st.DataObject) -> Step | None:
    """A path at which no file can be made, which is found out late."""
    link = f"{SCRATCH}/proc"
    if link not in machine.world.links:
        return do.PutLink(path=link)
    return do.Create(name=machine.fresh_name(data), memory=f"{link}/memory", type=machine.type)


def _unknown(machine: SnapshotMachine, data: st.DataObject) -> Step | None:
    name = machine.fresh_name(data)
    return data.draw(st.sampled_from((do.Revert(name=name), do.Delete(name=name))), label="unknown")


def _bad_target(machine: SnapshotMachine, data: st.DataObject) -> Step | None:
    """An overlay that would go where something is, or where nothing can be."""
    disk = data.draw(st.sampled_from(machine.writable()), label="disk")
    targets = (
        disk.image,
        "overlay.qcow2",
        f"{SCRATCH}/missing/overlay.qcow2",
        *sorted(machine.world.targets),
    )
    target = data.draw(st.sampled_from(targets), label="bad target")
    choice = DiskChoice(vdev=disk.vdev, type="external", target=target)
    return do.Create(name=machine.fresh_name(data), disks=(choice,))


_BAD_REQUESTS: dict[str, Callable[[SnapshotMachine, Any], Step | None]] = {
    "duplicate name": _duplicate,
    "bad name": _bad_name,
    "wrong disk": _wrong_disk,
    "memory path taken": _occupied_memory,
    "memory path unwritable": _unwritable_memory,
    "unknown snapshot": _unknown,
}
