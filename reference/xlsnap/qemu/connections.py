# SPDX-License-Identifier: LGPL-2.1-or-later
"""Monitor connections to QEMU processes: one each, made when needed, kept as long as allowed."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from .monitor import Monitor
from .process import ProcessPaths, living_pid


class Connections:
    """The open connections of one toolstack.

    With `keep` they outlive an operation, on the session monitor of each process, if no other program has
    that one; without, each operation has the control monitor to itself, under the domain's lock.
    """

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep
        self._open: dict[Path, Monitor] = {}
        self._session_locks: dict[Path, int] = {}

    def existing(self, paths: ProcessPaths) -> Monitor | None:
        """Return the connection to a process, if there is one."""
        return self._open.get(paths.directory)

    async def get(self, paths: ProcessPaths) -> Monitor:
        """Return the connection to a process, made now if there is none."""
        monitor = self._open.get(paths.directory)
        if monitor is None:
            session = self._keep and self._lock_session(paths)
            monitor = await Monitor.connect(paths, paths.session if session else paths.control)
            self._open[paths.directory] = monitor
        return monitor

    async def drop(self, directory: Path) -> None:
        """Close the connection to the process with this directory, if there is one."""
        monitor = self._open.pop(directory, None)
        if monitor is not None:
            await monitor.close()
        lock = self._session_locks.pop(directory, None)
        if lock is not None:
            os.close(lock)

    async def release(self, domain_directory: Path) -> None:
        """End an operation: close what is not to be kept among the connections to a domain's processes."""
        for directory in [item for item in self._open if item.parent == domain_directory]:
            kept = directory in self._session_locks and living_pid(ProcessPaths(directory)) is not None
            if not kept:
                await self.drop(directory)

    async def close(self) -> None:
        """Close all connections."""
        for directory in list(self._open):
            await self.drop(directory)

    def _lock_session(self, paths: ProcessPaths) -> bool:
        fd = os.open(paths.session_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._session_locks[paths.directory] = fd
        return True
