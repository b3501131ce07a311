# SPDX-License-Identifier: LGPL-2.1-or-later
"""The safety fence: the suite touches nothing but its own domains and its own directory.

Every request passes `Fence.check` on its way to the driver: its domain must have the suite's prefix and its
paths must be inside the suite's directory. When the fence is closed, whatever still runs on files of that
directory is ended and the directory is removed, also after a failure or Ctrl-C. What a run that was killed
has left behind, the next one removes: nobody holds the lock of its directory any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import stat
import tempfile
import time
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

_LOCK = "lock"


class Fence:
    """A directory of the suite's own, with a byte budget. A context manager: leaving it removes it."""

    def __init__(self, base: Path | None = None, *, budget: int = DEFAULT_BUDGET) -> None:
        """Make the directory, of mode 0700, under `base` (default: the system's directory for such)."""
        sweep(base or Path(tempfile.gettempdir()))
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base)).resolve()
        self._lock = _locked(self.path)
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
        self._check_budget()
        directory = self.path / name
        directory.mkdir(mode=0o700)
        return directory

    def _check_budget(self) -> None:
        used = self.used()
        if used > self.budget:
            raise HarnessError(f"{self.path} has {used} bytes, the budget is {self.budget}")

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
        """Refuse a request that would leave the fence, or write more when the byte budget is used up.

        :raise HarnessError: naming what is outside.
        """
        if isinstance(request, p.DomainCreate | p.SnapshotCreate | p.SnapshotRevert):
            self._check_budget()
        domain = request.name if isinstance(request, p.DomainCreate) else getattr(request, "domain", PREFIX)
        if not domain.startswith(PREFIX) and not _is_uuid(domain):
            raise HarnessError(f"refused to touch domain {domain!r}: its name does not begin with {PREFIX}")
        for path in _paths(request):
            if os.path.isabs(path) and not Path(os.path.normpath(path)).is_relative_to(self.path):
                raise HarnessError(f"refused to use {path}: it is outside of {self.path}")

    def close(self) -> None:
        """End what still runs on our files and remove our directory. Once more is no error."""
        if self._lock < 0:
            return
        _remove(self.path)
        os.close(self._lock)
        self._lock = -1


def _locked(directory: Path) -> int:
    """Hold a lock on a directory of ours; it ends with our process. Return its file descriptor."""
    new = directory / "lock.new"
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    new.rename(directory / _LOCK)  # under this name it is never seen without the lock
    return fd


def sweep(base: Path) -> list[Path]:
    """Remove the directories under `base` that runs of ours have left when they were killed; return them."""
    removed = []
    for lock in base.glob(f"{PREFIX}*/{_LOCK}"):
        try:
            fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue  # somebody else's, or gone by now
        try:
            if os.fstat(fd).st_uid != os.getuid():
                continue
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(lock.parent)
            removed.append(lock.parent)
        except BlockingIOError:
            continue  # its run goes on
        finally:
            os.close(fd)
    return removed


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


def _remove(directory: Path) -> None:
    """End what runs on a directory and remove it; again, while a driver that ends still works in it."""
    end = time.monotonic() + END_SECONDS
    while True:
        end_users_of(directory)
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists() or time.monotonic() > end:
            return
        time.sleep(0.05)


def end_users_of(directory: Path) -> list[int]:
    """End the processes whose command line names files of `directory`; return their ids.

    The directory's name is unique, so that these are ours: a driver that died has left them.
    """
    left = users_of(directory)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(left, timeout=END_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    return [process.pid for process in left]


def users_of(directory: Path) -> list[psutil.Process]:
    """Return our processes whose command line names files of `directory`."""
    needle = f"{directory}{os.sep}"
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = process.pid != os.getpid() and process.uids().real == os.getuid()
            if ours and any(needle in word for word in process.cmdline()):
                found.append(process)
    return found
