#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The agent in dom0: does what it is asked over a virtio-serial port, one JSON object a line.

Each request has an ``id`` and says in ``do`` what to do (`Agent` lists it); the reply has the same id, and
``error`` if it failed. A long command does not hold up the requests after it.

A port other than the agent's is a plain byte stream between the outer host and a process (`start`), or a
terminal or Unix socket (`connect`) here. That it has come to its end is told by a line without an id:
``{"ended": PORT, "status": N}``.

Standard library only: this file runs alone in dom0. With ``--ports DIRECTORY`` it takes Unix sockets there
for its ports, and can be tested anywhere.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import socket
import stat
import subprocess
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Any

AGENT_PORT = "agent"
CHUNK = 1 << 16
END_SECONDS = 5.0
LOOK_SECONDS = 0.5
LAST_SECONDS = 0.1
"""How long nothing must come from a process that has ended until its output is taken for complete."""

SOCKET_SECONDS = 10.0

Request = dict[str, Any]
Result = dict[str, Any]


def find_port(name: str, directory: str | None) -> str:
    """Return the device of the virtio-serial port with this name, or its socket in ``directory``."""
    if directory:
        return os.path.join(directory, name)
    for entry in Path("/sys/class/virtio-ports").glob("*/name"):
        if entry.read_text().strip() == name:
            return f"/dev/{entry.parent.name}"
    raise FileNotFoundError(f"there is no port {name}")


def open_stream(path: str) -> int:
    """Open a terminal (made raw), a device or a Unix socket for reading and writing; return a descriptor."""
    if stat.S_ISSOCK(os.stat(path).st_mode):
        with socket.socket(socket.AF_UNIX) as end:
            end.settimeout(SOCKET_SECONDS)
            end.connect(path)
            end.setblocking(True)
            return end.detach()
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if os.isatty(fd):
        tty.setraw(fd)
    return fd


def write_all(fd: int, data: bytes) -> None:
    """Write all of it."""
    while data:
        data = data[os.write(fd, data) :]


def drain(fd: int) -> None:
    """Throw away what is still there from an earlier use; the descriptor does not block from then on."""
    os.set_blocking(fd, False)
    while take(fd):
        pass


def give(port: int, data: bytes, stop: threading.Event) -> bool:
    """Write to a port; say whether somebody is there to take it. A port that nobody reads would block."""
    waiting = select.poll()
    waiting.register(port, select.POLLOUT)
    while data:
        events = waiting.poll(LOOK_SECONDS * 1000)
        gone = any(found & (select.POLLHUP | select.POLLERR) for _, found in events)
        if gone or (not events and stop.is_set()):
            return False
        try:
            data = data[os.write(port, data) :]
        except BlockingIOError:
            time.sleep(0.001)
        except OSError:
            return False
    return True


def take(fd: int) -> bytes | None:
    """Read what is there: nothing at the end, None if it was nothing after all."""
    try:
        return os.read(fd, CHUNK)
    except BlockingIOError:
        return None
    except OSError:  # EIO: nobody has the terminal open any more
        return b""


def relay(port: int, other: int, stop: threading.Event, *, halves: bool = False) -> None:
    """Pass bytes both ways until ``other`` is closed, or ``stop`` is set and nothing more comes.

    :param halves: ``other`` is a socket; it gets an end of file when the port is closed, and what it still
        sends is lost. Without it all ends then.
    """
    connected = True
    while True:
        ends = [port, other] if connected else [other]
        ready = select.select(ends, [], [], LAST_SECONDS if stop.is_set() else LOOK_SECONDS)[0]
        if not ready and stop.is_set():
            return
        for fd in ready:
            data = take(fd)
            if data is None:
                continue
            if fd == other:
                if not data:
                    return
                lost = connected and not give(port, data, stop)
            else:
                lost = not data
                with contextlib.suppress(OSError):
                    write_all(other, data)
            if lost and not halves:
                return
            if lost and connected:
                connected = False
                _shut(other)


def _shut(fd: int) -> None:
    with socket.socket(fileno=os.dup(fd)) as end, contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_WR)


class Stream:
    """What a port is used for at present."""

    def __init__(self, fd: int) -> None:
        self.fd = fd  # of the port
        self.stop = threading.Event()
        self.process: subprocess.Popen[bytes] | None = None
        self.ended = threading.Event()
        self.terminal: int | None = None


