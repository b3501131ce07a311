# SPDX-License-Identifier: LGPL-2.1-or-later
"""Memory images: written and read by migration over a file descriptor."""

from __future__ import annotations

import contextlib
import os

from .. import savefile
from ..errors import HostError, QmpError, SnapshotDamagedError
from ..savefile import SaveHeader
from .background import reserve
from .monitor import Monitor


async def save_memory(monitor: Monitor, path: str, header: SaveHeader, *, live: bool = False) -> None:
    """Write the memory of a paused domain to a new file of mode 0600.

    With `live` QEMU lets the domain run again as soon as the state of its devices is written, and saves each
    page of memory before it changes.

    :raise HostError: if that fails; the file is gone then, and one that was there before is untouched.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(f"cannot create memory image {path}: {error.strerror}") from error
    try:
        savefile.write_header(fd, header)
        await monitor.pass_fd("memory", fd)
        if live:
            reserve(fd, savefile.HEADER_BYTES, header.config.memory_mib << 20)
        await _choose_kind(monitor, live=live)
        try:
            await monitor.migrate("migrate", {"uri": "fd:memory"})
        finally:
            if live:
                with contextlib.suppress(HostError):
                    await _choose_kind(monitor, live=False)
        if live:
            os.ftruncate(fd, os.fstat(fd).st_size)  # gives back what was reserved beyond the end
        savefile.mark_complete(fd)
    except BaseException as error:
        os.unlink(path)
        if isinstance(error, OSError | QmpError):
            reason = error.strerror if isinstance(error, OSError) else error.description
            raise HostError(f"cannot write memory image {path}: {reason}") from error
        raise
    finally:
        os.close(fd)


async def _choose_kind(monitor: Monitor, *, live: bool) -> None:
    """Decide whether the next migration leaves the domain running.

    QEMU does that only without `late-block-activate`, which a process has that was loaded itself, and which
    means nothing afterwards. Said every time, because a toolstack that was killed can have left it otherwise;
    it can even have left a migration. That is waited for: QEMU 7.2 can hang for good when it ends one before
    its time while the guest runs (see `background.reserve`).
    """
    wanted = {"late-block-activate": False, "background-snapshot": live}
    arguments = {"capabilities": [{"capability": key, "state": value} for key, value in wanted.items()]}
    try:
        await monitor.execute("migrate-set-capabilities", arguments)
    except QmpError as error:
        if await monitor.finish_migration():
            await monitor.execute("migrate-set-capabilities", arguments)
        elif live:
            raise HostError(
                f"no live snapshot of this domain: {error.description}",
                hint="its QEMU must be started by root, or by a user who may use userfaultfd",
            ) from error
        else:
            raise


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
    await monitor.pass_fd("memory", fd)
    await monitor.migrate("migrate-incoming", {"uri": "fd:memory"})
