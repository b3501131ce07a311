# SPDX-License-Identifier: LGPL-2.1-or-later
"""The model: what a domain and its snapshots are, and what each step makes of them (pure, no I/O).

`World` is a domain as its guest sees it, with its snapshots. `apply(world, step)` says what must come of a
step: another world, or a refusal with the kind of error and the clause that demands it. `REFUSALS` and
`_EFFECTS` are all there is to it: read them side by side with the specification.

What is checked where, and which clause a wrong observation breaks, is in `expectations`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from typing import Any, Literal

import msgspec

from . import trace as do
from .protocol import ErrorKind
from .trace import DomainOf, Step, Tree, TreeNode

RunState = Literal["running", "paused", "shutdown", "stopped"]

ACTIVE: frozenset[RunState] = frozenset({"running", "paused"})
"""States in which a snapshot can be taken (XLS-CREATE)."""

MAX_NAME_BYTES = 200
MAX_FILE_NAME_BYTES = 255

Variables = Mapping[str, str]
Sectors = Mapping[str, Mapping[int, str]]
"""vdev to sector number to the word in it; a sector that is not there is all zero."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot: all that is needed to have that instant again.

    ``variables`` is None without memory; ``sectors`` has the disks that belong to it and no others. ``lost``
    is what somebody has taken away from it: its ``memory``, or the tag of a vdev.
    """

    name: str
    parent: str | None
    state: RunState
    memory: str
    disks: tuple[str, ...]
    variables: Variables | None
    sectors: Sectors
    description: str = ""
    lost: frozenset[str] = frozenset()

    @property
    def has_memory(self) -> bool:
        """Whether it has a memory image."""
        return self.memory != "no"


@dataclass(frozen=True, slots=True)
class World:
    """A domain, its snapshots (oldest first) and the user's files around it.

    ``current`` is the snapshot that the domain's state came from: the last one taken or reverted to.
    ``files`` are those that the user put somewhere, by path, and ``foreign_tags`` the internal snapshots, by
    vdev and name, that the user made: they must never change.
    """

    domain: DomainOf
    state: RunState = "running"
    variables: Variables = field(default_factory=dict)
    sectors: Sectors = field(default_factory=dict)
    snapshots: tuple[Snapshot, ...] = ()
    current: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    foreign_tags: frozenset[tuple[str, str]] = frozenset()

    def names(self) -> list[str]:
        """Return the names of the snapshots, oldest first."""
        return [snapshot.name for snapshot in self.snapshots]

    def find(self, name: str) -> Snapshot | None:
        """Return the snapshot of this name; "1" is a name like any other."""
        return next((snapshot for snapshot in self.snapshots if snapshot.name == name), None)

    def word(self, vdev: str, lba: int) -> str | None:
        """Return what the guest reads in a sector, None for zeros."""
        return self.sectors.get(vdev, {}).get(lba)

    @property
    def memory_files(self) -> frozenset[str]:
        """Memory images at places of the user's choice."""
        return frozenset(
            snapshot.memory
            for snapshot in self.snapshots
            if snapshot.memory not in ("yes", "no") and "memory" not in snapshot.lost
        )

    @property
    def memory_names(self) -> list[str]:
        """Names of the snapshots with a memory image in the default place."""
        return [s.name for s in self.snapshots if s.memory == "yes" and "memory" not in s.lost]

    def tree(self) -> Tree:
        """Return the tree as reports draw it."""
        return Tree(
            domain_state=self.state,
            snapshots=tuple(
                TreeNode(
                    name=snapshot.name,
                    parent=snapshot.parent,
                    memory=snapshot.has_memory,
                    disks=snapshot.disks,
                    state=snapshot.state,
                    current=snapshot.name == self.current,
                )
                for snapshot in self.snapshots
            ),
        )


@dataclass(frozen=True, slots=True)
class Refused:
    """A step that must be refused. Any of ``kinds`` is right, the first is the best."""

    kinds: tuple[ErrorKind, ...]
    clause: str
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What must come of a step: the world after it, and why it is refused if it is."""

    after: World
    refused: Refused | None = None


def apply(world: World, step: Step, *, chosen: str | None = None) -> Outcome:
    """Say what must come of a step. `chosen` is the name of a snapshot that was created without one."""
    refusals = [rule for rule in REFUSALS if isinstance(step, rule.step) and rule.holds(world, step)]
    if refusals:
        kinds = tuple(dict.fromkeys(kind for rule in refusals for kind in rule.kinds))
        return Outcome(world, Refused(kinds, refusals[0].clause, refusals[0].reason))
    if isinstance(step, do.Create) and step.name is None:
        step = msgspec.structs.replace(step, name=chosen or "(unnamed)")
    return Outcome(_EFFECTS[type(step)](world, step))


# --- what must be refused ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """A reason to refuse a step: when `holds` says so, with an error of one of `kinds`, says `clause`."""

    step: type[Step] | tuple[type[Step], ...]
    kinds: tuple[ErrorKind, ...]
    clause: str
    reason: str
    holds: Callable[[World, Any], bool]


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def bad_name(name: str) -> bool:
    """Say whether a string cannot be the name of a snapshot."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return True
    return (
        not 1 <= size <= MAX_NAME_BYTES
        or name in {".", ".."}
        or name.startswith("-")
        or "/" in name
        or _CONTROL.search(name) is not None
    )


