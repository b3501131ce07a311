# SPDX-License-Identifier: LGPL-2.1-or-later
"""Domains as QEMU processes: the `Host` protocol over QMP and `qemu-img`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..chain import OVERLAY_FORMAT
from ..domain import DomainRecord, Overlay
from ..errors import HostError, QmpError
from ..host import ImageState, check_tags_free
from ..layout import StateRoot
from ..savefile import SaveHeader
from ..steps import DiskImage, OverlaidDisk, TaggedImage
from . import background, disk_snapshots, images
from . import overlays as image_files
from .domains import QemuProcesses
from .images import Progress
from .memory import save_memory
from .merging import LiveMerge, merge_offline, telling
from .nodes import chains
from .qcow2 import read_header

if TYPE_CHECKING:
    from ..check import ImageFacts


class QemuHost(QemuProcesses):
    """The whole host: processes, and all that is done to images and memory."""

    def __init__(self, root: StateRoot, *, accelerator: str = "auto", keep_connections: bool = False) -> None:
        super().__init__(root, accelerator=accelerator, keep_connections=keep_connections)
        self.progress: Progress | None = None
        self._merged: set[tuple[DiskImage, DiskImage]] = set()  # of stopped domains, not switched yet

    # --- snapshots --------------------------------------------------------------------------------------

    async def take_disk_snapshots(
        self,
        record: DomainRecord,
        name: str,
        disks: Sequence[DiskImage],
        overlaid: Sequence[OverlaidDisk] = (),
    ) -> None:
        """One QMP transaction over all disks; QEMU rolls back what it did if one fails.

        :raise NameTakenError: if an image has a snapshot of this name already, which is not one of ours.
        """
        try:
            await disk_snapshots.take(await self._monitor_with_disks(record), record, name, disks, overlaid)
        except QmpError:
            check_tags_free(record.name, name, await self.inspect(record, disks))
            raise

    async def drop_disk_snapshots(
        self, record: DomainRecord, name: str, disks: Sequence[DiskImage], *, since_ns: int = 0
    ) -> None:
        """Through QEMU for the images that the domain has open, with `qemu-img` for others."""
        if since_ns and self.is_active(record):
            # QEMU answers in order: a transaction that was sent, but not waited for, is over after this.
            await (await self._monitor(record)).execute("query-status")
        for state in await self.inspect(record, disks):
            tags = [tag for tag in state.tags if tag.name == name and tag.date_ns >= since_ns]
            if state.problem is None and not tags:
                continue
            if not os.path.lexists(state.image.path):
                continue
            if self._has_open(record, state.image):
                monitor = await self._monitor_with_disks(record)
                await disk_snapshots.drop(monitor, record, name, state.image)
            else:
                await images.drop_tag(state.image, name)

    async def apply_disk_snapshots(self, record: DomainRecord, disks: Sequence[TaggedImage]) -> None:
        """`qemu-img snapshot -a`, all disks at once."""
        results = await asyncio.gather(
            *(images.apply_tag(disk.image, disk.tag_id) for disk in disks), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def save_memory(self, record: DomainRecord, path: str, *, live: bool = False) -> None:
        """Migrate to a file descriptor. The file must not exist: it is ours or nothing is done."""
        header = SaveHeader(record.uuid, record.config, record.accelerator)
        await save_memory(await self._monitor(record), path, header, live=live)
        if not live:
            self._without_disks.add(self._paths(record).directory)

    def live_problem(self) -> str | None:
        """Try what QEMU will do: write protection with userfaultfd."""
        return background.live_problem()

    async def inspect(self, record: DomainRecord, disks: Sequence[DiskImage]) -> list[ImageState]:
        """Read the headers of the images, which is right whoever has them open."""

        def look(disk: DiskImage) -> ImageState:
            try:
                return ImageState(disk, read_header(disk).tags)
            except HostError as error:
                return ImageState(disk, problem=error.message)

        return [look(disk) for disk in disks]

    async def examine(self, record: DomainRecord, images: Sequence[DiskImage]) -> list[ImageFacts]:
        """Ask `qemu-img` about each by itself; those that the domain has open change meanwhile."""
        from .examine import examine

        in_use = [image.path for image in self._open_images(record)]
        return await examine(images, in_use=in_use)

    # --- images -----------------------------------------------------------------------------------------

    async def create_overlays(self, overlays: Sequence[Overlay]) -> None:
        """`qemu-img create` without a look at the backing files but for their size."""
        await image_files.create_overlays(overlays)

    async def copy_snapshot(self, source: TaggedImage, path: str) -> None:
        """`qemu-img convert`, which tells `progress`."""
        await image_files.copy_snapshot(source, path, progress=self.progress)

    async def copy_down(self, record: DomainRecord, top: DiskImage, base: DiskImage, *, active: bool) -> None:
        """A ``block-commit`` job if the domain has the images open, else `qemu-img commit`."""
        tell = telling(self.progress, top, base)
        if self._has_open(record, top):
            merge = LiveMerge(await self._monitor_with_disks(record), top, base, tell=tell)
            if active:
                await merge.copy_active()
                return
            if await merge.copy_below():
                return
        await merge_offline(top, base, tell=tell)
        if active:
            self._merged.add((top, base))

    async def stop_copying_down(self, record: DomainRecord, top: DiskImage, base: DiskImage) -> None:
        """Cancel the job, if there is one; `qemu-img` ends with the operation that started it."""
        self._merged.discard((top, base))
        if self.is_active(record):
            await LiveMerge(await self._monitor(record), top, base).stop()

    async def switch_down(self, record: DomainRecord, top: DiskImage, base: DiskImage) -> None:
        """Complete the job, or copy now if there is none."""
        tell = telling(self.progress, top, base)
        if self.is_active(record):
            self._merged.discard((top, base))
            await LiveMerge(await self._monitor_with_disks(record), top, base, tell=tell).switch()
        elif (top, base) in self._merged:
            self._merged.discard((top, base))
        else:
            await merge_offline(top, base, tell=tell)

    async def lay_over(self, record: DomainRecord, overlay: str, base: DiskImage) -> None:
        """`qemu-img rebase -u`; QEMU has done it already for an image that the domain has open."""
        if not self._has_open(record, DiskImage(base.vdev, overlay, OVERLAY_FORMAT)):
            await image_files.lay_over(overlay, base)

    def _has_open(self, record: DomainRecord, image: DiskImage) -> bool:
        """Say whether the domain's process has this image in the chain of this disk."""
        return any((item.vdev, item.path) == (image.vdev, image.path) for item in self._open_images(record))

    def _open_images(self, record: DomainRecord) -> list[DiskImage]:
        """Return the images that the domain's process has open, as far as the toolstack made them."""
        if not self.is_active(record):
            return []
        return [image for images in chains(record, record.config).values() for image in images]
