# SPDX-License-Identifier: LGPL-2.1-or-later
"""The agent of dom0 and our end of the link, with the agent as a process here and sockets for its ports."""

import asyncio
import contextlib
import os
import pty
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from xlsnap_conformance.drivers.xen.relay import Console, Ports, Questions, with_console
from xlsnap_conformance.hosts.xen.build import OVERLAY
from xlsnap_conformance.hosts.xen.failure import XenHostError
from xlsnap_conformance.hosts.xen.link import Link
from xlsnap_conformance.hosts.xen.machine import Places
from xlsnap_conformance.hosts.xen.nested import NestedHost

PORTS = ("agent", "channel0", "channel1", "channel2")
SECONDS = 60.0

Test = Callable[[Link, Path], Awaitable[None]]


class Hub:
    """Plays QEMU: joins whoever connects to NAME.sock with the agent, which connects to NAME."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory, self.name = directory, name
        self.inner: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def listen(self) -> list[asyncio.Server]:
        inner = await asyncio.start_unix_server(self._from_inside, self.directory / self.name)
        outer = await asyncio.start_unix_server(self._from_outside, self.directory / f"{self.name}.sock")
        return [inner, outer]

    async def _from_inside(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.inner.put((reader, writer))

    async def _from_outside(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inside = await self.inner.get()
        await asyncio.gather(_pump(reader, inside[1]), _pump(inside[0], writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def agent(directory: Path) -> AsyncIterator[Link]:
    servers = [server for name in PORTS for server in await Hub(directory, name).listen()]
    command = [sys.executable, str(OVERLAY / "agent.py"), "--ports", str(directory)]
    process = await asyncio.create_subprocess_exec(*command)
    link = await Link.connect(directory / "agent.sock")
    try:
        async with asyncio.timeout(SECONDS):
            yield link
    finally:
        await link.close()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        for server in servers:
            server.close()


def check(directory: Path, test: Test) -> None:
    async def work() -> None:
        async with agent(directory) as link:
            await test(link, directory)

    asyncio.run(work())


def test_commands_run_at_the_same_time_and_are_not_mixed_up(tmp_path: Path) -> None:
    async def test(link: Link, directory: Path) -> None:
        slow = asyncio.ensure_future(link.run(["sh", "-c", "sleep 1; echo slow; echo bad >&2; exit 3"]))
        quick = await link.run(["echo", "quick"])
        assert (quick.status, quick.out, slow.done()) == (0, "quick\n", False)
        done = await slow
        assert (done.status, done.out, done.err) == (3, "slow\n", "bad\n")

    check(tmp_path, test)


def test_what_cannot_run_is_said_in_a_line(tmp_path: Path) -> None:
    async def test(link: Link, directory: Path) -> None:
        with pytest.raises(XenHostError, match="dom0: run: no-such-program: No such file or directory"):
            await link.run(["no-such-program"])
        with pytest.raises(XenHostError, match=r"sleep in dom0 did not end within 0\.2 s"):
            await link.run(["sleep", "30"], seconds=0.2)
        with pytest.raises(XenHostError, match="false in dom0: status 1"):
            await link.check(["false"])
        with pytest.raises(XenHostError, match="dom0: get: /no/such: No such file"):
            await link.get("/no/such")
        with pytest.raises(XenHostError, match="dom0: sing: KeyError: 'sing'"):
            await link.ask("sing")

    check(tmp_path, test)


def test_output_of_any_bytes_comes_through(tmp_path: Path) -> None:
    async def test(link: Link, directory: Path) -> None:
        done = await link.run(["printf", r"\377\0a\n"])
        assert done.out.encode(errors="surrogateescape") == b"\xff\0a\n"

    check(tmp_path, test)


@pytest.mark.parametrize("size", [0, 10, (1 << 20) + 5])
def test_a_file_comes_back_as_it_was_put(tmp_path: Path, size: int) -> None:
    async def test(link: Link, directory: Path) -> None:
        data = os.urandom(size)
        path = directory / "file"
        await link.put(str(path), data, 0o600)
        assert path.stat().st_mode & 0o777 == 0o600
        assert await link.get(str(path)) == data == path.read_bytes()

    check(tmp_path, test)


def test_a_process_has_a_port_for_its_input_and_output(tmp_path: Path) -> None:
    async def test(link: Link, directory: Path) -> None:
        for _ in range(2):  # the port can be used again
            reader, writer = await asyncio.open_unix_connection(directory / "channel0.sock")
            errors, _ = await asyncio.open_unix_connection(directory / "channel1.sock")
            script = "echo oops >&2; read word; echo got $word; cat; exit 5"
            ended = await link.use("channel0", "start", argv=["sh", "-c", script], log="channel1")
            assert await errors.readline() == b"oops\n"
            writer.write(b"one\n")
            assert await reader.readline() == b"got one\n"
            assert (await link.ask("ping"))["ports"] == ["channel0", "channel1"]
            with pytest.raises(XenHostError, match="port channel0 is in use"):
                await link.use("channel0", "start", argv=["true"])
            writer.write(b"rest")
            writer.close()  # the end of its input
            assert await ended == 5
            assert (await link.ask("ping"))["ports"] == []

    check(tmp_path, test)


def test_what_a_process_said_last_is_not_lost(tmp_path: Path) -> None:
    async def test(link: Link, directory: Path) -> None:
        reader, _ = await asyncio.open_unix_connection(directory / "channel0.sock")
        ended = await link.use("channel0", "start", argv=["sh", "-c", "yes | head -n 100000"])
        data = b""
        while len(data) < 200000:
            data += await reader.read(1 << 16)
        assert (await ended, data) == (0, b"y\n" * 100000)

    check(tmp_path, test)


def test_a_process_that_is_ended_is_gone(tmp_path: Path) -> None:
    async def test(link: Link, directory: Path) -> None:
        await asyncio.open_unix_connection(directory / "channel0.sock")
        ended = await link.use("channel0", "start", argv=["sleep", "1000"])
        await link.ask("end", port="channel0")
        assert await ended == -15

    check(tmp_path, test)


def test_a_terminal_has_a_size_and_a_shell(tmp_path: Path) -> None:
    async def test(link: Link, directory: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(directory / "channel0.sock")
        ended = await link.use("channel0", "start", argv=["sh"], terminal=[11, 42])
        writer.write(b"stty size; exit 4\n")
        text = b""
        while b"11 42" not in text:
            text += await reader.read(4096)
        assert await ended == 4

    check(tmp_path, test)


def test_a_console_is_handed_over_and_closed_with_its_terminal(tmp_path: Path) -> None:
    async def test(link: Link, directory: Path) -> None:
        guest, end = pty.openpty()
        path = os.ttyname(end)
        host = NestedHost(Places(directory, directory), 0, link)
        server = await Console(host, Ports(["channel0", "channel1"]), path).listen(directory / "console")
        first = await asyncio.open_unix_connection(directory / "console")
        first[1].write(b"a\n")
        assert await asyncio.to_thread(os.read, guest, 100) == b"a\n"  # raw: not echoed, no CR
        second = await asyncio.open_unix_connection(directory / "console")
        second[1].write(b"b\n")
        assert await asyncio.to_thread(os.read, guest, 100) == b"b\n"
        assert await first[0].read() == b"", "who has it no longer is told so"
        os.write(guest, b"pong\n")
        assert await second[0].readline() == b"pong\n"
        os.close(end)
        os.close(guest)
        assert await second[0].read() == b""
        server.close()

    check(tmp_path, test)


def test_a_host_that_ends_is_noticed(tmp_path: Path) -> None:
    async def work() -> None:
        ours, theirs = socket.socketpair()
        link = Link(*await asyncio.open_unix_connection(sock=ours))
        waiting = asyncio.ensure_future(link.ask("ping"))
        await asyncio.sleep(0.1)
        theirs.close()
        with pytest.raises(XenHostError, match="the nested host has ended"):
            await waiting
        with pytest.raises(XenHostError, match="the nested host has ended"):
            await link.ask("ping")
        await link.close()

    asyncio.run(work())


def test_only_the_reply_about_a_console_is_changed() -> None:
    questions = Questions()
    questions.request(b'{"id": 1, "verb": "domain_state", "args": {}}\n')
    questions.request(b'{"id": 2, "verb": "domain_console", "args": {}}\n')
    questions.request(b"not JSON\n")
    assert questions.console(b'{"id": 1, "ok": true, "result": {"unix": "/x"}}\n') is None
    reply = b'{"id": 2, "ok": true, "result": {"unix": "/dev/pts/3"}}\n'
    assert questions.console(reply) == "/dev/pts/3"
    assert questions.console(reply) is None, "a reply is one only once"
    assert with_console(reply, Path("/a")) == b'{"id": 2, "ok": true, "result": {"unix": "/a"}}\n'
    questions.request(b'{"id": 3, "verb": "domain_console", "args": {}}\n')
    assert questions.console(b'{"id": 3, "ok": false, "error": {}}\n') is None


def test_ports_are_finite() -> None:
    ports = Ports(["one"])
    assert ports.take() == "one"
    with pytest.raises(XenHostError, match="consoles at a time"):
        ports.take()
    ports.give("one")
    assert ports.take() == "one"
