# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pass the lines of the driver protocol on, and change the one thing that means something else in dom0.

A console is a terminal in dom0. The suite gets a Unix socket here instead: whoever connects to it is
connected with the terminal, through a port of the nested host.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from ...hosts.xen.failure import XenHostError
from ...hosts.xen.machine import CHANNELS
from ...hosts.xen.nested import NestedHost
from ...sockets import short_address

CHUNK = 1 << 16


class Questions:
    """Remembers which requests are about consoles, to recognize the replies (pure but for that)."""

    def __init__(self) -> None:
        self._asked: set[object] = set()

    def request(self, line: bytes) -> None:
        """Look at a request on its way."""
        with contextlib.suppress(ValueError, AttributeError):
            call = json.loads(line)
            if call.get("verb") == "domain_console":
                self._asked.add(call.get("id"))

    def console(self, line: bytes) -> str | None:
        """Return the path of the console that a reply tells; None if it tells of none."""
        if not self._asked:
            return None
        try:
            reply = json.loads(line)
            if reply["id"] not in self._asked:
                return None
            self._asked.discard(reply["id"])
            return str(reply["result"]["unix"]) if reply["ok"] else None
        except (ValueError, KeyError, TypeError):
            return None


def with_console(line: bytes, path: Path) -> bytes:
    """Return a reply with another path of the console."""
    reply = json.loads(line)
    reply["result"]["unix"] = str(path)
    return json.dumps(reply).encode() + b"\n"


@dataclass(slots=True)
class Ports:
    """The ports of a host that nobody else uses."""

    free: list[str] = field(default_factory=lambda: list(CHANNELS))

    def take(self) -> str:
        """Return a port.

        :raise XenHostError: if there is none left.
        """
        if not self.free:
            raise XenHostError(f"more than {len(CHANNELS)} consoles at a time")
        return self.free.pop(0)

    def give(self, port: str) -> None:
        """Take a port back; it is used again after all others."""
        self.free.append(port)


class Console:
    """A Unix socket that stands for a terminal in dom0. The last who connects has it."""

    def __init__(self, host: NestedHost, ports: Ports, terminal: str) -> None:
        self._host = host
        self._ports = ports
        self._terminal = terminal
        self._session: asyncio.Task[None] | None = None

    async def listen(self, path: Path) -> asyncio.Server:
        """Begin to listen."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with short_address(path) as address:
            listener.bind(address)
        return await asyncio.start_unix_server(self._accepted, sock=listener)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        previous = self._session
        self._session = asyncio.current_task()
        if previous is not None:
            previous.cancel()
            await asyncio.gather(previous, return_exceptions=True)
        try:
            await self._serve(reader, writer)
        except (XenHostError, OSError):
            pass  # the terminal is gone: so is the console
        except asyncio.CancelledError:
            pass  # somebody else has connected
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = self._ports.take()
        try:
            inner = await asyncio.open_unix_connection(self._host.places.run / f"{port}.sock")
            try:
                ended = await self._host.link.use(port, "connect", path=self._terminal)
                await first_of(pump(reader, inner[1]), pump(inner[0], writer), ended)
            finally:
                inner[1].close()
                await asyncio.shield(self._host.link.ask("end", port=port))
        finally:
            self._ports.give(port)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on until there are no more."""
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()


async def first_of(*work: Awaitable[object]) -> None:
    """Wait until one of these is done, and cancel the others."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Relay:
    """Lines from the suite to the driver in dom0 and back."""

    def __init__(self, host: NestedHost, ports: Ports) -> None:
        self._host = host
        self._ports = ports
        self._questions = Questions()
        self._consoles: dict[str, tuple[Path, asyncio.Server]] = {}

    async def forward(self, requests: asyncio.StreamReader, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Pass requests on until the suite hangs up."""
        while line := await requests.readline():
            self._questions.request(line)
            await send(line)

    async def back(self, replies: asyncio.StreamReader, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Pass replies on until the driver ends."""
        while line := await replies.readline():
            terminal = self._questions.console(line)
            if terminal is not None:
                line = with_console(line, await self._console(terminal))
            await send(line)

    async def _console(self, terminal: str) -> Path:
        if terminal not in self._consoles:
            path = self._host.places.run / f"console{len(self._consoles)}.sock"
            server = await Console(self._host, self._ports, terminal).listen(path)
            path.chmod(0o600)
            self._consoles[terminal] = path, server
        return self._consoles[terminal][0]
