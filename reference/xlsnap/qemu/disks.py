# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is done to the disks of a domain, through its QEMU or, for images that it has not open, `qemu-img`.

This is the part of a `Host` that is the same whoever has started the QEMU: we, or Xen's toolstack.
"""

from __future__ import annotations

import abc
import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..chain import OVERLAY_FORMAT
from ..domain import DomainRecord, Overlay
from ..errors import HostError, QmpError
from ..host import ImageState, check_tags_free
from ..steps import DiskImage, OverlaidDisk, TaggedImage
from . import disk_snapshots, images
from . import overlays as image_files
from .graph import Nodes
from .images import Progress
from .jobs import Tell
from .merging import LiveMerge, merge_offline, telling
from .monitor import Monitor
from .nodes import chains
from .qcow2 import read_header

if TYPE_CHECKING:
    from ..check import ImageFacts


class Disks(abc.ABC):
    """All that is done to images."""

    nodes: Nodes

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self._opened: set[OverlaidDisk] = set()  # overlays that wait for their snapshot
        self._merged: set[tuple[DiskImage, DiskImage]] = set()  # of stopped domains, not switched yet

    # --- what the host says -----------------------------------------------------------------------------

    @abc.abstractmethod
    def is_active(self, record: DomainRecord) -> bool:
        """Say whether the domain has a process."""

    @abc.abstractmethod
    async def _monitor(self, record: DomainRecord) -> Monitor:
        """Return the connection to the QEMU of an active domain."""

    @abc.abstractmethod
    async def _monitor_with_disks(self, record: DomainRecord) -> Monitor:
        """Return it after making sure that the QEMU has its disks."""

    @abc.abstractmethod
    def _check_free(self, paths: Sequence[str]) -> None:
        """Refuse to change images that somebody has open, where QEMU's own locks do not do that.

        :raise HostError: naming who has one open.
        """

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
        opened = self._opened.intersection(overlaid)
        self._opened.clear()
        try:
            monitor = await self._monitor_with_disks(record)
            await disk_snapshots.take(monitor, record, name, disks, overlaid, self.nodes, opened=opened)
        except QmpError:
            check_tags_free(record.name, name, await self.inspect(record, disks))
            raise

    async def prepare_live(
        self, record: DomainRecord, path: str, overlaid: Sequence[OverlaidDisk] = ()
    ) -> None:
        """Open the overlays."""
        monitor = await self._monitor_with_disks(record)
        await disk_snapshots.open_overlays(monitor, record, overlaid)
        self._opened.update(overlaid)

    async def drop_preparations(
        self, record: DomainRecord, path: str, overlaid: Sequence[OverlaidDisk] = ()
    ) -> None:
        """Close the overlays that no disk has."""
        self._opened.difference_update(overlaid)
        if self.is_active(record):
            await disk_snapshots.close_overlays(await self._monitor(record), overlaid)

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
                await disk_snapshots.drop(monitor, record, name, state.image, self.nodes)
            else:
                self._check_free([state.image.path])
                await images.drop_tag(state.image, name)

    async def apply_disk_snapshots(self, record: DomainRecord, disks: Sequence[TaggedImage]) -> None:
        """`qemu-img snapshot -a`, all disks at once."""
        self._check_free([disk.image.path for disk in disks])
        results = await asyncio.gather(
            *(images.apply_tag(disk.image, disk.tag_id) for disk in disks), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

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
            merge = LiveMerge(await self._monitor_with_disks(record), top, base, tell=tell, nodes=self.nodes)
            if active:
                await merge.copy_active()
                return
            if await merge.copy_below():
                return
        await self._merge_offline(top, base, tell)
        if active:
            self._merged.add((top, base))

    async def stop_copying_down(self, record: DomainRecord, top: DiskImage, base: DiskImage) -> None:
        """Cancel the job, if there is one; `qemu-img` ends with the operation that started it."""
        self._merged.discard((top, base))
        if self.is_active(record):
            await LiveMerge(await self._monitor(record), top, base, nodes=self.nodes).stop()

    async def switch_down(self, record: DomainRecord, top: DiskImage, base: DiskImage) -> None:
        """Complete the job, or copy now if there is none."""
        tell = telling(self.progress, top, base)
        if self.is_active(record):
            self._merged.discard((top, base))
            await LiveMerge(
                await self._monitor_with_disks(record), top, base, tell=tell, nodes=self.nodes
            ).switch()
        elif (top, base) in self._merged:
            self._merged.discard((top, base))
        else:
            await self._merge_offline(top, base, tell)

    async def lay_over(self, record: DomainRecord, overlay: str, base: DiskImage) -> None:
        """`qemu-img rebase -u`; QEMU has done it already for an image that the domain has open."""
        if not self._has_open(record, DiskImage(base.vdev, overlay, OVERLAY_FORMAT)):
            self._check_free([overlay])
            await image_files.lay_over(overlay, base)

    async def _merge_offline(self, top: DiskImage, base: DiskImage, tell: Tell | None) -> None:
        self._check_free([top.path, base.path])
        await merge_offline(top, base, tell=tell)

    def _has_open(self, record: DomainRecord, image: DiskImage) -> bool:
        """Say whether the domain's process has this image in the chain of this disk."""
        return any((item.vdev, item.path) == (image.vdev, image.path) for item in self._open_images(record))

    def _open_images(self, record: DomainRecord) -> list[DiskImage]:
        """Return the images that the domain's process has open, as far as the toolstack made them."""
        if not self.is_active(record):
            return []
        return [image for images in chains(record, record.config).values() for image in images]
