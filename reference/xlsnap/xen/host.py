# SPDX-License-Identifier: LGPL-2.1-or-later
"""Domains of a real Xen: the `Host` protocol from dom0."""

from __future__ import annotations

from collections.abc import Sequence

from ..chain import OVERLAY_FORMAT
from ..domain import DomainRecord
from ..errors import HostError
from ..layout import StateRoot
from ..qemu.disks import Disks
from ..qemu.monitor import Monitor
from ..steps import DiskImage, OverlaidDisk
from . import memory, xl
from .domains import XenDomains
from .in_use import users
from .nodes import ByFile, pv_disks
from .stored import note_images

NO_LIVE = "xl saves the memory of a running domain only while it migrates it to another host"


class XenHost(XenDomains, Disks):
    """The whole host. The domain's QEMU serves its PV disks only; nothing else of it is used."""

    nodes = ByFile()
    memory_first = True

    def __init__(self, root: StateRoot) -> None:
        Disks.__init__(self)
        XenDomains.__init__(self, root)

    async def disk_problems(self, record: DomainRecord, vdevs: Sequence[str]) -> dict[str, str]:
        """Disks that the domain's QEMU does not serve: their backend is not qdisk."""
        if not vdevs:
            return {}
        served = await pv_disks(await self._monitor(record))
        return {
            vdev: "its backend is not qdisk, so that nothing can take a snapshot of it; say backendtype=qdisk"
            for vdev in vdevs
            if vdev not in served
        }

    async def prepare_memory(self, record: DomainRecord, path: str) -> None:
        """Nothing: `xl` makes the file."""

    async def save_memory(self, record: DomainRecord, path: str, *, live: bool = False) -> None:
        """`xl save -p`: the guest suspends itself, and is left paused."""
        if live:
            raise HostError(f"no live snapshot on this host: {NO_LIVE}")
        domid = self._active_row(record).domid
        try:
            await memory.save_memory(domid, path, note=self._note(record))
        except xl.XlError as error:
            self.look_again()
            if self._row(record) is None:
                raise HostError(f"domain {record.name!r} ended while its memory was saved") from error
            raise
        finally:
            self.look_again()

    def live_problem(self) -> str | None:
        """Always the same."""
        return NO_LIVE

    def live_is_quicker(self, record: DomainRecord) -> bool:
        """Never: there is none."""
        return False

    async def take_disk_snapshots(
        self,
        record: DomainRecord,
        name: str,
        disks: Sequence[DiskImage],
        overlaid: Sequence[OverlaidDisk] = (),
    ) -> None:
        """One QMP transaction; then Xen's own configuration of the domain names the overlays."""
        await super().take_disk_snapshots(record, name, disks, overlaid)
        self._note_images(
            record, [DiskImage(item.base.vdev, item.overlay, OVERLAY_FORMAT) for item in overlaid]
        )

    async def switch_down(self, record: DomainRecord, top: DiskImage, base: DiskImage) -> None:
        """Complete the merge; then Xen's own configuration of the domain names the image that is left."""
        await super().switch_down(record, top, base)
        self._note_images(record, [base])

    def _note_images(self, record: DomainRecord, images: Sequence[DiskImage]) -> None:
        row = self._row(record)
        if images and row is not None:
            note_images(row.domid, record.uuid, {image.vdev: image for image in images})

    async def _monitor_with_disks(self, record: DomainRecord) -> Monitor:
        """A QEMU of Xen's never gives its PV disks up."""
        return await self._monitor(record)

    def _check_free(self, paths: Sequence[str]) -> None:
        """Look who has an image open: nothing locks those of PV disks."""
        for user in users(paths):
            raise HostError(
                f"{user.path} is in use by {user.who}", hint="end the domain that has it, and try again"
            )
