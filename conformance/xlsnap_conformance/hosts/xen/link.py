# SPDX-License-Identifier: LGPL-2.1-or-later
"""Our end of the link to the agent in dom0 (`dom0/agent.py`), over a Unix socket of QEMU's.

Requests can be sent while others are not answered yet. A port of its own carries each byte stream; the link
only says what it is connected to, and tells when that has ended.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .failure import XenHostError

ANSWER_SECONDS = 60.0
"""Limit of an answer; a command in dom0 has its own on top."""

LINE_LIMIT = 64 << 20
"""Longest answer in bytes."""

T = TypeVar("T")

_PART = 1 << 20  # bytes of a file in one request


@dataclass(frozen=True, slots=True)
class Done:
    """What a command in dom0 came to. ``status`` is negative for a signal."""

    status: int
    out: str
    err: str


class Link:
    """Connection to an agent. Use `connect`, and `close` when done."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._prefix = f"{os.getpid()}-{os.urandom(4).hex()}"
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._used: dict[str, asyncio.Future[int]] = {}
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, path: Path) -> Link:
        """Connect to the socket of the agent's port. Whether an agent is there, `ask` will tell.

        :raise OSError: if nobody listens at the path.
        """
        return cls(*await asyncio.open_unix_connection(path, limit=LINE_LIMIT))

    async def close(self) -> None:
        """Hang up. What was started goes on."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _read(self) -> None:
        try:
            while line := await self._reader.readline():
                with contextlib.suppress(ValueError):  # half a line that an earlier client has left
                    self._take(json.loads(line))
        except (OSError, ValueError):
            pass
        finally:
            _give_up(self._waiting.values())
            _give_up(self._used.values())

    def _take(self, message: dict[str, Any]) -> None:
        if "ended" in message:
            _settle(self._used.pop(message["ended"], None), message["status"])
        else:
            _settle(self._waiting.pop(str(message.get("id")), None), message)

    async def ask(self, do: str, *, seconds: float = ANSWER_SECONDS, **arguments: Any) -> dict[str, Any]:
        """Send a request and return the reply.

        :raise XenHostError: if dom0 refuses it, does not answer in time, or has ended.
        """
        if self._task.done():
            raise XenHostError("the nested host has ended")
        id = f"{self._prefix}-{next(self._numbers)}"
        waiting: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[id] = waiting
        try:
            self._writer.write(json.dumps({"id": id, "do": do, **arguments}).encode() + b"\n")
            async with asyncio.timeout(seconds):
                await self._writer.drain()
                reply = await waiting
        except TimeoutError:
            raise XenHostError(f"dom0 did not answer '{do}' within {seconds:g} s") from None
        except OSError:
            raise XenHostError("the nested host has ended") from None
        finally:
            self._waiting.pop(id, None)
        if "error" in reply:
            raise XenHostError(f"dom0: {do}: {reply['error']}")
        return reply

    async def run(
        self, argv: Sequence[str], *, seconds: float = 120.0, env: Mapping[str, str] | None = None
    ) -> Done:
        """Run a command in dom0.

        :raise XenHostError: if it does not exist, or does not end in time.
        """
        reply = await self.ask(
            "run", seconds=seconds + ANSWER_SECONDS, argv=list(argv), env=dict(env or {}), limit=seconds
        )
        if reply["status"] is None:
            raise XenHostError(f"{argv[0]} in dom0 did not end within {seconds:g} s", detail=reply["err"])
        return Done(reply["status"], reply["out"], reply["err"])

    async def check(self, argv: Sequence[str], *, seconds: float = 120.0) -> str:
        """Run a command in dom0 that should succeed; return its output.

        :raise XenHostError: if it fails, too.
        """
        done = await self.run(argv, seconds=seconds)
        if done.status != 0:
            raise XenHostError(f"{' '.join(argv)} in dom0: status {done.status}", detail=done.err or done.out)
        return done.out

    async def put(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Write a file in dom0."""
        for start in range(0, max(len(data), 1), _PART):
            part = base64.b64encode(data[start : start + _PART]).decode()
            await self.ask("put", path=path, data=part, mode=mode, append=start > 0)

    async def get(self, path: str) -> bytes:
        """Return the content of a file in dom0."""
        parts: list[bytes] = []
        while True:
            reply = await self.ask("get", path=path, offset=sum(map(len, parts)), size=_PART)
            part = base64.b64decode(reply["data"])
            if not part:
                return b"".join(parts)
            parts.append(part)

    async def use(self, port: str, do: str, **arguments: Any) -> asyncio.Future[int]:
        """Let a port carry a stream: ``do`` is ``start`` or ``connect``. Connect to its socket before.

        Return a future of the exit status with which that will end.

        :raise XenHostError: if it carries one already, or dom0 refuses.
        """
        if port in self._used:
            raise XenHostError(f"port {port} is in use")
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._used[port] = ended
        try:
            await self.ask(do, port=port, **arguments)
        except BaseException:
            self._used.pop(port, None)
            raise
        return ended


def _settle(waiting: asyncio.Future[T] | None, result: T) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(result)


def _give_up(all_waiting: Iterable[asyncio.Future[Any]]) -> None:
    for waiting in all_waiting:
        if not waiting.done():
            waiting.set_exception(XenHostError("the nested host has ended"))
            waiting.exception()  # it may be of no interest to anybody
