# SPDX-License-Identifier: LGPL-2.1-or-later
"""A small world to break: one domain with a history, built once and put back as often as needed.

Its state tells where it comes from: memory and every disk hold the same word. The history is ``one``,
snapshot s0, ``two``, snapshot s1, ``three``. All functions here run in calls of a `ForkServer`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from fork_server import guests, kill
from xlsnap.domain import DomainConfig
from xlsnap.layout import StateRoot
from xlsnap.request import SnapshotRequest
from xlsnap.toolstack import Toolstack
from xlsnap_conformance import guest
from xlsnap_grammars import DiskSpec, SnapshotDisk

T = TypeVar("T")

DOMAIN = "d1"
UUID = "00000000-0000-4000-8000-000000000c1a"

DISKS = {"hda": 0, "xvda": 4, "hdb": 1}
"""vdev to the number that the probe guest gives the disk."""

KINDS: dict[str, tuple[Literal["internal", "external"], ...]] = {
    "internal": ("internal", "internal", "internal"),
    "external": ("external", "external", "external"),
    "mixed": ("internal", "external", "internal"),
}
"""How each of the disks is snapshotted."""

SECTORS = (1, 1900)
"""Where the guest writes: in different clusters."""

HISTORY = {"s0": "one", "s1": "two"}
"""The snapshots, in order, and the word that the guest held."""

PRESENT = "three"
"""The word that the guest holds when an operation begins."""

Initial = Literal["running", "paused", "stopped", "saved"]
"""What the domain is when an operation begins; ``saved`` means stopped, and there is a save file."""


@dataclass(frozen=True)
class World:
    """A directory with a state root and images, and beside it the template from which they are put back."""

    directory: Path
    kind: str
    disks: int
    initial: Initial = "running"

    @property
    def root(self) -> StateRoot:
        """The toolstack's state root."""
        return StateRoot.at(self.directory / "root")

    @property
    def images(self) -> Path:
        """The directory of all images, those that the toolstack makes too."""
        return self.directory / "images"

    @property
    def template(self) -> Path:
        """A copy of the directory with the domain saved."""
        return self.directory.with_name(f"{self.directory.name}.template")

    @property
    def save_file(self) -> Path:
        """The domain's memory, in the template only."""
        return self.directory / "domain.save"

    @property
    def vdevs(self) -> tuple[str, ...]:
        """The disks of the domain."""
        return tuple(DISKS)[: self.disks]

    @property
    def config(self) -> DomainConfig:
        """The domain as its user configured it."""
        return DomainConfig(
            name=DOMAIN,
            uuid=UUID,
            memory_mib=1,
            bios=str(guest.image("rom")),
            disks=tuple(
                DiskSpec(target=str(self.images / f"{vdev}.qcow2"), format="qcow2", vdev=vdev, readwrite=True)
                for vdev in self.vdevs
            ),
        )

    def request(self, name: str, *, live: bool = False) -> SnapshotRequest:
        """Return the request for a snapshot of this world's kind."""
        disks = tuple(
            SnapshotDisk(vdev=vdev, type=kind, target=None, format=None)
            for vdev, kind in zip(self.vdevs, KINDS[self.kind], strict=False)
        )
        return SnapshotRequest(name=name, disks=disks, live=live)

    def toolstack(self) -> Toolstack:
        """Return a toolstack on this world."""
        return Toolstack(self.root, accelerator="tcg")


@dataclass(frozen=True)
class Operation:
    """An operation of the toolstack, given by the method's name, so that it can go to another process."""

    method: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    needs_active: bool = False

    def __call__(self, toolstack: Toolstack) -> Awaitable[Any]:
        """Begin it."""
        call: Callable[..., Awaitable[Any]] = getattr(toolstack, self.method)
        return call(*self.arguments, **self.options)


def run(world: World, action: Callable[[Toolstack], Awaitable[T]]) -> T:
    """Carry out an action with a toolstack of its own, as a command does."""

    async def inner() -> T:
        async with world.toolstack() as toolstack:
            return await action(toolstack)

    return asyncio.run(inner())


def perform(world: World, operation: Operation) -> None:
    """Carry out an operation, as a command does."""
    run(world, operation)


async def recover(toolstack: Toolstack) -> None:
    """Do what every command does first: finish or undo what was interrupted."""
    async with toolstack.operating(UUID):
        pass


def recover_only(world: World) -> None:
    """Recover, as the next command does first."""
    run(world, recover)


# --- the guest ------------------------------------------------------------------------------------------


def write(toolstack: Toolstack, world: World, word: str) -> None:
    """Let the running guest hold a word everywhere."""
    with guest.Probe(toolstack.console_path(DOMAIN)) as probe:
        probe.set("word", word)
        probe.memory_fill(sum(word.encode()))
        for vdev in world.vdevs:
            for sector in SECTORS:
                probe.write(DISKS[vdev], sector, word)
        probe.flush()


def read_memory(probe: guest.Probe) -> str | None:
    """Return the word in the guest's memory; one that is damaged is told from all words."""
    word, found = probe.get("word"), probe.memory_sum()
    if word is None:
        return None
    probe.memory_fill(sum(word.encode()))
    return word if probe.memory_sum() == found else f"{word}, damaged"


# --- the world's life -----------------------------------------------------------------------------------


def build(world: World) -> None:
    """Make the world, its history and the template."""
    world.images.mkdir(parents=True)
    for vdev in world.vdevs:
        image = world.images / f"{vdev}.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], check=True)

    async def live(toolstack: Toolstack) -> None:
        await toolstack.create(world.config)
        for name, word in HISTORY.items():
            write(toolstack, world, word)
            await toolstack.snapshot_create(DOMAIN, world.request(name))
        write(toolstack, world, PRESENT)
        await toolstack.save(DOMAIN, str(world.save_file))

    run(world, live)
    shutil.copytree(world.directory, world.template, symlinks=True)


def put_back(world: World) -> None:
    """End the domain, if it is there, and put everything back as it was when an operation began."""
    clear(world)
    shutil.copytree(world.template, world.directory, symlinks=True)
    if world.initial in ("running", "paused"):
        paused = world.initial == "paused"
        run(world, lambda toolstack: toolstack.restore(str(world.save_file), paused=paused))
    if world.initial != "saved":
        world.save_file.unlink()


def clear(world: World) -> None:
    """End the domain's processes and remove everything but the template."""
    kill(guests())
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(world.directory)


def demolish(world: World) -> None:
    """End the domain's processes and remove everything."""
    clear(world)
    shutil.rmtree(world.template, ignore_errors=True)


def awake(toolstack: Toolstack, action: Callable[[], T]) -> Coroutine[Any, Any, T]:
    """Do something with a guest that is paused, and pause it again."""

    async def inner() -> T:
        await toolstack.unpause(DOMAIN)
        try:
            return action()
        finally:
            await toolstack.pause(DOMAIN)

    return inner()


def files_below(directory: Path) -> list[str]:
    """Return the relative paths of all files below a directory, sorted."""
    return sorted(
        str(Path(parent, name).relative_to(directory))
        for parent, _, names in os.walk(directory)
        for name in names
    )
