# SPDX-License-Identifier: LGPL-2.1-or-later
"""Models that are wrong: under each the suite must find fault with the reference, which is right.

A model that nobody contradicts would let a toolstack pass that is wrong in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace as edited
from typing import Any, cast

from .... import trace as do
from ....model import World, effects, refusals
from .catalogue import mutant, wrap

Effect = Callable[[World, Any], World]


def _effect(step: type[do.Step], change: Callable[[Effect, World, Any], World]) -> None:
    """Let a step have another effect; `change` gets the right one, the world and the step."""
    table = cast("dict[type[do.Step], Effect]", effects.EFFECTS)
    original = table[step]
    table[step] = lambda world, step: change(original, world, step)


@mutant("XLS-MODEL-001", part="model")
def memory_outlives_a_power_cycle() -> None:
    """The model says that the guest's memory outlives a power cycle."""
    _effect(
        do.PowerCycle,
        lambda original, world, step: edited(original(world, step), variables=world.variables),
    )


@mutant("XLS-REVERT-003", part="model")
def memory_does_not_come_back() -> None:
    """The model says that a revert leaves the guest's memory as it is."""
    _effect(do.Revert, lambda original, world, step: edited(original(world, step), variables=world.variables))


@mutant("XLS-REVERT-004", part="model")
def disks_do_not_come_back() -> None:
    """The model says that a revert leaves the disks as they are."""
    _effect(do.Revert, lambda original, world, step: edited(original(world, step), sectors=world.sectors))


@mutant("XLS-REVERT-007", part="model", test="disk-only")
def memory_outlives_a_revert_to_disks() -> None:
    """The model says that the guest goes on after a revert to a disk-only snapshot."""

    def revert(original: Effect, world: World, step: do.Revert) -> World:
        snapshot, after = world.find(step.name), original(world, step)
        keeps = snapshot is not None and not snapshot.has_memory
        return edited(after, variables=world.variables) if keeps else after

    _effect(do.Revert, revert)


@mutant("XLS-REVERT-008", part="model", test="some-disks")
def all_disks_come_back() -> None:
    """The model says that a revert empties the disks that are not part of the snapshot."""

    def revert(original: Effect, world: World, step: do.Revert) -> World:
        snapshot, after = world.find(step.name), original(world, step)
        kept = {} if snapshot is None else {vdev: after.sectors.get(vdev, {}) for vdev in snapshot.disks}
        return edited(after, sectors=kept)

    _effect(do.Revert, revert)


@mutant("XLS-REVERT-005", part="model", test="paused-domain")
def run_state_stays_in_a_revert() -> None:
    """The model says that a domain runs after every revert."""
    _effect(
        do.Revert,
        lambda original, world, step: edited(
            original(world, step), state="paused" if step.paused else "running"
        ),
    )


@mutant("XLS-LIST-001", part="model", test="branches")
def newer_snapshots_are_lost_in_a_revert() -> None:
    """The model says that a revert removes the snapshots that were taken after the one reverted to."""

    def revert(original: Effect, world: World, step: do.Revert) -> World:
        after = original(world, step)
        place = after.names().index(step.name) + 1
        return edited(after, snapshots=after.snapshots[:place])

    _effect(do.Revert, revert)


@mutant("XLS-CREATE-021", part="model")
def memory_is_lost_in_a_create() -> None:
    """The model says that the guest forgets its variables when a snapshot is taken."""
    _effect(do.Create, lambda original, world, step: edited(original(world, step), variables={}))


@mutant("XLS-CREATE-020", part="model", test="paused-domain")
def paused_domain_runs_after_a_create() -> None:
    """The model says that a paused domain runs after a create."""
    _effect(do.Create, lambda original, world, step: edited(original(world, step), state="running"))


@mutant("XLS-DELETE-004", part="model", test="delete-middle")
def descendants_are_deleted_too() -> None:
    """The model says that a delete removes all that descends from the snapshot."""

    def delete(original: Effect, world: World, step: do.Delete) -> World:
        gone = world.descendants(step.name)
        after = original(world, step)
        return edited(after, snapshots=tuple(each for each in after.snapshots if each.name not in gone))

    _effect(do.Delete, delete)


@mutant("XLS-LIST-012", part="model", test="delete-middle")
def children_of_the_deleted_are_roots() -> None:
    """The model says that what hung from a deleted snapshot becomes a root."""

    def delete(original: Effect, world: World, step: do.Delete) -> World:
        after = original(world, step)
        orphans = {each.name for each in world.snapshots if each.parent == step.name}
        snapshots = (edited(each, parent=None) if each.name in orphans else each for each in after.snapshots)
        return edited(after, snapshots=tuple(snapshots))

    _effect(do.Delete, delete)


@mutant("XLS-TERM-002", part="model", test="odd-names")
def spaces_in_names_are_refused() -> None:
    """The model says that a name with a space is refused."""
    wrap(refusals, "bad_name", lambda original, name: " " in name or original(name))


@mutant("XLS-META-010", part="model", test="test_metadata.py::test_metadata[descriptions]")
def memory_images_have_another_name() -> None:
    """The oracles look for memory images as NAME.mem."""
    from ....oracles import metadata

    metadata.MEMORY_SUFFIX = ".mem"


@mutant("XLS-META-007", part="model", test="test_metadata.py::test_metadata[descriptions]")
def files_are_for_all_to_read() -> None:
    """The oracles want metadata files of mode 0644."""
    from ....oracles import metadata

    metadata.FILE_MODE = 0o644
