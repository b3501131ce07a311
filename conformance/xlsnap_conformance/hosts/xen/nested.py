# SPDX-License-Identifier: LGPL-2.1-or-later
"""A running nested host: boot it or resume it, talk to its dom0, freeze it, end it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from qemu.qmp import ExecuteError, QMPClient, QMPError

from .build import Built
from .failure import XenHostError
from .link import Link
from .machine import CHANNELS, SHARE_TAG, Machine, Places, check_memory

BOOT_SECONDS = 240.0
"""Booting under TCG takes 15 s on an idle machine; this is for one with ten times the load."""

RESUME_SECONDS = 90.0
QMP_SECONDS = 60.0
STOP_SECONDS = 10.0

_AGENT_RETRY = 1.0  # a request that was sent before the agent listened is lost
_LOOK_SECONDS = 0.2
_RETRY_SECONDS = 0.02
_UNPACKING = "/mnt"
_CONSOLE_LINES = 15
_LOST = ("Panic on CPU", "Kernel panic", "] FAILED: ")
"""What the console says when there is no use in waiting: Xen, the kernel, dom0's `init`."""

Say = Callable[[str], None]


class NestedHost:
    """A nested host whose QEMU is a process of ours, or of an earlier command of ours.

    ``link`` is the connection to its dom0, ``places`` says where its sockets and logs are.
    """

    def __init__(
        self, places: Places, pid: int, link: Link, process: asyncio.subprocess.Process | None = None
    ) -> None:
        self.places = places
        self.pid = pid
        self.link = link
        self._process = process  # if it is ours

    @classmethod
    async def boot(cls, machine: Machine, built: Built, places: Places, say: Say) -> NestedHost:
        """Boot Xen and dom0, and wait for the agent.

        :raise XenHostError: if that does not come to its end; with the last lines of the console.
        """
        say("booting Xen")
        process = await _start(machine, built, places, incoming=False)
        try:
            link = await _connected(process, places, BOOT_SECONDS, _until_answer)
        except BaseException:
            await _kill(process)
            raise
        return cls(places, process.pid, link, process)

    @classmethod
    async def resume(
        cls, machine: Machine, built: Built, frozen: Path, places: Places, say: Say
    ) -> NestedHost:
        """Go on where a host was frozen; its clock is set.

        :raise XenHostError: if the image cannot be loaded.
        """
        say("resuming Xen")
        process = await _start(machine, built, places, incoming=True)
        try:
            await _load(process, places, frozen)
            link = await _connected(process, places, RESUME_SECONDS, _wake)
        except BaseException:
            await _kill(process)
            raise
        return cls(places, process.pid, link, process)

    @classmethod
    async def attach(cls, places: Places) -> NestedHost:
        """Connect to a host that runs already.

        :raise XenHostError: if it does not.
        """
        pid = running(places.run)
        if pid is None:
            raise XenHostError("no nested Xen host runs: start one with 'host xen start'")
        try:
            link = await Link.connect(places.run / "agent.sock")
        except OSError as error:
            raise XenHostError(f"cannot reach the nested host: {error.strerror}") from None
        try:
            await _until_answer(link)
        except BaseException:
            await link.close()
            raise
        return cls(places, pid, link)

    async def free_port(self) -> str:
        """Return the name of a port that carries nothing.

        :raise XenHostError: if all are in use.
        """
        used = (await self.link.ask("ping"))["ports"]
        for name in CHANNELS:
            if name not in used:
                return name
        raise XenHostError("all ports of the nested Xen host are in use")

    async def mount_share(self, path: str) -> None:
        """Mount the shared directory in dom0 at ``path``. A host with a mounted share cannot be frozen."""
        await self.link.check(["mkdir", "-p", path])
        options = "trans=virtio,version=9p2000.L,msize=512000,cache=none,access=any"
        await self.link.check(["mount", "-t", "9p", "-o", options, SHARE_TAG, path])

    async def unpack(self, archive: bytes) -> None:
        """Unpack a tar archive at the root of dom0, by way of the shared directory."""
        with tempfile.NamedTemporaryFile(dir=self.places.share, prefix=".xlsnap-", suffix=".tar") as file:
            file.write(archive)
            file.flush()
            await self.mount_share(_UNPACKING)
            try:
                await self.link.check(["tar", "-xf", f"{_UNPACKING}/{Path(file.name).name}", "-C", "/"])
            finally:
                await self.link.check(["umount", _UNPACKING])

    async def freeze(self, image: Path) -> None:
        """Write all of the host to a new file, and end it.

        :raise XenHostError: if QEMU refuses, which it does while the share is mounted.
        """
        await self.link.close()
        async with _monitor(self.places) as monitor:
            await _execute(monitor, "stop")
            fd = os.open(image, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                await _execute(monitor, "migrate-set-parameters", {"max-bandwidth": 1 << 40})
                await _migrate(monitor, fd, "migrate")
            except BaseException:
                image.unlink()
                with contextlib.suppress(XenHostError):
                    await _execute(monitor, "cont")
                raise
            finally:
                os.close(fd)
        await self._end()

    async def _end(self) -> None:
        await end(self.pid)
        if self._process is not None:
            await self._process.wait()

    async def stop(self) -> None:
        """End the host at once, as pulling the plug does."""
        await self.link.close()
        await self._end()


def running(run: Path) -> int | None:
    """Return the process of the host with this directory, if it runs."""
    try:
        pid = int((run / "pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(run / "monitor.sock") in command else None


async def end(pid: int) -> None:
    """End a QEMU process and wait until it is gone."""
    limit = time.monotonic() + STOP_SECONDS
    number = signal.SIGTERM
    while True:
        if _gone(pid):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if time.monotonic() > limit:
            number = signal.SIGKILL
        await asyncio.sleep(0.05)


def _gone(pid: int) -> bool:
    """Say whether a process has ended; its parent, which may be us, need not have asked for its status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def console_tail(run: Path, lines: int = _CONSOLE_LINES) -> str:
    """Return the last lines that hypervisor and dom0 have written."""
    try:
        text = (run / "console.log").read_bytes()[-20000:].decode(errors="replace")
    except OSError:
        return ""
    return "\n".join([line.rstrip() for line in text.splitlines() if line.strip()][-lines:])


async def _start(
    machine: Machine, built: Built, places: Places, *, incoming: bool
) -> asyncio.subprocess.Process:
    check_memory()
    places.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in (*places.run.glob("*.sock"), *places.run.glob("*.log")):
        old.unlink()
    with open(places.run / "qemu.log", "wb") as log:
        process = await asyncio.create_subprocess_exec(
            *machine.command(built, places, incoming=incoming),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (places.run / "pid").write_text(f"{process.pid}\n")
    return process


async def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


async def _connected(
    process: asyncio.subprocess.Process,
    places: Places,
    seconds: float,
    until: Callable[[Link], Any],
) -> Link:
    """Return a link to the agent, once ``until`` has come to its end with it."""
    link: Link | None = None
    try:
        async with asyncio.timeout(seconds):
            while link is None:
                if process.returncode is not None:
                    raise _qemu_ended(places)
                try:
                    link = await Link.connect(places.run / "agent.sock")
                except OSError:
                    await asyncio.sleep(0.05)
            waiting = asyncio.ensure_future(until(link))
            try:
                while not waiting.done():
                    await asyncio.wait((waiting,), timeout=_LOOK_SECONDS)
                    if process.returncode is not None:
                        raise _qemu_ended(places)
                    _look_at_console(places)
                waiting.result()
            finally:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
    except BaseException as error:
        if link is not None:
            await link.close()
        if isinstance(error, TimeoutError):
            raise XenHostError(
                f"the nested Xen host did not come up within {seconds:g} s; its console ends with",
                detail=console_tail(places.run) or "(nothing)",
            ) from None
        raise
    return link


async def _until_answer(link: Link) -> None:
    while True:
        with contextlib.suppress(XenHostError):
            await link.ask("ping", seconds=_AGENT_RETRY)
            return


async def _wake(link: Link) -> None:
    while True:
        seed = base64.b64encode(os.urandom(64)).decode()
        with contextlib.suppress(XenHostError):
            await link.ask("wake", seconds=_AGENT_RETRY, now=time.time(), seed=seed)
            return


def _look_at_console(places: Places) -> None:
    tail = console_tail(places.run)
    if any(word in tail for word in _LOST):
        raise XenHostError("the nested Xen host failed to boot; its console ends with", detail=tail)


def _qemu_ended(places: Places) -> XenHostError:
    text = (places.run / "qemu.log").read_text(errors="replace").strip()
    return XenHostError("QEMU ended", detail=text or console_tail(places.run))


async def _load(process: asyncio.subprocess.Process, places: Places, frozen: Path) -> None:
    fd = os.open(frozen, os.O_RDONLY | os.O_CLOEXEC)
    try:
        async with _monitor(places, process) as monitor:
            await _migrate(monitor, fd, "migrate-incoming")
            await _execute(monitor, "cont")
    finally:
        os.close(fd)


@asynccontextmanager
async def _monitor(
    places: Places, process: asyncio.subprocess.Process | None = None
) -> AsyncIterator[QMPClient]:
    """Yield a connection to QEMU's monitor; one that ``process`` is about to open is waited for."""
    client = QMPClient("xlsnap-conformance")
    client.logger.disabled = True  # errors are told once, by us
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        async with asyncio.timeout(QMP_SECONDS):
            while connection.connect_ex(str(places.run / "monitor.sock")) != 0:
                if process is None or process.returncode is not None:
                    raise _qemu_ended(places)
                await asyncio.sleep(_RETRY_SECONDS)
            connection.setblocking(False)
            await client.connect(connection)
    except XenHostError:
        connection.close()
        raise
    except (OSError, QMPError, TimeoutError) as error:
        connection.close()
        raise XenHostError(f"QEMU does not answer: {error}") from None
    try:
        yield client
    finally:
        with contextlib.suppress(QMPError, EOFError, OSError):
            await client.disconnect()


async def _execute(monitor: QMPClient, command: str, arguments: dict[str, object] | None = None) -> Any:
    try:
        async with asyncio.timeout(QMP_SECONDS):
            return await monitor.execute(command, arguments)
    except ExecuteError as error:
        raise XenHostError(f"QEMU refused {command}: {error.error.error.desc}") from None
    except (QMPError, OSError, EOFError, TimeoutError) as error:
        raise XenHostError(f"QEMU did not answer {command}: {error}") from None


async def _migrate(monitor: QMPClient, fd: int, command: str) -> None:
    monitor.send_fd_scm(fd)
    await _execute(monitor, "getfd", {"fdname": "image"})
    await _execute(monitor, command, {"uri": "fd:image"})
    limit = time.monotonic() + RESUME_SECONDS
    while True:
        info = await _execute(monitor, "query-migrate")
        if info.get("status") == "completed":
            return
        if info.get("status") == "failed":
            raise XenHostError(f"QEMU could not {command}: {info.get('error-desc', 'no reason given')}")
        if time.monotonic() > limit:
            raise XenHostError(f"QEMU: {command} takes more than {RESUME_SECONDS:g} s")
        await asyncio.sleep(0.05)
