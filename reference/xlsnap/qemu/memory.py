# SPDX-License-Identifier: LGPL-2.1-or-later
"""Memory images: written and read by migration over a file descriptor."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .. import savefile
from ..errors import HostError, QmpError, SnapshotDamagedError
from ..savefile import SaveHeader
from .background import reserve
from .monitor import Monitor

_FILE = "memory"
"""Names the file descriptor in QEMU; another one of this name takes its place."""


async def prepare_image(monitor: Monitor, path: str, header: SaveHeader, *, live: bool) -> int:
    """Make a new file of mode 0600 for a domain's memory, and let QEMU have it; `write_image` closes it.

    With `live` there is space for all of the memory afterwards, and QEMU is ready to protect it. That can
    take as long as writing down a small memory, so that it should be done while the domain still runs.

    :raise HostError: if that fails; the file is gone then, and one that was there before is untouched.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(f"cannot create memory image {path}: {error.strerror}") from error
    try:
        with _all_or_nothing(path):
            savefile.write_header(fd, header)
            if live:
                reserve(fd, savefile.HEADER_BYTES, header.config.memory_mib << 20)
            await asyncio.gather(monitor.pass_fd(_FILE, fd), _choose_kind(monitor, live=live))
    except BaseException:
        os.close(fd)
        raise
    return fd


async def write_image(monitor: Monitor, path: str, fd: int, *, live: bool) -> None:
    """Write the memory of a paused domain to a file that is ready, and close that.

    With `live` QEMU lets the domain run again as soon as the state of its devices is written, and saves each
    page of memory before it changes.

    :raise HostError: if that fails; the file is gone then.
    """
    try:
        with _all_or_nothing(path):
            await monitor.migrate("migrate", {"uri": f"fd:{_FILE}"})
            if live:
                await monitor.settle()
                os.ftruncate(fd, os.fstat(fd).st_size)  # gives back what was reserved beyond the end
            savefile.mark_complete(fd)
    finally:
        os.close(fd)


async def give_up_file(monitor: Monitor) -> None:
    """Let QEMU close a file that was ready; one that it has not is no error."""
    with contextlib.suppress(QmpError):
        await monitor.execute("closefd", {"fdname": _FILE})


@contextlib.contextmanager
def _all_or_nothing(path: str) -> Iterator[None]:
    """Remove a memory image that cannot be written, and say why it cannot."""
    try:
        yield
    except BaseException as error:
        Path(path).unlink(missing_ok=True)
        if isinstance(error, OSError | QmpError):
            reason = error.strerror if isinstance(error, OSError) else error.description
            raise HostError(f"cannot write memory image {path}: {reason}") from error
        raise


async def _choose_kind(monitor: Monitor, *, live: bool) -> None:
    """Decide whether the next migration leaves the domain running.

    QEMU does that only without `late-block-activate`, which a process has that was loaded itself, and which
    means nothing afterwards. Asked every time, because what earlier ones chose stays, and said only where
    it differs: QEMU tries to protect all memory whenever it is told to, and the guest may wait for that.

    A toolstack that was killed can have left a migration. That is waited for: QEMU 7.2 can hang for good when
    it ends one before its time while the guest runs (see `background.reserve`).
    """
    wanted = {"late-block-activate": False, "background-snapshot": live}
    answer, _ = await asyncio.gather(
        monitor.execute("query-migrate-capabilities"), monitor.finish_migration()
    )
    present = {item["capability"]: item["state"] for item in answer}
    changed = [
        {"capability": key, "state": value} for key, value in wanted.items() if present.get(key) is not value
    ]
    if not changed:
        return
    try:
        await monitor.execute("migrate-set-capabilities", {"capabilities": changed})
    except QmpError as error:
        if not live:
            raise
        raise HostError(
            f"no live snapshot of this domain: {error.description}",
            hint="its QEMU must be started by root, or by a user who may use userfaultfd",
        ) from error


def open_memory_image(path: str) -> tuple[int, SaveHeader]:
    """Open a memory image for loading; the caller closes the file descriptor, which is at the stream.

    :raise SnapshotDamagedError: if it is missing, incomplete or not one.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise SnapshotDamagedError(f"memory image {path}: {error.strerror}") from error
    try:
        return fd, savefile.read_header(fd, where=path)
    except BaseException:
        os.close(fd)
        raise


async def load_memory(monitor: Monitor, fd: int) -> None:
    """Load a memory image into a process that waits for one."""
    await monitor.pass_fd(_FILE, fd)
    await monitor.migrate("migrate-incoming", {"uri": f"fd:{_FILE}"})
    await monitor.settle()
