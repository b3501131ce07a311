# SPDX-License-Identifier: LGPL-2.1-or-later
"""A host without machines: images are small JSON files, guests are dictionaries.

It does what the `Host` protocol says and complains when it is told something that would destroy data on a
real one. With it a scenario of plans, executor and store takes milliseconds, so that thousands can be tried,
each interrupted anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from xlsnap import savefile
from xlsnap.check import ImageFacts
from xlsnap.domain import DomainConfig, DomainRecord, Overlay, RunState
from xlsnap.errors import HostError, InputError, NameTakenError, QmpError, SnapshotDamagedError
from xlsnap.host import ImageState, KnownDomain, Started, Tag
from xlsnap.savefile import SaveHeader
from xlsnap.steps import DiskImage, OverlaidDisk, TaggedImage

Sectors = dict[str, str]


class Image(msgspec.Struct):
    """An image file: its own sectors, what it lies over, and its internal snapshots by name."""

    format: str
    sectors: Sectors = {}
    backing: str | None = None
    tags: dict[str, tuple[str, Sectors, int]] = {}


def load(path: str) -> Image:
    """Read an image."""
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=Image)
    except FileNotFoundError:
        raise HostError(f"{path}: no such image") from None


def store(path: str, image: Image) -> None:
    """Write an image."""
    Path(path).write_bytes(msgspec.json.encode(image))


def contents(path: str, *, tag: str | None = None) -> Sectors:
    """Return what a guest would read from an image, or from one of its internal snapshots."""
    image = load(path)
    below = contents(image.backing) if image.backing else {}
    return below | (image.tags[tag][1] if tag is not None else image.sectors)


class Guest(msgspec.Struct):
    """A process: the images that it writes to by vdev, its memory, and whether it runs."""

    roots: dict[str, str]
    memory: dict[str, str]
    running: bool


class SimulatedHost:
    """The `Host` protocol over JSON files. It outlives the toolstacks that use it, as processes do."""

    def __init__(self) -> None:
        self.guest: Guest | None = None
        self.successor: Guest | None = None
        self.processes = 0
        self.clock_ns = 0
        self.prepared: str | None = None
        self.progress: Callable[[str, int, int], None] | None = None
        self.before: Callable[[str], None] = lambda name: None
        self.memory_first = False

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name in _CALLS:
            super().__getattribute__("before")(name)
        return found

    # --- what a guest does ------------------------------------------------------------------------------

    def write(self, vdev: str, lba: str, word: str) -> None:
        """Let the guest write a sector."""
        assert self.guest is not None
        image = load(self.guest.roots[vdev])
        image.sectors[lba] = word
        store(self.guest.roots[vdev], image)

    # --- state ------------------------------------------------------------------------------------------

    async def run_state(self, record: DomainRecord) -> RunState | None:
        if self.guest is None:
            return None
        return RunState.RUNNING if self.guest.running else RunState.PAUSED

    async def attach(self, record: DomainRecord, *, interrupted: bool = True) -> RunState | None:
        return await self.run_state(record)

    def is_active(self, record: DomainRecord) -> bool:
        return self.guest is not None

    def cpu_seconds(self, record: DomainRecord) -> float:
        return 0.0

    def console(self, record: DomainRecord) -> Path:
        raise NotImplementedError

    async def release(self, record: DomainRecord) -> None:
        pass

    async def close(self) -> None:
        pass

    def live_problem(self) -> str | None:
        return None

    def live_is_quicker(self, record: DomainRecord) -> bool:
        return False

    def domains(self) -> Sequence[KnownDomain]:
        return ()

    async def disk_problems(self, record: DomainRecord, vdevs: Sequence[str]) -> dict[str, str]:
        return {}

    # --- life cycle -------------------------------------------------------------------------------------

    async def pause(self, record: DomainRecord) -> None:
        self._guest().running = False

    async def resume(self, record: DomainRecord) -> None:
        self._guest().running = True

    async def start(self, record: DomainRecord, config: DomainConfig, *, paused: bool) -> Started:
        assert self.guest is None, "two processes would have the disks"
        self.guest = Guest(self._roots(config), {}, not paused)
        return self._started()

    async def stop(self, record: DomainRecord) -> None:
        self.guest = None

    async def load_successor(self, record: DomainRecord, config: DomainConfig, memory_image: str) -> None:
        with open(memory_image, "rb") as file:
            savefile.read_header(file.fileno(), where=memory_image)
            file.seek(savefile.HEADER_BYTES)
            memory = msgspec.json.decode(file.read(), type=dict[str, str])
        self.successor = Guest(self._roots(config), memory, running=False)

    def has_successor(self, record: DomainRecord) -> bool:
        return self.successor is not None

    async def discard_successor(self, record: DomainRecord) -> None:
        self.successor = None

    async def promote_successor(
        self, record: DomainRecord, config: DomainConfig, memory_image: str, *, paused: bool
    ) -> Started:
        assert self.guest is None, "two processes would have the disks"
        if self.successor is None:
            await self.load_successor(record, config, memory_image)
        self.guest, self.successor = self.successor, None
        assert self.guest is not None
        self.guest.running = not paused
        return self._started()

    # --- snapshots --------------------------------------------------------------------------------------

    async def take_disk_snapshots(
        self,
        record: DomainRecord,
        name: str,
        disks: Sequence[DiskImage],
        overlaid: Sequence[OverlaidDisk] = (),
    ) -> None:
        guest = self._guest()
        if any(name in load(disk.path).tags for disk in disks):
            raise NameTakenError(f"there is a tag {name}")
        for disk in disks:
            assert guest.roots[disk.vdev] == disk.path
            assert disk.format == "qcow2"
            image = load(disk.path)
            self.clock_ns += 1
            tag_id = str(1 + max((int(tag[0]) for tag in image.tags.values()), default=0))
            image.tags[name] = (tag_id, dict(image.sectors), 1 << 62 | self.clock_ns)
            store(disk.path, image)
            self.before("between the disks of a transaction")
        for item in overlaid:
            overlay = load(item.overlay)
            assert guest.roots[item.base.vdev] == item.base.path == overlay.backing
            assert not overlay.sectors
            guest.roots[item.base.vdev] = item.overlay
            self.before("between the disks of a transaction")

    async def drop_disk_snapshots(
        self, record: DomainRecord, name: str, disks: Sequence[DiskImage], *, since_ns: int = 0
    ) -> None:
        for disk in disks:
            if not os.path.lexists(disk.path):
                continue
            image = load(disk.path)
            if name in image.tags and image.tags[name][2] >= since_ns:
                del image.tags[name]
                store(disk.path, image)

    async def apply_disk_snapshots(self, record: DomainRecord, disks: Sequence[TaggedImage]) -> None:
        assert self.guest is None
        for disk in disks:
            image = load(disk.image.path)
            (sectors,) = [tag[1] for tag in image.tags.values() if tag[0] == disk.tag_id]
            image.sectors = dict(sectors)
            store(disk.image.path, image)

    async def create_overlays(self, overlays: Sequence[Overlay]) -> None:
        for overlay in overlays:
            if os.path.lexists(overlay.path):
                raise InputError(f"{overlay.path} exists")
            assert overlay.backing is not None
            assert load(overlay.backing).format == overlay.backing_format
            store(overlay.path, Image("qcow2", backing=overlay.backing))
            self.before("between overlays")

    async def copy_snapshot(self, source: TaggedImage, path: str) -> None:
        (name,) = [key for key, tag in load(source.image.path).tags.items() if tag[0] == source.tag_id]
        if os.path.lexists(path):
            raise InputError(f"{path} exists")
        store(path, Image("qcow2", sectors=contents(source.image.path, tag=name)))

    async def copy_down(self, record: DomainRecord, top: DiskImage, base: DiskImage, *, active: bool) -> None:
        if active and self.guest is not None and self.guest.roots.get(top.vdev) != top.path:
            return
        self._copy(top, base)
        if not active and self.guest is not None:
            for image in self._open():
                if load(image).backing == top.path:
                    self._lay(image, base)

    async def stop_copying_down(self, record: DomainRecord, top: DiskImage, base: DiskImage) -> None:
        pass

    async def switch_down(self, record: DomainRecord, top: DiskImage, base: DiskImage) -> None:
        if self.guest is None:
            self._copy(top, base)
        elif self.guest.roots.get(top.vdev) == top.path:
            assert not self.guest.running
            self._copy(top, base)
            self.guest.roots[top.vdev] = base.path

    async def lay_over(self, record: DomainRecord, overlay: str, base: DiskImage) -> None:
        if self.guest is None or overlay not in self._open():
            self._lay(overlay, base)

    async def prepare_live(
        self, record: DomainRecord, path: str, overlaid: Sequence[OverlaidDisk] = ()
    ) -> None:
        assert self._guest().running
        assert all(load(item.overlay).backing == item.base.path for item in overlaid)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        self.prepared = path

    async def drop_preparations(
        self, record: DomainRecord, path: str, overlaid: Sequence[OverlaidDisk] = ()
    ) -> None:
        self.prepared = None

    async def prepare_memory(self, record: DomainRecord, path: str) -> None:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        self.prepared = path

    async def save_memory(self, record: DomainRecord, path: str, *, live: bool = False) -> None:
        guest = self._guest()
        assert guest.running == self.memory_first
        new = 0 if self.prepared == path else os.O_CREAT | os.O_EXCL
        self.prepared = None
        try:
            fd = os.open(path, os.O_RDWR | new, 0o600)
        except OSError as error:
            raise HostError(str(error)) from error
        try:
            savefile.write_header(fd, SaveHeader(record.uuid, record.config, "tcg"))
            os.write(fd, msgspec.json.encode(guest.memory))
            self.before("save_memory, written")
            savefile.mark_complete(fd)
        finally:
            os.close(fd)
        guest.running = live and not self.memory_first

    async def inspect(self, record: DomainRecord, disks: Sequence[DiskImage]) -> list[ImageState]:
        states = []
        for disk in disks:
            try:
                contents(disk.path)
                tags = tuple(Tag(item[0], name, item[2]) for name, item in load(disk.path).tags.items())
                states.append(ImageState(disk, tags))
            except HostError as error:
                states.append(ImageState(disk, problem=error.message))
        return states

    async def examine(self, record: DomainRecord, images: Sequence[DiskImage]) -> list[ImageFacts]:
        """Read images one by one."""
        facts = []
        for image in images:
            if not os.path.exists(image.path):
                facts.append(ImageFacts(image=image, exists=False))
                continue
            found = load(image.path)
            backing_format = load(found.backing).format if found.backing else None
            facts.append(
                ImageFacts(
                    image=image,
                    tags=tuple(found.tags),
                    backing=found.backing,
                    backing_format=backing_format,
                )
            )
        return facts

    # --- within -----------------------------------------------------------------------------------------

    def _guest(self) -> Guest:
        if self.guest is None:
            raise QmpError("any", "the domain has ended")
        return self.guest

    def _started(self) -> Started:
        self.processes += 1
        return Started(self.processes, "tcg")

    def _roots(self, config: DomainConfig) -> dict[str, str]:
        roots = {str(disk.vdev): str(disk.target) for disk in config.disks}
        for disk in config.disks:
            contents(str(disk.target))  # all of the chain is there
            if load(str(disk.target)).format != disk.format:
                raise SnapshotDamagedError(f"{disk.target} is not {disk.format}")
        return roots

    def _open(self) -> list[str]:
        """Return the images that the guest's process has open, but for the lowest."""
        found = []
        for path in self._guest().roots.values():
            image: str | None = path
            while image is not None:
                found.append(image)
                image = load(image).backing
        return found

    def _copy(self, top: DiskImage, base: DiskImage) -> None:
        upper, lower = load(top.path), load(base.path)
        assert upper.backing == base.path
        assert lower.format == base.format
        lower.sectors |= upper.sectors
        store(base.path, lower)

    def _lay(self, path: str, base: DiskImage) -> None:
        image = load(path)
        assert base.format == load(base.path).format
        image.backing = base.path
        store(path, image)


_CALLS = frozenset(
    name
    for name in vars(SimulatedHost)
    if not name.startswith("_")
    and name not in {"write", "is_active", "cpu_seconds", "attach", "has_successor", "domains"}
)
"""Calls of the toolstack, before each of which it can be interrupted."""
