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
    """Throw away what is still there from an earlier use."""
    while select.select([fd], [], [], 0)[0]:
        os.set_blocking(fd, False)
        try:
            if not os.read(fd, CHUNK):
                break
        except BlockingIOError:
            break
        finally:
            os.set_blocking(fd, True)


def relay(port: int, other: int, stop: threading.Event) -> None:
    """Pass bytes both ways until one side is closed."""
    while not stop.is_set():
        for fd in select.select([port, other], [], [], 0.5)[0]:
            try:
                data = os.read(fd, CHUNK)
                if not data:
                    return
                write_all(other if fd == port else port, data)
            except OSError:  # EIO: nobody has the terminal open any more
                return


class Stream:
    """What a port is used for at present."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
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
        return {"status": status, "out": _text(out), "err": _text(err)}

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

        Standard error goes to the file ``log``, or to the port too. ``terminal`` is rows and columns: then
        the process gets a terminal, which the port is connected to.
        """
        stream = self._claim(port)
        environment = os.environ | (env or {})
        error = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if log else None
        ours = theirs = -1
        try:
            if terminal:
                ours, theirs = pty.openpty()
                termios.tcsetwinsize(theirs, (terminal[0], terminal[1]))
            end = theirs if terminal else stream.fd
            stream.process = subprocess.Popen(
                argv,
                stdin=end,
                stdout=end,
                stderr=end if error is None else error,
                env=environment,
                cwd=cwd,
                start_new_session=True,
                preexec_fn=_control_terminal if terminal else None,
            )
        except BaseException:
            self._release(port, stream)
            raise
        finally:
            for fd in (error, theirs if terminal else None):
                if fd is not None:
                    os.close(fd)
        stream.terminal = ours if terminal else None
        threading.Thread(target=self._watch, args=(port, stream), daemon=True).start()
        return {"pid": stream.process.pid}

    def resize(self, port: str, rows: int, columns: int) -> Result:
        """Tell a terminal its new size."""
        stream = self._streams[port]
        if stream.terminal is not None:
            termios.tcsetwinsize(stream.terminal, (rows, columns))
        return {}

    def _watch(self, port: str, stream: Stream) -> None:
        assert stream.process is not None
        if stream.terminal is not None:
            relay(stream.fd, stream.terminal, stream.stop)
            os.close(stream.terminal)
        status = stream.process.wait()
        self._release(port, stream)
        self._tell({"ended": port, "status": status})

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
    import fcntl

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


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
