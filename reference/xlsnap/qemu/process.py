# SPDX-License-Identifier: LGPL-2.1-or-later
"""QEMU processes: start one, tell whether it lives, end it.

Each process has a directory of its own under the domain's: pid file, sockets, log. QEMU holds a lock on its
pid file as long as it lives, so the kernel tells us who lives; a number alone could be another's by now.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from ..domain import DomainConfig
from ..errors import HostError, HostTimeoutError
from ..steps import DiskImage
from .command_line import Sockets, command_line

BINARY = "qemu-system-x86_64"
STOP_SECONDS = 5.0
"""How long a QEMU that was asked to quit may take before it is killed."""

_FLOCK = struct.Struct("hhqqi")  # struct flock on 64-bit Linux: type, whence, start, length, pid


class ProcessPaths(msgspec.Struct, frozen=True):
    """The files of one QEMU process."""

    directory: Path

    @property
    def pidfile(self) -> Path:
        """Written and locked by QEMU."""
        return self.directory / "pid"

    @property
    def control(self) -> Path:
        """Monitor for operations; they hold the domain's lock."""
        return self.directory / "control.sock"

    @property
    def session(self) -> Path:
        """Monitor for one program that stays connected between its operations."""
        return self.directory / "session.sock"

    @property
    def session_lock(self) -> Path:
        """Held by the program that uses the session monitor: a monitor has room for one client."""
        return self.directory / "session.lock"

    @property
    def status(self) -> Path:
        """Monitor for quick looks at the run state, free while an operation uses the other."""
        return self.directory / "status.sock"

    @property
    def loaded(self) -> Path:
        """Made when a memory image has been loaded in full."""
        return self.directory / "loaded"

    @property
    def console(self) -> Path:
        """First serial port."""
        return self.directory / "console.sock"

    @property
    def log(self) -> Path:
        """QEMU's standard error."""
        return self.directory / "qemu.log"


def find_binary(name: str = BINARY) -> str:
    """Return the path of a QEMU program.

    :raise HostError: if it is not installed.
    """
    path = shutil.which(name)
    if path is None:
        package = "qemu-utils" if name == "qemu-img" else "qemu-system-x86"
        raise HostError(f"{name} is not installed", hint=f"install the package {package}, or add it to PATH")
    return path


def living_pid(paths: ProcessPaths) -> int | None:
    """Return the pid of the QEMU that holds the pid file, or None when it has ended."""
    try:
        fd = os.open(paths.pidfile, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(f"cannot read {paths.pidfile}: {error.strerror}") from error
    try:
        answer = fcntl.fcntl(fd, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(fd)
    kind, _, _, _, pid = _FLOCK.unpack(answer)
    return None if kind == fcntl.F_UNLCK else pid


def last_words(paths: ProcessPaths) -> str:
    """Return the last line that QEMU wrote to its standard error, or an empty string."""
    try:
        text = paths.log.read_bytes()[-4096:].decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix(f"{BINARY}: ") if lines else ""


def spawn(
    config: DomainConfig,
    paths: ProcessPaths,
    *,
    uuid: str,
    accelerator: str,
    paused: bool = False,
    incoming: bool = False,
    chains: Mapping[str, Sequence[DiskImage]] = {},
) -> subprocess.Popen[bytes]:
    """Start a QEMU process; it may still fail: connecting to its monitor tells.

    The listening sockets are ours and inherited: a client can connect at once, and the length of the
    path does not matter.
    """
    binary = find_binary()
    try:
        paths.directory.mkdir(mode=0o700)
        with contextlib.ExitStack() as stack:
            addresses = (paths.control, paths.session, paths.status, paths.console)
            sockets = Sockets(*(stack.enter_context(listening(path)) for path in addresses))
            log = stack.enter_context(open(os.open(paths.log, os.O_WRONLY | os.O_CREAT, 0o600), "wb"))
            arguments = command_line(
                config,
                binary=binary,
                uuid=uuid,
                accelerator=accelerator,
                pidfile=str(paths.pidfile),
                sockets=sockets,
                paused=paused,
                incoming=incoming,
                chains=chains,
            )
            return subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=msgspec.structs.astuple(sockets),
                start_new_session=True,
                cwd="/",
                umask=0o077,
            )
    except OSError as error:
        raise HostError(f"cannot start QEMU in {paths.directory}: {error.strerror}") from error


@contextlib.contextmanager
def listening(path: Path) -> Iterator[int]:
    """Yield the file descriptor of a Unix socket that listens on `path`, mode 0600."""
    with directory_address(path) as address, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(address)
        os.chmod(path, 0o600)
        listener.listen(4)
        yield listener.fileno()


@contextlib.contextmanager
def directory_address(path: Path) -> Iterator[str]:
    """Yield an address of a Unix socket that is short however long its path is (107 bytes are the limit)."""
    fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{path.name}"
    finally:
        os.close(fd)


async def wait_for_end(paths: ProcessPaths, pid: int, timeout: float) -> bool:
    """Wait until the process has ended, for at most `timeout` seconds; say whether it has."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(pidfd, ended.set)
    try:
        if living_pid(paths) != pid:
            return True
        await asyncio.wait_for(ended.wait(), timeout)
        return True
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


@contextlib.asynccontextmanager
async def brief(
    *command: str, seconds: float, output: int = asyncio.subprocess.DEVNULL
) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.Timeout]]:
    """Run a process that has to end within a time, which can be put off; afterwards it has ended.

    :raise TimeoutError: if it took longer and was killed.
    """
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
    )
    try:
        async with asyncio.timeout(seconds) as limit:
            yield process, limit
            await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def kill(paths: ProcessPaths) -> None:
    """End the process with SIGKILL if it lives; what it has not written is lost.

    :raise HostTimeoutError: if the kernel does not end it, as with a disk that hangs.
    """
    pid = living_pid(paths)
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    if not await wait_for_end(paths, pid, STOP_SECONDS):
        raise HostTimeoutError(f"QEMU process {pid} did not end within {STOP_SECONDS:g} s of SIGKILL")


def remove_directory(paths: ProcessPaths) -> None:
    """Remove the files of a process that has ended."""
    shutil.rmtree(paths.directory, ignore_errors=True)


def cpu_seconds(paths: ProcessPaths) -> float:
    """Return the CPU time that the process has used, in seconds."""
    import psutil

    pid = living_pid(paths)
    try:
        times = psutil.Process(pid).cpu_times() if pid else None
    except psutil.Error:
        return 0.0
    return times.user + times.system if times else 0.0
