# SPDX-License-Identifier: LGPL-2.1-or-later
"""Domains as QEMU processes: the `Host` protocol over QMP and `qemu-img`."""

from __future__ import annotations

from collections.abc import Sequence

from ..domain import DomainRecord
from ..host import KnownDomain
from ..layout import StateRoot
from ..savefile import SaveHeader
from . import background
from .disks import Disks
from .domains import QemuProcesses
from .graph import NamedByPath
from .memory import save_memory


class QemuHost(QemuProcesses, Disks):
    """The whole host: processes, and all that is done to images and memory."""

    nodes = NamedByPath()
    memory_first = False

    def __init__(self, root: StateRoot, *, accelerator: str = "auto", keep_connections: bool = False) -> None:
        Disks.__init__(self)
        QemuProcesses.__init__(self, root, accelerator=accelerator, keep_connections=keep_connections)

    def domains(self) -> Sequence[KnownDomain]:
        """None: the toolstack keeps all that there are."""
        return ()

    async def disk_problems(self, record: DomainRecord, vdevs: Sequence[str]) -> dict[str, str]:
        """None: all disks are QEMU's."""
        return {}

    def _check_free(self, paths: Sequence[str]) -> None:
        """Nothing to do: QEMU and `qemu-img` lock their images."""

    async def save_memory(self, record: DomainRecord, path: str, *, live: bool = False) -> None:
        """Migrate to a file descriptor. The file must not exist: it is ours or nothing is done."""
        header = SaveHeader(record.uuid, record.config, record.accelerator)
        await save_memory(await self._monitor(record), path, header, live=live)
        if not live:
            self._without_disks.add(self._paths(record).directory)

    def live_problem(self) -> str | None:
        """Try what QEMU will do: write protection with userfaultfd."""
        return background.live_problem()
