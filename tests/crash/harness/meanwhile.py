# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a guest does between the death of its toolstack and the next command, which may be hours later.

It sets a variable and writes a sector on each disk. Afterwards memory and disks must agree on that: a guest
that got one back without the other is broken, however sound its images are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Literal

from observation import read_images
from world import DISKS, DOMAIN, UUID, World, awake
from xlsnap.domain import RunState
from xlsnap.errors import HostError
from xlsnap.qemu.monitor import Monitor
from xlsnap.qemu.process import ProcessPaths, living_pid
from xlsnap.toolstack import Toolstack
from xlsnap_conformance import guest

WORD = "late"
SECTOR = 700

Fate = Literal["kept", "kept or lost", "unknown"]
"""What may become of the late words: ``kept or lost`` is one of both for memory and disks together."""

FATES: dict[str, Fate] = {
    "snapshot_revert": "kept or lost",
    "restore": "kept or lost",
    "create": "unknown",  # the start of a domain: a power cut loses nothing but memory
    "destroy": "unknown",
}
"""By the operation; others keep them."""


def write_late(world: World) -> bool:
    """Let the guest write, if one runs, in whichever process; say whether one did."""
    running = asyncio.run(_running(world))
    for paths in running:
        _write(world, paths)
    return bool(running)


async def _running(world: World) -> list[ProcessPaths]:
    """Return the processes whose guest runs, without recovering anything."""
    found = []
    for directory in world.root.domain(UUID).directory.glob("process-*"):
        paths = ProcessPaths(directory)
        if living_pid(paths) is None:
            continue
        try:
            monitor = await Monitor.connect(paths, paths.status)
        except HostError:
            continue  # it is about to end
        if (await monitor.execute("query-status"))["status"] == "running":
            found.append(paths)
        await monitor.close()
    return found


def _write(world: World, paths: ProcessPaths) -> None:
    with guest.Probe(paths.console) as probe:
        probe.set(WORD, WORD)
        for vdev in world.vdevs:
            probe.write(DISKS[vdev], SECTOR, WORD)
        probe.flush()


async def late_words(toolstack: Toolstack, world: World) -> set[str | None]:
    """Return what there is where the guest would have written late: in memory and on disks."""
    (info,) = await toolstack.domains(DOMAIN)
    if info.run_state is None:
        return {None, *read_images(world, toolstack.resolve(DOMAIN), (SECTOR,))}

    def ask() -> set[str | None]:
        with guest.Probe(toolstack.console_path(DOMAIN)) as probe:
            return {probe.get(WORD), *(probe.read(DISKS[vdev], SECTOR) for vdev in world.vdevs)}

    return await awake(toolstack, ask) if info.run_state is RunState.PAUSED else ask()


def wrong_fate(method: str, words: set[str | None]) -> Iterator[str]:
    """Yield what is wrong with the late words after an operation was recovered."""
    fate = FATES.get(method, "kept")
    if fate == "kept" and words != {WORD}:
        yield "what the guest wrote before the next command is lost"
    if fate == "kept or lost" and len(words) > 1:
        yield "memory and disks disagree on what the guest wrote before the next command"
