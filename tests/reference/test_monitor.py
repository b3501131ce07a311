# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a monitor connection remembers, with a QMP server that says what QEMU says at rare moments."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from xlsnap.errors import QmpError
from xlsnap.qemu.monitor import Monitor
from xlsnap.qemu.process import ProcessPaths

Answer = dict[str, Any]
OK: Answer = {"return": {}}
NOT_FINALIZED: Answer = {"error": {"class": "GenericError", "desc": "Migration is not finalized yet"}}


def status(name: str) -> Answer:
    return {"return": {"status": name}}


def event(name: str, **data: object) -> Answer:
    return {"event": name, "data": data, "timestamp": {"seconds": 0, "microseconds": 0}}


class Server:
    """Answers each command with what was prepared for it, and notes it."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.answers: dict[str, list[Sequence[Answer]]] = {}
        self.writer: asyncio.StreamWriter | None = None

    def say(self, *messages: Answer) -> None:
        assert self.writer is not None
        self.writer.write(b"".join(json.dumps(message).encode() + b"\r\n" for message in messages))

    def answer(self, command: Answer) -> None:
        self.commands.append(command["execute"])
        prepared = self.answers.get(command["execute"])
        answers = prepared.pop(0) if prepared else [OK]
        self.say(*(item if "event" in item else {**item, "id": command.get("id")} for item in answers))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.say({"QMP": {"version": {}, "capabilities": []}})
        try:
            text = ""
            while more := await reader.read(65536):
                text += more.decode()
                while text:  # commands follow each other with nothing in between
                    command, end = json.JSONDecoder().raw_decode(text)
                    text = text[end:]
                    self.answer(command)
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def connected(directory: Path) -> AsyncIterator[tuple[Monitor, Server]]:
    server = Server()
    listening = await asyncio.start_unix_server(server.serve, directory / "qmp")
    async with listening:
        monitor = await Monitor.connect(ProcessPaths(directory), directory / "qmp")
        server.commands.clear()
        try:
            yield monitor, server
        finally:
            await monitor.close()


def test_what_the_guest_does_is_known_from_the_last_answer_or_event(tmp_path: Path) -> None:
    async def told(monitor: Monitor, server: Server, *messages: Answer) -> bool:
        server.say(*messages)
        await monitor.execute("noop")  # QEMU speaks in order
        return await monitor.says_running()

    async def scenario() -> None:
        async with connected(tmp_path) as (monitor, server):
            assert not await monitor.says_running()
            server.answers["query-status"] = [[status("running")], [status("paused")]]
            await monitor.status()
            assert await monitor.says_running()
            assert not await told(monitor, server, event("STOP"))
            assert await told(monitor, server, event("RESUME"))
            assert await told(monitor, server, event("STOP"), event("RESUME"))
            assert not await told(monitor, server, event("RESUME"), event("STOP"))
            assert await told(monitor, server, event("RESUME"), event("RTC_CHANGE", offset=1))
            await monitor.status()
            assert not await monitor.says_running()
            assert server.commands.count("query-status") == 2

    asyncio.run(scenario())


def test_an_event_that_comes_with_an_answer_is_newer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (monitor, server):
            server.answers["query-status"] = [[status("running"), event("STOP")]]
            assert await monitor.status() == "running"
            assert not await monitor.says_running()

    asyncio.run(scenario())


def test_an_event_that_nobody_has_read_yet_counts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (monitor, server):
            server.answers["query-status"] = [[status("running")]]
            await monitor.status()
            server.say(event("STOP"))
            assert not await monitor.says_running()

    asyncio.run(scenario())


async def migrated(monitor: Monitor, server: Server) -> None:
    server.answers["migrate"] = [
        [OK, event("MIGRATION", status="active"), event("MIGRATION", status="completed")]
    ]
    await monitor.migrate("migrate", {"uri": "fd:memory"})


def test_the_guest_runs_again_without_a_question_after_a_migration(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (monitor, server):
            await migrated(monitor, server)
            await monitor.resume()
            await monitor.settle()  # nothing is left to wait for
            assert server.commands == ["migrate", "cont"]

    asyncio.run(scenario())


def test_a_migration_that_is_not_quite_over_is_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (monitor, server):
            await migrated(monitor, server)
            server.answers["cont"] = [[NOT_FINALIZED], [OK]]
            server.answers["query-status"] = [[status("finish-migrate")], [status("postmigrate")]]
            await monitor.resume()
            assert server.commands == ["migrate", "cont", "query-status", "query-status", "cont"]

    asyncio.run(scenario())


def test_a_refusal_for_another_reason_is_an_error(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (monitor, server):
            server.answers["cont"] = [[NOT_FINALIZED]]
            with pytest.raises(QmpError, match="not finalized"):
                await monitor.resume()
            assert server.commands == ["cont"]

    asyncio.run(scenario())


def test_what_is_not_resumed_waits_for_the_end_of_a_migration(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (monitor, server):
            await migrated(monitor, server)
            server.answers["query-status"] = [[status("finish-migrate")], [status("postmigrate")]]
            await monitor.settle()
            await monitor.settle()
            assert server.commands == ["migrate", "query-status", "query-status"]

    asyncio.run(scenario())
