# SPDX-License-Identifier: LGPL-2.1-or-later
"""One QMP connection to a QEMU process: commands and events, every wait limited."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qemu.qmp import (
    ConnectError,
    EventListener,
    ExecInterruptedError,
    ExecuteError,
    Message,
    QMPClient,
    QMPError,
    Runstate,
)

from ..errors import HostTimeoutError, QemuDiedError, QmpError
from .process import ProcessPaths, directory_address, last_words, living_pid

CONNECT_SECONDS = 20.0
"""A starting QEMU under TCG on a busy machine takes well under a second; a monitor in use never answers."""

COMMAND_SECONDS = 60.0
"""No command that we use waits for the guest; disk flushes can take long."""

PROGRESS_SECONDS = 30.0
"""How long a migration may stand still before it is given up."""

_TURNS_TO_READ = 4
"""Turns of the event loop until what is in the socket has been read and handed out."""

_MIGRATING = frozenset({"setup", "active", "cancelling", "device", "wait-unplug"})


class _Client(QMPClient):
    """The library's client without its log, for which it would write out every message once more."""

    def _cb_outbound(self, msg: Message) -> Message:
        return msg

    def _cb_inbound(self, msg: Message) -> Message:
        return msg


class _Running(EventListener):
    """Follows whether the guest runs. Keeps no events, which would pile up."""

    def __init__(self) -> None:
        super().__init__()
        self.now = False
        self.changes = 0

    def accept(self, event: Message) -> bool:
        if event["event"] in ("STOP", "RESUME"):
            self.now = event["event"] == "RESUME"
            self.changes += 1
        return False


