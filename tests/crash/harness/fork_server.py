# SPDX-License-Identifier: LGPL-2.1-or-later
"""Functions in processes of their own, at the price of a fork: they can be killed and break nothing else.

A server process has all modules imported and forks for each call. It is the reaper of everything that its
calls leave behind: a QEMU whose toolstack was killed becomes its child. When the server ends, or the test
process that started it, those end with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import psutil
from xlsnap.errors import InternalError, XlsnapError

CALL_SECONDS = 120.0
"""No call takes longer, unless it hangs."""

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)

_reports: Connection | None = None


@dataclass(frozen=True)
class Failure:
    """An exception in a call: its class, what it says, and the exit status if the package raises it."""

    kind: str
    message: str
    exit_code: int | None
    trace: str

    @property
    def is_clean(self) -> bool:
        """Whether it is what a user may see: one line, and not our bug."""
        return self.exit_code not in (None, InternalError.exit_code) and "\n" not in self.message

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" if self.is_clean else self.trace


@dataclass(frozen=True)
class Outcome:
    """How a call ended: with a value, a failure, or neither if the process was killed."""

    value: Any
    failure: Failure | None
    reports: tuple[Any, ...]
    killed: bool

    def unwrap(self) -> Any:
        """Return the value.

        :raise AssertionError: if there is none.
        """
        assert not self.killed, f"killed; reports: {self.reports}"
        assert self.failure is None, str(self.failure)
        return self.value


@dataclass(frozen=True)
class Call:
    """A function to run, and what to run before it in the same process."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    prepare: tuple[Callable[[], None], ...] = ()


class ForkServer:
    """The client's side."""

    def __init__(self, *, wrapper: Sequence[str] = ()) -> None:
        """Start the server, under a command such as ``unshare``."""
        self._connection, theirs = Pipe()
        with theirs:
            program = f"import fork_server; fork_server.serve({theirs.fileno()})"
            command = [*wrapper, sys.executable, "-c", program]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)

    def call(
        self, function: Callable[..., Any], *arguments: Any, prepare: Iterable[Callable[[], None]] = ()
    ) -> Outcome:
        """Run a function in a process of its own; `prepare` is run before it in the same process."""
        (outcome,) = self.call_at_once(Call(function, arguments, tuple(prepare)))
        return outcome

    def call_at_once(self, *calls: Call) -> list[Outcome]:
        """Run several functions at the same time, each in a process of its own.

        :raise TimeoutError: if one hangs; the server is of no more use then.
        """
        self._connection.send(calls)
        if not self._connection.poll(CALL_SECONDS):
            self.close()
            raise TimeoutError(f"a call did not end within {CALL_SECONDS:g} s")
        outcomes: list[Outcome] = self._connection.recv()
        return outcomes

    def close(self) -> None:
        """End the server and all that its calls have left."""
        self._connection.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            kill(psutil.Process(self._process.pid).children(recursive=True))
            self._process.kill()
            self._process.wait()


def report(item: Any) -> None:
    """Tell the caller something at once, from within a call."""
    if _reports is not None:
        _reports.send(item)


def guests() -> list[psutil.Process]:
    """Return the QEMU processes that this call, or an earlier one of this server, has started."""
    processes = [*psutil.Process(os.getppid()).children(), *psutil.Process().children()]
    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if process.name().startswith("qemu-system") and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def kill(processes: Iterable[psutil.Process]) -> None:
    """End processes with SIGKILL and wait until they have ended; nobody's child is reaped by this."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            pidfd = os.pidfd_open(process.pid)
            try:
                process.send_signal(signal.SIGKILL)
                select.select([pidfd], [], [], 10)
            finally:
                os.close(pidfd)


# --- the server's side ----------------------------------------------------------------------------------


def serve(fd: int) -> None:
    """Take calls from a connection until it ends."""
    _preload()
    connection = Connection(fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        while True:
            calls: Sequence[Call] = connection.recv()
            started = [_fork(call, connection) for call in calls]
            connection.send([_collect(pid, reader) for pid, reader in started])
            _reap()
    except EOFError:
        pass
    finally:
        kill(psutil.Process().children(recursive=True))


def _fork(call: Call, connection: Connection) -> tuple[int, Connection]:
    """Begin a call; return its process and where it reports."""
    reader, writer = Pipe(duplex=False)
    pid = os.fork()
    if pid == 0:
        reader.close()
        connection.close()
        _run(call, writer)
    writer.close()
    return pid, reader


def _collect(pid: int, reader: Connection) -> Outcome:
    """Wait for the end of a call."""
    received = []
    with reader, contextlib.suppress(EOFError):
        while True:
            received.append(reader.recv())
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        return Outcome(None, None, tuple(received), killed=True)
    *reports, (value, failure) = received
    return Outcome(value, failure, tuple(reports), killed=False)


def _run(call: Call, writer: Connection) -> None:
    """Run a call in the child, which never returns from here."""
    global _reports
    _reports = writer
    value, failure = None, None
    try:
        for prepare in call.prepare:
            prepare()
        value = call.function(*call.arguments)
        pickle.dumps(value)
    except BaseException as error:
        exit_code = error.exit_code if isinstance(error, XlsnapError) else None
        value, failure = None, Failure(type(error).__name__, str(error), exit_code, traceback.format_exc())
    writer.send((value, failure))
    os._exit(0)


def _reap() -> None:
    """Collect orphans that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _preload() -> None:
    """Import what the calls need, so that none spends time on it."""
    import filelock  # noqa: F401
    import verdict  # noqa: F401
    import xlsnap.qemu  # noqa: F401
