# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a step does that is not refused, and which steps make sense."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from .. import trace as do
from ..trace import Step
from .world import RunState, Snapshot, World, choices

OVERLAY_FORMAT = "qcow2"


def _set(world: World, step: do.Set) -> World:
    return replace(world, variables={**world.variables, step.key: step.value})


def _write(world: World, step: do.Write) -> World:
    disk = {**world.sectors.get(step.vdev, {}), step.lba: step.word}
    return replace(world, sectors={**world.sectors, step.vdev: disk})


def _zero(world: World, step: do.Zero) -> World:
    gone = range(step.lba, step.lba + step.count)
    disk = {lba: word for lba, word in world.sectors.get(step.vdev, {}).items() if lba not in gone}
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
    attached = world.attached if step.disks is None else step.disks
    return replace(_started(world, paused=step.paused), attached=attached)


def _create(world: World, step: do.Create) -> World:
    """The domain goes on as it was; nothing but the list is new. A dry run changes nothing."""
    if step.dry_run:
        return world
    assert step.name is not None
    chosen = choices(world, step)
    disks = tuple(choice.vdev for choice in chosen)
    external = {choice.vdev: choice for choice in chosen if choice.type == "external"}
    snapshot = Snapshot(
        name=step.name,
        parent=world.current,
        state=world.state,
        memory=step.memory,
        disks=disks,
        variables=world.variables if step.memory != "no" else None,
        sectors={vdev: world.sectors.get(vdev, {}) for vdev in disks},
        description=step.description or "",
        external=frozenset(external),
        attached=tuple(disk.vdev for disk in world.disks),
    )
    return replace(
        world,
        snapshots=(*world.snapshots, snapshot),
        current=snapshot.name,
        formats={**world.formats, **dict.fromkeys(external, OVERLAY_FORMAT)},
        overlaid=world.overlaid | external.keys(),
        targets=world.targets | {choice.target for choice in external.values() if choice.target},
    )


def _revert(world: World, step: do.Revert) -> World:
    """Its disks are as they were, other disks stay; with memory also memory and run state.

    The domain has the disks that it had then. Without memory it starts afresh. All snapshots stay.
    """
    snapshot = world.find(step.name)
    assert snapshot is not None
    back = replace(
        world,
        sectors={**world.sectors, **snapshot.sectors},
        current=snapshot.name,
        attached=snapshot.attached,
        formats={**world.formats, **dict.fromkeys(snapshot.disks, OVERLAY_FORMAT)},
        targets=frozenset(),
    )
    if snapshot.variables is None:
        return _started(back, paused=step.paused)
    return replace(back, variables=snapshot.variables, state="paused" if step.paused else snapshot.state)


def _delete(world: World, step: do.Delete) -> World:
    """It is gone, or its descendants, or both; what hung from one that is gone hangs from its parent."""
    gone = world.descendants(step.name) if step.children or step.children_only else frozenset()
    gone = gone if step.children_only else gone | {step.name}
    parents = {snapshot.name: snapshot.parent for snapshot in world.snapshots}

    def left(name: str | None) -> str | None:
        while name in gone:
            name = parents[name]
        return name

    snapshots = tuple(
        replace(snapshot, parent=left(snapshot.parent))
        for snapshot in world.snapshots
        if snapshot.name not in gone
    )
    return replace(world, snapshots=snapshots, current=left(world.current), targets=frozenset())


def _put_file(world: World, step: do.PutFile) -> World:
    return replace(world, files={**world.files, step.path: step.content})


def _put_link(world: World, step: do.PutLink) -> World:
    return replace(world, links=world.links | {step.path})


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


EFFECTS: Mapping[type[Step], Callable[[World, Any], World]] = {
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
    do.PutLink: _put_link,
    do.PutTag: _put_tag,
    do.Zero: _zero,
    do.Lose: _lose,
    do.List: _nothing,
    do.Check: _nothing,
}


def possible(world: World, step: Step) -> bool:
    """Say whether a step makes sense: only a running guest writes, only what is there can get lost."""
    if isinstance(step, do.Lose):
        return _can_lose(world, step)
    if isinstance(step, do.Write | do.Zero) and world.disk(step.vdev) is None:
        return False
    if isinstance(step, do.Start) and not all(world.domain.disk(vdev) for vdev in step.disks or ()):
        return False
    if isinstance(step, do.PutTag) and step.vdev in world.overlaid:
        return False
    return world.state in _POSSIBLE.get(type(step), ("running", "paused", "shutdown", "stopped"))


def _can_lose(world: World, step: do.Lose) -> bool:
    """Images that others read from are not lost here: nothing would be left to compare."""
    snapshot = world.find(step.name)
    if snapshot is None or step.what in snapshot.lost:
        return False
    if step.what in snapshot.external:
        read_from = world.descendants(step.name) or world.current == step.name
        return world.state == "stopped" and snapshot.parent is not None and not read_from
    return step.what == "memory" or world.state == "stopped"


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
    do.Zero: ("stopped",),
}