def chosen_disks(world: World, step: do.Create) -> tuple[str, ...]:
    """Return the vdevs of the snapshot in the domain's order: those named, or all that are writable."""
    if step.disks is None:
        return tuple(disk.vdev for disk in world.domain.disks if disk.writable)
    named = {disk.vdev for disk in step.disks}
    return tuple(disk.vdev for disk in world.domain.disks if disk.vdev in named)


def _names(world: World, step: do.Create, test: Callable[[do.DiskOf | None], bool]) -> bool:
    return any(test(world.domain.disk(disk.vdev)) for disk in step.disks or ())


def _raw(world: World, step: do.Create) -> bool:
    external = {disk.vdev for disk in step.disks or () if disk.type == "external"}
    chosen = set(chosen_disks(world, step)) - external
    return any(disk.vdev in chosen and disk.writable and disk.format == "raw" for disk in world.domain.disks)


def _tags_wanted(world: World, step: do.Create) -> set[tuple[str, str]]:
    return {(vdev, step.name) for vdev in chosen_disks(world, step)} if step.name is not None else set()


def _points_at(world: World, text: str) -> bool:
    """Say whether a careless toolstack could take a text for one of the names."""
    places = {str(place) for place in range(len(world.snapshots) + 1)}
    return text in places or any(name.startswith(text) or fnmatch(name, text) for name in world.names())


def _has_path(step: do.Create) -> bool:
    return step.memory not in ("yes", "no")


REFUSALS: tuple[Rule, ...] = (
    Rule(
        do.Create, ("state", "input"), "XLS-CREATE-001", "the domain is neither running nor paused",
        lambda world, step: world.state not in ACTIVE,
    ),
    Rule(
        do.Create, ("input",), "XLS-CREATE-002", "the name is taken",
        lambda world, step: step.name is not None and world.find(step.name) is not None,
    ),
    Rule(
        do.Create, ("input",), "XLS-TERM-002", "the name breaks the rules for names",
        lambda world, step: step.name is not None and bad_name(step.name),
    ),
    Rule(
        do.Create, ("input",), "XLS-CREATE-003", "a disk is named that the domain does not have",
        lambda world, step: _names(world, step, lambda disk: disk is None),
    ),
    Rule(
        do.Create, ("input",), "XLS-CREATE-004", "a disk is named twice",
        lambda world, step: len({disk.vdev for disk in step.disks or ()}) < len(step.disks or ()),
    ),
    Rule(
        do.Create, ("input",), "XLS-CREATE-005", "a read-only disk is named",
        lambda world, step: _names(world, step, lambda disk: disk is not None and not disk.writable),
    ),
    Rule(do.Create, ("input",), "XLS-CREATE-006", "a raw image cannot hold an internal snapshot", _raw),
    Rule(
        do.Create, ("input",), "XLS-CREATE-008", "there is neither memory nor a disk to snapshot",
        lambda world, step: step.memory == "no" and not chosen_disks(world, step),
    ),
    Rule(
        do.Create, ("input",), "XLS-CREATE-007", "the memory image's path is not absolute",
        lambda world, step: _has_path(step) and not step.memory.startswith(("/", do.SCRATCH)),
    ),
    Rule(
        do.Create, ("input",), "XLS-CREATE-007", "something exists where the memory image should go",
        lambda world, step: step.memory in {*world.files, *world.memory_files},
    ),
    Rule(
        do.Create, ("host", "input", "state"), "XLS-CREATE-011", "an image has a tag of this name already",
        lambda world, step: not world.foreign_tags.isdisjoint(_tags_wanted(world, step)),
    ),
    Rule(
        do.Create, ("host", "input"), "XLS-FAIL-002", "no file can have a name as long as the memory image's",
        lambda world, step: len(step.memory.rpartition("/")[2].encode()) > MAX_FILE_NAME_BYTES,
    ),
    Rule(
        (do.Revert, do.Delete), ("input",), "XLS-TERM-006", "part of a name, a pattern or a place is no name",
        lambda world, step: world.find(step.name) is None and _points_at(world, step.name),
    ),
    Rule(
        do.Revert, ("input",), "XLS-REVERT-001", "there is no such snapshot",
        lambda world, step: world.find(step.name) is None,
    ),
    Rule(
        do.Revert, ("state", "input", "host"), "XLS-REVERT-002", "a part of the snapshot is lost",
        lambda world, step: bool((found := world.find(step.name)) and found.lost),
    ),
    Rule(
        do.Delete, ("input",), "XLS-DELETE-001", "there is no such snapshot",
        lambda world, step: world.find(step.name) is None,
    ),
)  # fmt: skip
"""All reasons to refuse a step. The first that holds gives the clause."""


