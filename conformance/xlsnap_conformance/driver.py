# SPDX-License-Identifier: LGPL-2.1-or-later
"""The suite's end of the driver protocol: start a driver, ask it, and end it whatever happens.

A broken driver is the harness's fault (`DriverError`), a refusal is the implementation's answer
(`ImplementationError`). After a `DriverError` nothing more can be asked.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import msgspec

from .drivers import command_of
from .failures import DriverError, HarnessError, ImplementationError
from .protocol import PROTOCOL, VERB_OF, VERBS, Call, Hello, HelloResult, R, Reply, Request, Setup, Teardown

END_SECONDS = 10.0
"""How long a driver may take to end after its standard input was closed, and again after SIGTERM."""

UNKNOWN_SECONDS = 30.0
"""How long a verb may take that is not one of the protocol."""

LINE_LIMIT = 16 << 20
"""Longest reply in bytes."""

DIRECTORY_VARIABLE = "XLSNAP_DIRECTORY"
"""Environment variable that tells a driver under which directory all files of the run will be.

One whose domains run on another machine shares it with that from the start."""

LOGS_VARIABLE = "XLSNAP_LOGS"
"""Environment variable of a directory, which need not exist, where a driver can leave logs for the report."""

_LOG_TAIL = 4000  # characters of the driver's log in an error


class Driver:
    """A running driver. A context manager: leaving it ends the subprocess.

    ``hello`` is its answer to the first request. ``calls`` counts the requests. ``time_scale`` is what every
    limit is multiplied by: the driver tells how much slower its machine is. ``broken`` says why it cannot
    be asked any more; None while it can. ``ended_by`` is the signal that was needed to end it, if any.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        limits: Mapping[str, float] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start the subprocess and greet it.

        :param log: file that gets its standard error; made with mode 0600, appended to.
        :param limits: time limits in seconds by verb, instead of the protocol's.
        :raise DriverError: if it cannot be started, or does not speak the protocol.
        """
        self.command = tuple(command)
        self.log = log
        self.calls = 0
        self._limits = {name: verb.seconds for name, verb in VERBS.items()} | dict(limits or {})
        self._buffer = b""
        self.broken: str | None = None
        self.ended_by: str | None = None
        self.time_scale = 1.0
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=fd,
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # Ctrl-C is for us; we end the driver in order
            )
        except OSError as error:
            raise DriverError(f"cannot start driver {shlex.join(self.command)}: {error.strerror}") from error
        finally:
            os.close(fd)
        try:
            self.hello = self._greet()
            self.time_scale = max(1.0, self.hello.time_scale)
        except BaseException:
            self.close()
            raise

    @classmethod
    def start(
        cls,
        driver: str,
        *,
        log: Path,
        limits: Mapping[str, float] | None = None,
        directory: Path | None = None,
    ) -> Driver:
        """Start the driver with this name or command line; see `drivers.command_of`.

        :param directory: under which all files of the run are; the driver's environment tells it.
        """
        environment = None if directory is None else {DIRECTORY_VARIABLE: str(directory)}
        return cls(command_of(driver), log=log, limits=limits, environment=environment)

    def _greet(self) -> HelloResult:
        hello = self.call(Hello())
        if hello.protocol != PROTOCOL:
            raise DriverError(f"the driver speaks protocol {hello.protocol}, this suite {PROTOCOL}")
        return hello

    @property
    def capabilities(self) -> frozenset[str]:
        """What the implementation claims to be able to do."""
        return frozenset(self.hello.capabilities)

    @property
    def pid(self) -> int:
        """Process id of the driver."""
        return self._process.pid

    def __enter__(self) -> Driver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def setup(self, root: Path) -> None:
        """Give the driver its directory."""
        self.call(Setup(root=str(root)))

    def teardown(self) -> None:
        """Let the driver remove what it made."""
        self.call(Teardown())

    def call(self, request: Request[R]) -> R:
        """Send a request and return its result.

        :raise ImplementationError: if the implementation refused it.
        :raise DriverError: if the driver broke the protocol, died, or was too slow.
        """
        verb = VERB_OF[type(request)]
        return self.ask(verb, request, cast("type[R]", VERBS[verb].result))

    def ask(self, verb: str, request: Request[Any], result: type[R]) -> R:
        """Send a request by the name of its verb, which may be one that nobody knows.

        :raise ImplementationError: if it is refused.
        :raise DriverError: as `call`.
        """
        if self.broken is not None:
            raise DriverError(f"the driver cannot be asked any more: {self.broken}", log=self.log_tail())
        self.calls += 1
        try:
            line = msgspec.json.encode(
                Call(id=self.calls, verb=verb, args=msgspec.Raw(msgspec.json.encode(request)))
            )
            self._send(line + b"\n", verb)
            seconds = self._limits.get(verb, UNKNOWN_SECONDS) * self.time_scale
            reply = self._reply(self._receive(verb, seconds), verb)
            if reply.ok:
                return cast("R", self._decoded(reply.result, result, verb))
        except DriverError as error:
            self.broken = error.message
            raise
        except BaseException as error:  # an interrupt: the reply would be taken for that of the next request
            self.broken = f"{verb} was interrupted ({type(error).__name__})"
            raise
        assert reply.error is not None  # `_reply` has looked
        raise ImplementationError(reply.error.kind, " ".join(reply.error.message.split()))

    def _send(self, line: bytes, verb: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except OSError:
            raise self._error(f"{verb}: the driver has ended ({self._ending()})") from None

    def _receive(self, verb: str, seconds: float) -> bytes:
        """Return the next line of the driver's standard output."""
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        end = time.monotonic() + seconds
        chunks = [self._buffer]
        while b"\n" not in chunks[-1]:
            left = end - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], left)[0]:
                raise self._error(f"{verb}: no reply from the driver within {seconds:g} s")
            chunks.append(os.read(fd, 1 << 16))
            if not chunks[-1]:
                raise self._error(f"{verb}: the driver ended instead of replying ({self._ending()})")
            if sum(map(len, chunks)) > LINE_LIMIT:
                raise self._error(f"{verb}: a reply of more than {LINE_LIMIT} bytes")
        line, self._buffer = b"".join(chunks).split(b"\n", 1)
        return line

    def _reply(self, line: bytes, verb: str) -> Reply:
        shown = line[:200].decode(errors="replace")
        try:
            reply = msgspec.json.decode(line, type=Reply)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._error(f"{verb}: the reply is not one of the protocol: {error}: {shown!r}") from None
        if reply.id != self.calls:
            raise self._error(f"{verb}: the reply has id {reply.id}, the request {self.calls}: {shown!r}")
        if not reply.ok and reply.error is None:
            raise self._error(f"{verb}: the reply is not ok, but has no error: {shown!r}")
        return reply

    def _decoded(self, raw: msgspec.Raw, kind: type[msgspec.Struct], verb: str) -> object:
        try:
            return msgspec.json.decode(raw, type=kind)
        except msgspec.MsgspecError as error:
            shown = bytes(raw)[:200].decode(errors="replace")
            raise self._error(f"{verb}: the result has another form: {error}: {shown!r}") from None

    def _error(self, message: str) -> DriverError:
        return DriverError(message, log=self.log_tail())

    def _ending(self) -> str:
        try:
            status = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "it closed its output"
        return f"killed by signal {-status}" if status < 0 else f"exit status {status}"

    def log_tail(self) -> str:
        """Return the end of the driver's log."""
        with contextlib.suppress(OSError):
            return self.log.read_bytes()[-_LOG_TAIL:].decode(errors="replace").strip()
        return ""

    def close(self) -> None:
        """End the subprocess: close its input, then SIGTERM, then SIGKILL. Once more is no error."""
        process = self._process
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        for end in (None, signal.SIGTERM, signal.SIGKILL):
            if end is not None:
                process.send_signal(end)
                self.ended_by = end.name
            try:
                process.wait(timeout=END_SECONDS if self.broken is None else END_SECONDS / 5)
                return
            except subprocess.TimeoutExpired:
                continue
        raise HarnessError(f"driver process {process.pid} did not end after SIGKILL")