class Agent:
    """Serves requests; each public method is one."""

    def __init__(self, directory: str | None = None) -> None:
        self._directory = directory
        self._port = open_stream(find_port(AGENT_PORT, directory))
        self._writing = threading.Lock()
        self._streams: dict[str, Stream] = {}

    def serve(self) -> None:
        """Read requests until the port is closed for good (a socket), or for ever (a device)."""
        buffer = b""
        device = self._directory is None
        while True:
            data = os.read(self._port, CHUNK)
            if not data:  # nobody is connected
                if not device:
                    return
                time.sleep(0.02)
                continue
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                if line.strip():
                    threading.Thread(target=self._answer, args=(line,), daemon=True).start()

    def _answer(self, line: bytes) -> None:
        reply: Result = {"id": None}
        try:
            request = json.loads(line)
            reply["id"] = request.pop("id", None)
            method: Callable[..., Result] = _REQUESTS[request.pop("do", None)]
            reply |= method(self, **request)
        except OSError as error:
            reply["error"] = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        except Exception as error:
            reply["error"] = f"{type(error).__name__}: {error}"
        self._tell(reply)

    def _tell(self, message: Result) -> None:
        with self._writing:
            write_all(self._port, json.dumps(message).encode() + b"\n")

    def ping(self) -> Result:
        """Say hello, and which ports are in use."""
        return {"python": sys.version.split()[0], "ports": sorted(self._streams)}

    def wake(self, now: float, seed: str) -> Result:
        """Set the clock, which stood still while the host was frozen, and stir the random numbers."""
        time.clock_settime(time.CLOCK_REALTIME, now)
        Path("/dev/urandom").write_bytes(base64.b64decode(seed))
        return {}

    def run(
        self, argv: list[str], limit: float = 120, env: dict[str, str] | None = None, cwd: str = "/"
    ) -> Result:
        """Run a command with a time limit in seconds; ``status`` is None when that was over."""
        with subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | (env or {}),
            cwd=cwd,
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=limit)
                status: int | None = process.returncode
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                out, err = process.communicate()
                status = None
        texts = [data.decode(errors="surrogateescape") for data in (out, err)]
        return {"status": status, "out": texts[0], "err": texts[1]}

    def put(self, path: str, data: str, mode: int = 0o644, append: bool = False) -> Result:
        """Write a file, or a further part of it."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if append else os.O_TRUNC)
        fd = os.open(path, flags, mode)
        with open(fd, "wb") as file:
            file.write(base64.b64decode(data))
        return {}

    def get(self, path: str, offset: int, size: int) -> Result:
        """Read a part of a file; ``data`` is empty at its end."""
        with open(path, "rb") as file:
            file.seek(offset)
            return {"data": base64.b64encode(file.read(size)).decode()}

    def start(
        self,
        port: str,
        argv: list[str],
        env: dict[str, str] | None = None,
        cwd: str = "/",
        log: str | None = None,
        terminal: list[int] | None = None,
    ) -> Result:
        """Start a process with a port as its standard input and output.

        ``log`` is a second port, for standard error, which goes to the first one otherwise. ``terminal`` is
        rows and columns: then the process gets a terminal, which the port is connected to.
        """
        stream = self._claim(port)
        errors: Stream | None = None
        read_error, write_error = os.pipe()
        ours, theirs = pty.openpty() if terminal else (end.detach() for end in socket.socketpair())
        try:
            errors = self._claim(log) if log else None
            if terminal:
                termios.tcsetwinsize(theirs, (terminal[0], terminal[1]))
            # not the port itself: it has errors of its own, and nobody expects those of standard output
            stream.process = subprocess.Popen(
                argv,
                stdin=theirs,
                stdout=theirs,
                stderr=write_error if errors else theirs,
                env=os.environ | (env or {}),
                cwd=cwd,
                start_new_session=True,
                preexec_fn=_control_terminal if terminal else None,
            )
        except BaseException:
            self._release(port, stream)
            if errors and log:
                self._release(log, errors)
            os.close(ours)
            os.close(read_error)
            raise
        finally:
            os.close(theirs)
            os.close(write_error)
        stream.terminal = ours if terminal else None

        def work() -> None:
            relay(stream.fd, ours, stream.stop, halves=not terminal)

        def complain() -> None:
            while data := take(read_error):
                if errors:
                    give(errors.fd, data, stream.stop)

        threads = [threading.Thread(target=one, daemon=True) for one in (work, complain)]
        for thread in threads:
            thread.start()

        def watch(process: subprocess.Popen[bytes]) -> None:
            status = process.wait()
            stream.stop.set()
            for thread in threads:
                thread.join(END_SECONDS)  # a child of it may hold standard error open
            stream.terminal = None
            os.close(ours)
            os.close(read_error)
            self._release(port, stream)
            if errors and log:
                self._release(log, errors)
            self._tell({"ended": port, "status": status})

        threading.Thread(target=watch, args=(stream.process,), daemon=True).start()
        return {"pid": stream.process.pid}

    def resize(self, port: str, rows: int, columns: int) -> Result:
        """Tell a terminal its new size."""
        stream = self._streams[port]
        if stream.terminal is not None:
            termios.tcsetwinsize(stream.terminal, (rows, columns))
        return {}

    def connect(self, port: str, path: str) -> Result:
        """Connect a port with a terminal or a Unix socket here, until either is closed."""
        stream = self._claim(port)
        try:
            other = open_stream(path)
        except BaseException:
            self._release(port, stream)
            raise
        threading.Thread(target=self._connected, args=(port, stream, other), daemon=True).start()
        return {}

    def _connected(self, port: str, stream: Stream, other: int) -> None:
        try:
            relay(stream.fd, other, stream.stop)
        finally:
            os.close(other)
            self._release(port, stream)
            self._tell({"ended": port, "status": 0})

    def end(self, port: str) -> Result:
        """End what a port is used for, and wait for that. A port that is not used is no error."""
        stream = self._streams.get(port)
        if stream is None:
            return {}
        if stream.process is None:
            stream.stop.set()
        for number in (signal.SIGTERM, signal.SIGKILL):
            if stream.process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(stream.process.pid, number)
            if stream.ended.wait(END_SECONDS):
                break
        return {}

    def _claim(self, port: str) -> Stream:
        if port in self._streams:
            raise ValueError(f"port {port} is in use")
        stream = Stream(open_stream(find_port(port, self._directory)))
        drain(stream.fd)
        self._streams[port] = stream
        return stream

    def _release(self, port: str, stream: Stream) -> None:
        os.close(stream.fd)
        self._streams.pop(port, None)
        stream.ended.set()


def _control_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


_REQUESTS: dict[str | None, Callable[..., Result]] = {
    name: getattr(Agent, name)
    for name in ("ping", "wake", "run", "put", "get", "start", "resize", "connect", "end")
}


def main() -> None:
    """Serve on the port for agents."""
    parser = argparse.ArgumentParser(description="Agent in dom0.")
    parser.add_argument("--ports", metavar="DIRECTORY", help="Unix sockets instead of virtio-serial ports")
    Agent(parser.parse_args().ports).serve()


if __name__ == "__main__":
    main()