# --- what steps do ----------------------------------------------------------------------------------------


def _set(world: World, step: do.Set) -> World:
    return replace(world, variables={**world.variables, step.key: step.value})


def _write(world: World, step: do.Write) -> World:
    disk = {**world.sectors.get(step.vdev, {}), step.lba: step.word}
    return replace(world, sectors={**world.sectors, step.vdev: disk})


def _becomes(state: RunState) -> Callable[[World, Step], World]:
    return lambda world, step: replace(world, state=state)


def _power_off(world: World, step: do.PowerOff) -> World:
    return replace(world, state="shutdown" if world.domain.on_poweroff == "preserve" else "stopped")


def _started(world: World, *, paused: bool = False) -> World:
    """A fresh start: what was in memory is gone, what was on disks stays."""
    return replace(world, state="paused" if paused else "running", variables={})


def _power_cycle(world: World, step: do.PowerCycle) -> World:
    return _started(world)


def _start(world: World, step: do.Start) -> World:
    return _started(world, paused=step.paused)


def _create(world: World, step: do.Create) -> World:
    """The domain goes on as it was; nothing but the list is new. A dry run changes nothing."""
    if step.dry_run:
        return world
    assert step.name is not None
    disks = chosen_disks(world, step)
    snapshot = Snapshot(
        name=step.name,
        parent=world.current,
        state=world.state,
        memory=step.memory,
        disks=disks,
        variables=world.variables if step.memory != "no" else None,
        sectors={vdev: world.sectors.get(vdev, {}) for vdev in disks},
        description=step.description or "",
    )
    return replace(world, snapshots=(*world.snapshots, snapshot), current=snapshot.name)


def _revert(world: World, step: do.Revert) -> World:
    """Its disks are as they were, other disks stay; with memory also memory and run state.

    Without memory the domain starts afresh. All snapshots stay.
    """
    snapshot = world.find(step.name)
    assert snapshot is not None
    back = replace(world, sectors={**world.sectors, **snapshot.sectors}, current=snapshot.name)
    if snapshot.variables is None:
        return _started(back, paused=step.paused)
    return replace(back, variables=snapshot.variables, state="paused" if step.paused else snapshot.state)


def _delete(world: World, step: do.Delete) -> World:
    """It is gone and nothing else is; its children hang from its parent."""
    gone = world.find(step.name)
    assert gone is not None
    left = tuple(
        replace(snapshot, parent=gone.parent) if snapshot.parent == gone.name else snapshot
        for snapshot in world.snapshots
        if snapshot is not gone
    )
    return replace(
        world, snapshots=left, current=gone.parent if world.current == gone.name else world.current
    )


def _put_file(world: World, step: do.PutFile) -> World:
    return replace(world, files={**world.files, step.path: step.content})


def _put_tag(world: World, step: do.PutTag) -> World:
    return replace(world, foreign_tags=world.foreign_tags | {(step.vdev, step.name)})


def _lose(world: World, step: do.Lose) -> World:
    return replace(
        world,
        snapshots=tuple(
            replace(snapshot, lost=snapshot.lost | {step.what}) if snapshot.name == step.name else snapshot
            for snapshot in world.snapshots
        ),
    )


def _nothing(world: World, step: Step) -> World:
    return world


_EFFECTS: dict[type[Step], Callable[[World, Any], World]] = {
    do.Set: _set,
    do.Write: _write,
    do.Pause: _becomes("paused"),
    do.Unpause: _becomes("running"),
    do.PowerCycle: _power_cycle,
    do.PowerOff: _power_off,
    do.Destroy: _becomes("stopped"),
    do.Start: _start,
    do.Create: _create,
    do.Revert: _revert,
    do.Delete: _delete,
    do.PutFile: _put_file,
    do.PutTag: _put_tag,
    do.Lose: _lose,
    do.List: _nothing,
    do.Check: _nothing,
}


def possible(world: World, step: Step) -> bool:
    """Say whether a step makes sense: only a running guest writes, only what is there can get lost."""
    if isinstance(step, do.Lose):
        snapshot = world.find(step.name)
        there = snapshot is not None and step.what not in snapshot.lost
        return there and (step.what == "memory" or world.state == "stopped")
    return world.state in _POSSIBLE.get(type(step), ("running", "paused", "shutdown", "stopped"))


_POSSIBLE: dict[type[Step], tuple[RunState, ...]] = {
    do.Set: ("running",),
    do.Write: ("running",),
    do.PowerOff: ("running",),
    do.Pause: ("running",),
    do.Unpause: ("paused",),
    do.PowerCycle: ("running", "paused", "shutdown"),
    do.Destroy: ("running", "paused", "shutdown"),
    do.Start: ("stopped",),
    do.PutTag: ("stopped",),
}
