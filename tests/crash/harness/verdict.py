# SPDX-License-Identifier: LGPL-2.1-or-later
"""After an operation was cut short: is the world in its old state or in its new one, and sound?"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fork_server import guests
from meanwhile import late_words, wrong_fate
from observation import Observation, ask_guest, damage, inspect, look, remains
from world import DISKS, DOMAIN, HISTORY, PRESENT, UUID, Operation, World, recover, run
from xlsnap import savefile
from xlsnap.errors import XlsnapError
from xlsnap.snapshot import DomainSnapshot, SnapshotType
from xlsnap.toolstack import Toolstack


class Violation(AssertionError):
    """The world is in no state that is allowed, or does not do what it should."""


@dataclass(frozen=True)
class Aftermath:
    """What is known of an operation that has ended, and what may excuse the state of the world.

    ``succeeded``: it said so. ``guest_died``: the domain may be stopped. Clusters of images may be lost where
    the guest died or the disk failed. ``wrote_late``: the guest has written after the operation had ended.
    """

    succeeded: bool = False
    guest_died: bool = False
    disk_failed: bool = False
    wrote_late: bool = False


@dataclass(frozen=True)
class Survey:
    """What an operation does when nobody disturbs it.

    ``stages`` are the states in which it may be cut short for good, by name, from ``old`` to ``new``: those
    between its plans. ``events`` are its kill points.
    """

    events: tuple[str, ...]
    stages: Mapping[str, Observation]


async def examine(
    toolstack: Toolstack, world: World, operation: Operation, survey: Survey, aftermath: Aftermath
) -> str:
    """Let the next command recover, and judge the result; return the name of the stage that it is.

    :raise Violation: if it is a third state, or something else is wrong.
    """
    check_nothing(incomplete(toolstack, world))
    try:
        await recover(toolstack)
    except XlsnapError as error:
        raise Violation(f"the next command fails: {error}") from error
    allowed = {
        name: state for name, state in survey.stages.items() if name != "old" or not aftermath.succeeded
    }
    stage = match(
        await look(toolstack, world),
        allowed,
        guest_died=aftermath.guest_died,
        disk_failed=aftermath.disk_failed,
    )
    check_nothing(remains(world))
    if aftermath.wrote_late:
        check_nothing(wrong_fate(operation.method, await late_words(toolstack, world)))
    await retry(toolstack, world, operation, survey, stage, disk_failed=aftermath.disk_failed)
    for snapshot in toolstack.snapshot_list(DOMAIN):
        word = HISTORY.get(snapshot.name, PRESENT)
        memory_lost = aftermath.guest_died and snapshot.name not in HISTORY
        await check_revert(toolstack, world, snapshot.name, {word}, memory_lost=memory_lost)
    await toolstack.destroy(DOMAIN)
    check_nothing(remains(world))
    end = time.monotonic() + 30
    while guests() and time.monotonic() < end:
        await asyncio.sleep(0.02)  # QEMU gives its locks up a moment before it is gone
    if guests():
        raise Violation("a QEMU process is left after the domain was destroyed")
    check_nothing(await damage(world, leaks=not (aftermath.guest_died or aftermath.disk_failed)))
    return stage


def incomplete(toolstack: Toolstack, world: World) -> list[str]:
    """Return what listed snapshots lack, also while an operation goes on or is interrupted."""
    snapshots = toolstack.snapshot_list(DOMAIN)
    images = inspect(sorted(world.images.iterdir()))
    return [
        f"snapshot {snapshot.name} is listed, but {lack}"
        for snapshot in snapshots
        for lack in _lacks(snapshot, images)
    ]


def _lacks(snapshot: DomainSnapshot, images: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    problem = savefile.memory_image_problem(snapshot.memory, UUID)
    if problem is not None:
        yield f"its memory image is not complete: {problem}"
    for disk in snapshot.disks:
        image = images.get(Path(disk.path).name)
        if image is None:
            yield f"its image {disk.path} is gone"
        elif disk.type is SnapshotType.INTERNAL and disk.name not in image["tags"]:
            yield f"disk {disk.device} does not hold it"


def match(
    seen: Observation,
    stages: Mapping[str, Observation],
    *,
    guest_died: bool = False,
    disk_failed: bool = False,
) -> str:
    """Return the name of the stage that a state is.

    :raise Violation: if it is none; it says what differs from the stage that is the most like it.
    """
    states = list(stages.items())
    if guest_died:
        states += [(name, state.without_guest()) for name, state in stages.items()]
    for name, state in states:
        if seen == state:
            return name
    if (guest_died or disk_failed) and _is_partly_merged(
        seen, [state for name, state in states if name != "old"]
    ):
        return "partly merged"
    name, differences = min(
        ((name, list(seen.differences(state))) for name, state in states), key=lambda item: len(item[1])
    )
    raise Violation(f"a third state, not quite {name}: {'; '.join(differences)}")


def _is_partly_merged(seen: Observation, states: Iterable[Observation]) -> bool:
    """Say whether each disk for itself is in one of the states.

    Where a guest dies while one disk's images are merged, or that disk fails, those of others may be merged
    all the same; and an image may lie over another one already, because QEMU has come so far. The next merge
    does it again.
    """
    states = [state.without_backing() for state in states]
    seen = seen.without_backing()
    return all(any(seen.of_disk(vdev) == state.of_disk(vdev) for state in states) for vdev in DISKS)


async def retry(
    toolstack: Toolstack,
    world: World,
    operation: Operation,
    survey: Survey,
    stage: str,
    *,
    disk_failed: bool = False,
) -> None:
    """Do the operation again: it must succeed if it had no effect, and must do no harm if it had."""
    new = survey.stages["new"]
    allowed = {name: state for name, state in survey.stages.items() if name != "old"}
    stopped = not guests()
    if stage == "old":
        if stopped and operation.needs_active:
            await toolstack.create(world.config, paused=world.initial == "paused")
        try:
            await operation(toolstack)
        except XlsnapError as error:
            raise Violation(f"trying again fails: {error}") from error
        allowed = {"new": new}
        if stopped:
            allowed["new, without memory"] = dataclasses.replace(new, memory=None)
    else:
        with contextlib.suppress(XlsnapError):  # such as that the name is taken
            await operation(toolstack)
    try:
        match(await look(toolstack, world), allowed, guest_died=stopped, disk_failed=disk_failed)
    except Violation as violation:
        raise Violation(f"after trying again: {violation}") from violation


async def check_revert(
    toolstack: Toolstack, world: World, name: str, words: Container[str], *, memory_lost: bool = False
) -> None:
    """Revert to a snapshot and read what the guest had when it was made: one of the words, everywhere.

    :raise Violation: if it has anything else; with `memory_lost` it may have been started afresh before.
    """
    try:
        await toolstack.snapshot_revert(DOMAIN, name)
        await toolstack.unpause(DOMAIN)
    except XlsnapError as error:
        raise Violation(f"reverting to {name} fails: {error}") from error
    memory, disks = ask_guest(toolstack, world)
    word = disks[0]
    if word not in words or set(disks) != {word} or (memory != word and not (memory_lost and memory is None)):
        raise Violation(
            f"after reverting to {name} the guest has {memory!r} in memory and {disks} on disks, "
            f"where {words} was saved"
        )
    if name in HISTORY and await late_words(toolstack, world) != {None}:
        raise Violation(f"after reverting to {name} the guest has what it wrote later")


def check_nothing(problems: Iterable[str]) -> None:
    """Raise a violation if there is any problem.

    :raise Violation: naming all of them.
    """
    found = list(problems)
    if found:
        raise Violation("; ".join(found))


def judge(world: World, operation: Operation, survey: Survey, aftermath: Aftermath) -> str:
    """Examine the world with a toolstack of its own."""
    return run(world, lambda toolstack: examine(toolstack, world, operation, survey, aftermath))


def check_listed(world: World) -> None:
    """Check that every snapshot in the list is complete, while another process may be at work.

    :raise Violation: if one is not.
    """
    check_nothing(incomplete(world.toolstack(), world))


def observe(world: World) -> Observation:
    """Recover and look, with a toolstack of its own."""

    async def inner(toolstack: Toolstack) -> Observation:
        await recover(toolstack)
        return await look(toolstack, world)

    return run(world, inner)
