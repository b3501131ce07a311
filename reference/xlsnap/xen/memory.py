# SPDX-License-Identifier: LGPL-2.1-or-later
"""Memory images on Xen: save files of `xl`, written through a pipe.

`xl` would truncate a file that exists, make a new one readable for all, and leave a part of it when there is
no space. So the file is ours from its first instant and `xl` gets a pipe. That also allows file systems to
which libxc cannot write directly from the guest's pages (9p: "Bad address").
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from ..errors import HostError
from . import xl

PIECE_BYTES = 1 << 20
"""Also the size that the pipe is given: fewer changes between `xl` and us."""

_F_SETPIPE_SZ = 1031


async def save_memory(domid: int, path: str, *, note: Path) -> None:
    """Let `xl` save the memory of a running domain to a new file of mode 0600, and leave it paused.

    :raise HostError: if that fails; the file is gone then, and the domain runs again, if it lives.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(f"cannot create memory image {path}: {error.strerror}") from error
    try:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        copying = asyncio.ensure_future(asyncio.to_thread(_copy, reader, fd))
        try:
            await xl.change(
                *("save", "-p", str(domid), f"/proc/self/fd/{writer}"), note=note, pass_fds=(writer,)
            )
        finally:
            os.close(writer)
            problem = await copying
        if problem is not None:
            raise HostError(f"cannot write memory image {path}: {problem.strerror}")
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        if isinstance(error, xl.XlError) and copying.done() and (lack := copying.result()) is not None:
            raise HostError(f"cannot write memory image {path}: {lack.strerror}") from error
        raise
    finally:
        os.close(fd)


def _copy(reader: int, fd: int) -> OSError | None:
    """Copy a pipe to a file; after an error read on, so that `xl` is not held up, and say what it was."""
    problem = None
    try:
        while content := os.read(reader, PIECE_BYTES):
            while content and problem is None:
                try:
                    content = content[os.write(fd, content) :]
                except OSError as error:
                    problem = error
    finally:
        os.close(reader)
    return problem
