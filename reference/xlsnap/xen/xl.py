# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run `xl`, with a limit on every wait, and say in one line why it failed.

A command that makes or ends a domain, or saves its memory, is never ended by us: `xl` would leave a domain
that is half made, or one that nobody lets run again. If our own process is killed it goes on, in a session of
its own, and the next operation on the domain waits for it: its id is in a file until it has been seen to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import select
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..errors import HostError, HostTimeoutError
from ..store import write_durably

LOOK_SECONDS = 30.0
"""How long a command may take that only looks."""

ATTEMPTS = 3
"""How often one is tried that dies of a signal: xl 4.17 can crash on a domain that ends meanwhile."""

CHANGE_SECONDS = 600.0
"""How long one may take that makes or ends a domain: large guests and slow disks are slow."""

_PREFIX = re.compile(r"(?:libxl|xc|xl): (?:error|warning): (?:\S+?:\d+:\w+: ?)?(?:Domain \d+: ?)?")
_SAYS_LITTLE = re.compile(r"cannot \(re-\)build domain|Internal error$|: -\d+$")


class XlError(HostError):
    """`xl` ended with another status than 0; its own words are in the message."""


def binary() -> str:
    """Return the path of `xl`.

    :raise HostError: if there is none.
    """
    found = shutil.which("xl")
    if found is None:
        raise HostError("xl is not installed", hint="install the package xen-utils, or add it to PATH")
    return found


def reason(stderr: str) -> str:
    """Return the line of `xl`'s standard error that says most: the first complaint that is not a number."""
    lines = [line.strip() for line in stderr.replace("\r", "\n").splitlines() if line.strip()]
    errors = [line for line in lines if ": error: " in line] or lines[-1:]
    telling = [line for line in errors if not _SAYS_LITTLE.search(line)] or errors
    return _PREFIX.sub("", telling[0]) if telling else ""


def look(*arguments: str) -> str:
    """Run a command that only looks, and return what it prints.

    :raise XlError: if it fails.
    """
    for _ in range(ATTEMPTS):
        try:
            done = subprocess.run(
                [binary(), *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=LOOK_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise HostTimeoutError(f"xl {arguments[0]} did not end within {LOOK_SECONDS:g} s") from None
        if done.returncode >= 0:
            break
    if done.returncode != 0:
        raise failed(arguments[0], done.returncode, done.stderr)
    return done.stdout.decode(errors="replace")


def failed(command: str, status: int, stderr: bytes) -> XlError:
    """Return the error that says why a command failed."""
    ending = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    return XlError(f"xl {command} failed: {reason(stderr.decode(errors='replace')) or ending}")


async def change(
    *arguments: str, note: Path, pass_fds: Sequence[int] = (), timeout: float = CHANGE_SECONDS
) -> None:
    """Run a command that changes a domain, to its end even if we are cancelled; `note` tells of it meanwhile.

    :raise XlError: if it fails.
    :raise HostTimeoutError: if it takes too long; it goes on.
    """
    process = await asyncio.create_subprocess_exec(
        binary(),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        pass_fds=pass_fds,
    )
    write_durably(note, f"{process.pid} {_started(process.pid)}\n".encode())
    ending = asyncio.ensure_future(process.communicate())
    try:
        await asyncio.wait({ending}, timeout=timeout)
    except asyncio.CancelledError:
        await asyncio.wait({ending}, timeout=timeout)  # so that what is undone next is whole
        raise
    finally:
        if ending.done():
            note.unlink(missing_ok=True)
    if not ending.done():
        raise HostTimeoutError(f"xl {arguments[0]} did not end within {timeout:g} s", hint="it goes on")
    if process.returncode:
        raise failed(arguments[0], process.returncode, ending.result()[1])


async def wait_for_left_behind(note: Path) -> None:
    """Wait for a command that a toolstack has begun which was killed then.

    :raise HostTimeoutError: if it does not end.
    """
    try:
        pid, started = note.read_text().split()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return
    if _started(int(pid)) == started:
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(int(pid))
            try:
                ended: tuple[list[int], list[int], list[int]] = await asyncio.to_thread(
                    select.select, [fd], [], [], CHANGE_SECONDS
                )
            finally:
                os.close(fd)
            if not ended[0]:
                raise HostTimeoutError(f"xl (process {pid}) of an interrupted operation does not end")
    note.unlink(missing_ok=True)


def _started(pid: int) -> str:
    """Return when a process was started, in ticks since the boot: a pid alone could be another's by now."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return "-"
