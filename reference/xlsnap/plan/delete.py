# SPDX-License-Identifier: LGPL-2.1-or-later
"""The plans of a deletion: the snapshot goes first, then images that nobody needs apart become one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from .. import steps as do
from ..chain import Merge, with_images
from ..domain import RunState
from ..snapshot import CONFIG_KEY, PARENT_KEY, DomainSnapshot, to_json
from ..steps import DiskImage, Plan, PlannedStep
from .lifecycle import PAUSE
from .observed import ObservedDomain, SnapshotNeeds, snapshot_config, tagged_disks


def descendants(needs: Mapping[str, SnapshotNeeds], name: str) -> list[str]:
    """Return the names of all snapshots that descend from one, each after those that descend from it.

    So every one can be deleted when its turn comes, and an interruption leaves a tree. A parent that is its
    own descendant, which damaged metadata can say, ends the search.
    """
    found: list[str] = []

    def visit(parent: str, path: frozenset[str]) -> None:
        for child in sorted(child for child, item in needs.items() if item.parent == parent):
            if child not in path and child not in found:
                visit(child, path | {child})
                found.append(child)

    visit(name, frozenset({name}))
    return found


def plan_delete(domain: ObservedDomain, snapshot: DomainSnapshot) -> Plan:
    """Plan the removal of `snapshot`: disk snapshots, memory image, metadata.

    It leaves the list first, so that nothing half deleted is ever shown. One step a disk, so that a failure
    at the first one can still be taken back; after that order is of no matter. Images that others read from
    stay.
    """
    unused = domain.unused_after(domain.images(without=snapshot.name))
    drops = [
        PlannedStep(do.DropDiskSnapshots(name=snapshot.name, disks=(image,)))
        for image in tagged_disks(snapshot)
    ]
    adopt = [msgspec.structs.replace(step, beside=bool(drops)) for step in _adopt_children(domain, snapshot)]
    others = len(drops) > 1
    steps = [
        PlannedStep(do.HideMetadata(name=snapshot.name), do.ShowMetadata(name=snapshot.name)),
        *drops[:1],
        *adopt,
        *drops[1:],
        *(
            []
            if snapshot.memory is None
            else [PlannedStep(do.RemoveMemory(path=snapshot.memory), beside=others)]
        ),
        # Not beside: a snapshot may be dropped from an image that is removed.
        *([PlannedStep(do.RemoveImages(paths=unused))] if unused else []),
        PlannedStep(do.ForgetMetadata(name=snapshot.name), beside=others),
    ]
    return Plan(operation="delete", snapshot=snapshot.name, steps=tuple(steps), irrevocable_after=2)


def _adopt_children(domain: ObservedDomain, snapshot: DomainSnapshot) -> Iterator[PlannedStep]:
    """What came from the snapshot comes from its parent from now on."""
    for name in sorted(name for name, item in domain.needs.items() if item.parent == snapshot.name):
        child = domain.snapshots[name]
        extra = {key: value for key, value in child.extra.items() if key != PARENT_KEY}
        if snapshot.parent is not None:
            extra[PARENT_KEY] = snapshot.parent
        adopted = _replace(msgspec.structs.replace(child, extra=extra))
        yield msgspec.structs.replace(adopted, undo=_replace(child).do)
    if domain.current == snapshot.name:
        yield PlannedStep(
            do.UpdateDomain(config=domain.config, current=snapshot.parent),
            do.UpdateDomain(config=domain.config, current=domain.current),
        )


def _replace(snapshot: DomainSnapshot) -> PlannedStep:
    return PlannedStep(do.ReplaceMetadata(name=snapshot.name, content=to_json(snapshot).decode()))


def plan_merge(domain: ObservedDomain, merge: Merge) -> Plan:
    """Plan that two images become one, named as the lower.

    Until all is copied either way of reading gives the same, so that a failure leaves both as they were. The
    guest is paused from the moment that it writes to the lower one until the upper one is gone, so that an
    upper one which exists is always up to date.
    """
    top, base = merge.top, merge.base
    copy = PlannedStep(
        do.CopyDown(top=top, base=base, active=merge.active),
        do.StopCopyingDown(top=top, base=base, active=merge.active),
    )
    remove = PlannedStep(do.RemoveImages(paths=(top.path,)))
    if merge.active:
        config = with_images(domain.config, {top.vdev: base})
        runs = domain.run_state in (RunState.RUNNING, RunState.BLOCKED)
        steps = [
            copy,
            *([PAUSE] if runs else []),
            PlannedStep(do.SwitchDown(top=top, base=base)),
            PlannedStep(do.UpdateDomain(config=config, current=domain.current)),
            remove,
            *([PlannedStep(do.ResumeDomain(if_active=True))] if runs else []),
        ]
        irrevocable_after = 3 if runs else 2
    else:
        over = domain.images().above(top.path)
        steps = [
            copy,
            *(_replace(snapshot) for snapshot in _moved(domain, top, base)),
            *(PlannedStep(do.LayOver(overlay=path, base=base)) for path in over),
            remove,
        ]
        irrevocable_after = 1
    return Plan(operation="merge", snapshot="", steps=tuple(steps), irrevocable_after=irrevocable_after)


def _moved(domain: ObservedDomain, top: DiskImage, base: DiskImage) -> Iterator[DomainSnapshot]:
    """Yield the snapshots whose state was in `top`, as they are with that state in `base`."""
    for name in sorted(domain.needs):
        if not any(need.path == top.path for need in domain.needs[name].disks):
            continue
        snapshot = domain.snapshots[name]
        disks = tuple(
            msgspec.structs.replace(disk, path=base.path, format=base.format)
            if disk.path == top.path
            else disk
            for disk in snapshot.disks
        )
        extra = dict(snapshot.extra)
        if CONFIG_KEY in extra:
            config = snapshot_config(domain, snapshot)
            extra[CONFIG_KEY] = msgspec.to_builtins(with_images(config, {top.vdev: base}))
        yield msgspec.structs.replace(snapshot, disks=disks, extra=extra)