class Monitor:
    """A monitor of a running QEMU. Use `connect`, and `close` when done."""

    def __init__(self, client: QMPClient, paths: ProcessPaths) -> None:
        self._client = client
        self._paths = paths
        self._migrated = False
        self._running = _Running()
        client.register_listener(self._running)

    @classmethod
    async def connect(cls, paths: ProcessPaths, path: Path, *, timeout: float = CONNECT_SECONDS) -> Monitor:
        """Connect to the monitor socket `path` of the process.

        :raise QemuDiedError: if the process has ended; its last words are in the message.
        :raise HostTimeoutError: if it does not greet us in time: it hangs, or another client is connected.
        """
        client = _Client("xlsnap")
        client.logger.disabled = True  # errors are reported once, by us
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with directory_address(path) as address:
                connection.connect(address)
            connection.setblocking(False)
            async with asyncio.timeout(timeout):
                await client.connect(connection)
        except TimeoutError:
            connection.close()
            raise HostTimeoutError(
                f"QEMU did not answer on {path} within {timeout:g} s",
                hint="it hangs, or another program is connected to this monitor",
            ) from None
        except (ConnectError, OSError) as error:
            connection.close()
            raise _died(paths, error) from error
        return cls(client, paths)

    async def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, *, timeout: float = COMMAND_SECONDS
    ) -> Any:
        """Run a QMP command and return its result.

        :raise QmpError: if QEMU refuses it.
        :raise QemuDiedError: if QEMU ends meanwhile.
        :raise HostTimeoutError: if there is no answer within `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._client.execute(command, arguments)
        except ExecuteError as error:
            raise QmpError(command, error.error.error.desc) from error
        except TimeoutError:
            raise HostTimeoutError(f"QEMU did not answer {command} within {timeout:g} s") from None
        except (ExecInterruptedError, QMPError, EOFError, OSError) as error:
            raise _died(self._paths, error) from error

    async def status(self, *, timeout: float = COMMAND_SECONDS) -> str:
        """Return QEMU's run state."""
        changes = self._running.changes
        status = str((await self.execute("query-status", timeout=timeout))["status"])
        if changes == self._running.changes:  # an event that came with the answer is newer
            self._running.now = status == "running"
        return status

    async def says_running(self) -> bool:
        """Say whether QEMU has told that the guest runs, and not that it has stopped since.

        It tells all its clients of each stop, whatever the reason. False means that it has to be asked.
        """
        for _ in range(_TURNS_TO_READ):
            await asyncio.sleep(0)
        return self._client.runstate is Runstate.RUNNING and self._running.now

    async def pass_fd(self, name: str, fd: int) -> None:
        """Give QEMU a file descriptor that later commands refer to by `name`."""
        try:
            self._client.send_fd_scm(fd)
        except (QMPError, OSError) as error:
            raise _died(self._paths, error) from error
        await self.execute("getfd", {"fdname": name})

    async def migrate(self, command: str, arguments: Mapping[str, object]) -> None:
        """Run `migrate` or `migrate-incoming` until all is transferred.

        Only `resume` may come next without `settle`.
        The limit is on standing still, not on the whole: a large memory may take long.

        :raise QmpError: if the migration fails.
        """
        with self.listening("MIGRATION") as events:
            await self.execute(command, arguments)
            transferred = -1
            while True:
                change = await self.next_event(events, PROGRESS_SECONDS)
                status = None if change is None else change["status"]
                if status == "completed":
                    self._migrated = True
                    return
                if status == "failed":
                    info = await self.execute("query-migrate")
                    raise QmpError(command, info.get("error-desc", "it failed"))
                if status is None:
                    info = await self.execute("query-migrate")
                    now = info.get("ram", {}).get("transferred", 0)
                    if now == transferred:
                        raise HostTimeoutError(f"{command} made no progress for {PROGRESS_SECONDS:g} s")
                    transferred = now

    async def finish_migration(self) -> bool:
        """Wait for the end of a migration that is going on; say whether there was one."""
        found = False
        with self.listening("MIGRATION") as events:
            while (await self.execute("query-migrate")).get("status") in _MIGRATING:
                found = True
                if await self.next_event(events, PROGRESS_SECONDS) is None:
                    raise HostTimeoutError(f"a migration did not end within {PROGRESS_SECONDS:g} s")
        return found

    async def abandon_migration(self) -> None:
        """End the migration of a paused guest, if one is going on: it would take the disks away at its end.

        That of a live snapshot goes on: it takes nothing away, and must not be ended (`memory._choose_kind`).
        """
        if (await self.execute("query-migrate")).get("status") not in _MIGRATING:
            return
        capabilities = await self.execute("query-migrate-capabilities")
        if any(each["capability"] == "background-snapshot" and each["state"] for each in capabilities):
            return
        await self.execute("migrate_cancel")
        await self.finish_migration()
        self._migrated = True
        await self.settle()

    async def settle(self) -> None:
        """Wait until QEMU has done with a migration, which is a while after it has announced its end."""
        if self._migrated:
            async with asyncio.timeout(PROGRESS_SECONDS):
                while await self.status() in {"finish-migrate", "inmigrate"}:
                    await asyncio.sleep(0.0005)
            self._migrated = False

    async def resume(self) -> None:
        """Let the guest run. QEMU refuses that while it has not done with a migration, which is rare."""
        try:
            await self.execute("cont")
        except QmpError:
            if not self._migrated:
                raise
            await self.settle()
            await self.execute("cont")
        self._migrated = False

    def listening(self, *names: str) -> contextlib.AbstractContextManager[EventListener]:
        """Collect events of these names from now on, for `next_event`."""
        return self._client.listener(names)

    async def next_event(self, events: EventListener, timeout: float) -> dict[str, Any] | None:
        """Return the data of the next event, or None if none comes within `timeout` seconds.

        :raise QemuDiedError: if QEMU ends meanwhile.
        """
        event = asyncio.ensure_future(events.get())
        changed = asyncio.ensure_future(self._client.runstate_changed())
        try:
            await asyncio.wait({event, changed}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if event.done():
                data: Any = event.result()["data"]
                return dict(data)
            if changed.done() or self._client.runstate is not Runstate.RUNNING:
                raise _died(self._paths, EOFError("monitor closed"))
            return None
        finally:
            event.cancel()
            changed.cancel()

    async def quit(self) -> None:
        """Ask QEMU to end; that it closes the connection is not an error here."""
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                await self._client.execute("quit")
        except (QMPError, EOFError, OSError, TimeoutError):
            pass

    async def close(self) -> None:
        """Disconnect; the QEMU goes on."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._client.disconnect()
        except (QMPError, EOFError, OSError, TimeoutError):
            pass


def _died(paths: ProcessPaths, error: BaseException) -> QemuDiedError:
    words = last_words(paths)
    if living_pid(paths) is None:
        return QemuDiedError(f"QEMU ended: {words}" if words else "QEMU ended without a word")
    return QemuDiedError(f"lost the connection to QEMU: {error}")
