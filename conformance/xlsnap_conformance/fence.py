# SPDX-License-Identifier: LGPL-2.1-or-later
"""The safety fence: the suite touches nothing but its own domains and its own directory.

Every request passes `Fence.check` on its way to the driver: its domain must have the suite's prefix and its
paths must be inside the suite's directory. When the fence is closed, whatever still runs on files of that
directory is ended and the directory is removed, also after a failure or Ctrl-C.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import stat
import tempfile
import uuid
from pathlib import Path
from typing import Any

import psutil

from . import protocol as p
from .failures import HarnessError

PREFIX = "xlsnap-cts-"
"""Names of the suite's domains begin with this."""

DEFAULT_BUDGET = 2 << 30
"""Bytes that the suite may have on disk at a time."""

END_SECONDS = 10.0


class Fence:
    """A directory of the suite's own, with a byte budget. A context manager: leaving it removes it."""

    def __init__(self, base: Path | None = None, *, budget: int = DEFAULT_BUDGET) -> None:
        """Make the directory, of mode 0700, under `base` (default: the system's directory for such)."""
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base)).resolve()
        self.budget = budget
        self.driver_root = self.path / "root"
        self.driver_root.mkdir(mode=0o700)
        self.log = self.path / "driver.log"
        self._numbers = itertools.count(1)
        self._token = uuid.uuid4().hex[:8]

    def __enter__(self) -> Fence:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def new_name(self) -> str:
        """Return a name for a domain that nobody else uses."""
        return f"{PREFIX}{self._token}-{next(self._numbers)}"

    def new_directory(self, name: str) -> Path:
        """Make a directory for the images of a domain.

        :raise HarnessError: if the byte budget is used up.
        """
        used = self.used()
        if used > self.budget:
            raise HarnessError(f"{self.path} has {used} bytes, the budget is {self.budget}")
        directory = self.path / name
        directory.mkdir(mode=0o700)
        return directory

    def used(self) -> int:
        """Return the bytes on disk under our directory."""
        total = 0
        for parent, _, names in os.walk(self.path):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    status = os.lstat(os.path.join(parent, name))
                    total += status.st_blocks * 512 if stat.S_ISREG(status.st_mode) else 0
        return total

    def check(self, request: p.Request[Any]) -> None:
        """Refuse a request that would leave the fence.

        :raise HarnessError: naming what is outside.
        """
        domain = request.name if isinstance(request, p.DomainCreate) else getattr(request, "domain", PREFIX)
        if not domain.startswith(PREFIX) and not _is_uuid(domain):
            raise HarnessError(f"refused to touch domain {domain!r}: its name does not begin with {PREFIX}")
        for path in _paths(request):
            if os.path.isabs(path) and not Path(os.path.normpath(path)).is_relative_to(self.path):
                raise HarnessError(f"refused to use {path}: it is outside of {self.path}")

    def close(self) -> None:
        """End what still runs on our files and remove our directory."""
        end_users_of(self.path)
        shutil.rmtree(self.path, ignore_errors=True)


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def _paths(request: p.Request[Any]) -> list[str]:
    match request:
        case p.Setup(root=root):
            return [root]
        case p.DomainCreate(disks=disks):
            return [disk.path for disk in disks]
        case p.SnapshotCreate(memory=memory, disks=chosen):
            targets = [disk.target for disk in chosen or () if disk.target]
            return targets if memory in ("yes", "no") else [memory, *targets]
        case _:
            return []


def end_users_of(directory: Path) -> list[int]:
    """End the processes whose command line names files of `directory`; return their ids.

    The directory's name is unique, so that these are ours: a driver that died has left them.
    """
    needle = f"{directory}{os.sep}"
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and any(needle in word for word in process.cmdline()):
                process.terminate()
                left.append(process)
    _, alive = psutil.wait_procs(left, timeout=END_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    return [process.pid for process in left]
