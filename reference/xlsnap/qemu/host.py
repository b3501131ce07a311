# SPDX-License-Identifier: LGPL-2.1-or-later
"""Domains as QEMU processes: the `Host` protocol over QMP and `qemu-img`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from ..domain import DomainRecord
from ..errors import HostError
from ..host import KnownDomain
from ..layout import StateRoot
from ..savefile import SaveHeader
from ..steps import OverlaidDisk
from . import background
from .disks import Disks
from .domains import QemuProcesses
from .graph import NamedByPath
from .memory import give_up_file, prepare_image, write_image
from .nodes import chains


class QemuHost(QemuProcesses, Disks):
    """The whole host: processes, and all that is done to images and memory."""

    nodes = NamedByPath()
    memory_first = False

    def __init__(self, root: StateRoot, *, accelerator: str = "auto", keep_connections: bool = False) -> None:
        Disks.__init__(self)
        self._images: dict[str, int] = {}  # files for memory that are ready, by path
        QemuProcesses.__init__(self, root, accelerator=accelerator, keep_connections=keep_connections)

    def domains(self) -> Sequence[KnownDomain]:
        """None: the toolstack keeps all that there are."""
        return ()

    async def disk_problems(self, record: DomainRecord, vdevs: Sequence[str]) -> dict[str, str]:
        """None: all disks are QEMU's."""
        return {}

    def _check_free(self, paths: Sequence[str]) -> None:
        """Nothing to do: QEMU and `qemu-img` lock their images."""

    async def prepare_live(
        self, record: DomainRecord, path: str, overlaid: Sequence[OverlaidDisk] = ()
    ) -> None:
        """Open the overlays, and let QEMU see whether it can protect the memory, which takes it a while."""
        await super().prepare_live(record, path, overlaid)
        try:
            self._images[path] = await self._prepare_memory(record, path, live=True)
        except BaseException:
            await super().drop_preparations(record, path, overlaid)
            raise

    async def prepare_memory(self, record: DomainRecord, path: str) -> None:
        """Make the file, and pass it to QEMU."""
        self._images[path] = await self._prepare_memory(record, path, live=False)

    async def drop_preparations(
        self, record: DomainRecord, path: str, overlaid: Sequence[OverlaidDisk] = ()
    ) -> None:
        """Close the file here and in QEMU, and the overlays."""
        if path in self._images:
            os.close(self._images.pop(path))
        await super().drop_preparations(record, path, overlaid)
        if self.is_active(record):
            await give_up_file(await self._monitor(record))

    async def _prepare_memory(self, record: DomainRecord, path: str, *, live: bool) -> int:
        header = SaveHeader(record.uuid, record.config, record.accelerator)
        return await prepare_image(await self._monitor(record), path, header, live=live)

    async def save_memory(self, record: DomainRecord, path: str, *, live: bool = False) -> None:
        """Migrate to a file descriptor. The file must not exist: it is ours or nothing is done."""
        fd = self._images.pop(path, None)
        if fd is None:
            fd = await self._prepare_memory(record, path, live=live)
        monitor = await self._monitor(record)
        try:
            await write_image(monitor, path, fd, live=live)
        except BaseException:  # also when we are told to end: what comes next must know whose the disks are
            with contextlib.suppress(HostError):
                await monitor.abandon_migration()
                await self._status(record, monitor)
            raise
        if not live:
            self._without_disks.add(self._paths(record).directory)

    def live_problem(self) -> str | None:
        """Try what QEMU will do: write protection with userfaultfd."""
        return background.live_problem()

    def live_is_quicker(self, record: DomainRecord) -> bool:
        """Compare what QEMU does for each image with what it does for each page of memory."""
        images = sum(map(len, chains(record, record.config).values()))
        return background.is_quicker(images, record.config.memory_mib) and self.live_problem() is None
