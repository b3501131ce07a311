# SPDX-License-Identifier: LGPL-2.1-or-later
"""A domain and its snapshots as values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from .. import trace as do
from ..protocol import DiskChoice
from ..trace import DiskOf, DomainOf, Tree, TreeNode

RunState = Literal["running", "paused", "shutdown", "stopped"]

ACTIVE: frozenset[RunState] = frozenset({"running", "paused"})
"""States in which a snapshot can be taken (XLS-CREATE)."""

Variables = Mapping[str, str]
Sectors = Mapping[str, Mapping[int, str]]
"""vdev to sector number to the word in it; a sector that is not there is all zero."""


@dataclass(frozen=True, slots=True)
class Place:
    """An image: its absolute path, and the format that it is to be opened in."""

    path: str
    format: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot: all that is needed to have that instant again.

    ``variables`` is None without memory; ``sectors`` has the disks that belong to it and no others, and
    ``external`` those of them that are external. ``attached`` are all disks that the domain had. ``lost`` is
    what somebody has taken away from it: its ``memory``, or the tag or image of a vdev.
    """

    name: str
    parent: str | None
    state: RunState
    memory: str
    disks: tuple[str, ...]
    variables: Variables | None
    sectors: Sectors
    description: str = ""
    external: frozenset[str] = frozenset()
    attached: tuple[str, ...] = ()
    lost: frozenset[str] = frozenset()

    @property
    def has_memory(self) -> bool:
        """Whether it has a memory image."""
        return self.memory != "no"

    @property
    def internal(self) -> tuple[str, ...]:
        """The disks that are internal."""
        return tuple(vdev for vdev in self.disks if vdev not in self.external)

    @property
    def type(self) -> str:
        """The type of all its disks, in the word of the metadata (XLS-META-015)."""
        if self.external and self.internal:
            return "any"
        return "external" if self.external else "internal"


@dataclass(frozen=True, slots=True)
class World:
    """A domain, its snapshots (oldest first) and the user's files around it.

    ``attached`` are the vdevs that the domain has, None for those that it began with. ``formats`` are those
    of the present images by vdev, where they are not the first ones: an overlay is qcow2, and which image is
    left after a delete is the implementation's choice, so that the format must be observed. ``overlaid`` are
    the vdevs that were ever part of an external snapshot. ``targets`` are overlays that are there for sure.
    ``current`` is the snapshot that the domain's state came from: the last one taken or reverted to.
    ``files`` are those that the user put somewhere, by path, ``links`` directories in which no file can be
    made, and ``foreign_tags`` the internal snapshots, by
    vdev and name, that the user made: they must never change.
    """

    domain: DomainOf
    state: RunState = "running"
    variables: Variables = field(default_factory=dict)
    sectors: Sectors = field(default_factory=dict)
    snapshots: tuple[Snapshot, ...] = ()
    current: str | None = None
    attached: tuple[str, ...] | None = None
    formats: Mapping[str, str] = field(default_factory=dict)
    overlaid: frozenset[str] = frozenset()
    targets: frozenset[str] = frozenset()
    files: Mapping[str, str] = field(default_factory=dict)
    links: frozenset[str] = frozenset()
    foreign_tags: frozenset[tuple[str, str]] = frozenset()

    @property
    def disks(self) -> tuple[DiskOf, ...]:
        """The disks that the domain has now."""
        if self.attached is None:
            return tuple(disk for disk in self.domain.disks if not disk.spare)
        return tuple(disk for disk in self.domain.disks if disk.vdev in self.attached)

    def disk(self, vdev: str) -> DiskOf | None:
        """Return the disk that the domain has under this vdev, or None."""
        return next((disk for disk in self.disks if disk.vdev == vdev), None)

    def format_of(self, disk: DiskOf) -> str:
        """Return the format of a disk's present image."""
        return self.formats.get(disk.vdev, disk.format)

    def names(self) -> list[str]:
        """Return the names of the snapshots, oldest first."""
        return [snapshot.name for snapshot in self.snapshots]

    def find(self, name: str) -> Snapshot | None:
        """Return the snapshot of this name; "1" is a name like any other."""
        return next((snapshot for snapshot in self.snapshots if snapshot.name == name), None)

    def descendants(self, name: str) -> frozenset[str]:
        """Return the snapshots that descend from one; it does not come itself."""
        found: set[str] = set()
        for snapshot in self.snapshots:  # parents are older than their children
            if snapshot.parent == name or snapshot.parent in found:
                found.add(snapshot.name)
        return frozenset(found)

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
                    external=tuple(vdev for vdev in snapshot.disks if vdev in snapshot.external),
                    state=snapshot.state,
                    current=snapshot.name == self.current,
                )
                for snapshot in self.snapshots
            ),
        )


def choices(world: World, step: do.Create) -> tuple[DiskChoice, ...]:
    """Return the disks of the snapshot in the domain's order: those named, or all that are writable."""
    if step.disks is None:
        writable: Iterable[DiskOf] = (disk for disk in world.disks if disk.writable)
        return tuple(DiskChoice(vdev=disk.vdev, type=step.type) for disk in writable)
    named = {choice.vdev: choice for choice in step.disks}
    return tuple(named[disk.vdev] for disk in world.disks if disk.vdev in named)
