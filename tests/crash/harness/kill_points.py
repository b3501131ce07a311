# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every moment at which an operation can be cut short: counted, named, and struck at.

Moments are before and after each plan, step, QMP command and process that is started, and before each change
of a file. A file that is written also has a moment after it was opened and one in the middle of a write.
"""

from __future__ import annotations

import asyncio
import builtins
import functools
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fork_server import guests, kill, report
from xlsnap.executor import Executor
from xlsnap.qemu import process
from xlsnap.qemu.monitor import Monitor

Victim = Literal["toolstack", "qemu"]


@dataclass(frozen=True)
class Strike:
    """Kill the victims at the event with this number, counted from 0."""

    at: int
    victims: tuple[Victim, ...]


_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TEMPORARY = re.compile(r"\.\d+\.[0-9a-f]+$")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

# Files that are only opened to lock them, or to ask who does.
_LOCKS = ("/lock", "/pid")

# Audit events (PEP 578) that change files: which of their arguments are paths, and which is a directory's fd.
_CHANGES: dict[str, tuple[tuple[int, ...], int | None]] = {
    "os.rename": ((0, 1), 2),
    "os.remove": ((0,), 1),
    "os.mkdir": ((0,), 2),
    "os.rmdir": ((0,), 1),
    "os.truncate": ((0,), None),
    "os.link": ((0, 1), 2),
    "os.symlink": ((0, 1), 2),
    "os.chmod": ((0,), 2),
}

# Changes of files that raise no audit event; each takes a file descriptor first.
_SILENT = ("fsync", "fdatasync", "pwrite", "write")


class KillPoints:
    """Counts the events of one operation under `directory`."""

    def __init__(self, directory: Path, strike: Strike | None) -> None:
        self.directory = str(directory)
        self.strike = strike
        self.count = 0

    def happen(self, name: str) -> None:
        """Note an event; without a strike report it, with one strike when its time has come."""
        number, self.count = self.count, self.count + 1
        if self.strike is None:
            report(name)
        elif number == self.strike.at:
            report(name)
            if "qemu" in self.strike.victims:
                kill(guests())
            if "toolstack" in self.strike.victims:
                os.kill(os.getpid(), signal.SIGKILL)

    # --- steps, commands, processes ---------------------------------------------------------------------

    def around(self, owner: Any, attribute: str, describe: Callable[..., str | None]) -> None:
        """Let a coroutine function raise an event before and after; `describe` names it, or None for none."""
        wrapped: Callable[..., Coroutine[Any, Any, Any]] = getattr(owner, attribute)

        @functools.wraps(wrapped)
        async def noted(*args: Any, **kwargs: Any) -> Any:
            name = describe(*args)
            if name is not None:
                self.happen(f"before {name}")
            result = await wrapped(*args, **kwargs)
            if name is not None:
                self.happen(f"after {name}")
            return result

        setattr(owner, attribute, noted)

    def watch_operations(self) -> None:
        """Watch plans, steps, QMP commands that change something, and processes."""
        self.around(Executor, "execute", lambda _, plan: f"plan {plan.operation}")
        self.around(Executor, "perform", lambda _, step: f"step {type(step).__name__}")
        self.around(Monitor, "execute", _describe_command)
        self.around(asyncio, "create_subprocess_exec", lambda _, *words: f"start of qemu-img {words[0]}")
        _replace(process, "spawn", self._spawned)

    def _spawned(self, spawn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(spawn)
        def noted(*args: Any, **kwargs: Any) -> Any:
            self.happen("before start of QEMU")
            started = spawn(*args, **kwargs)
            self.happen("after start of QEMU")
            return started

        return noted

    # --- files ------------------------------------------------------------------------------------------

    def watch_files(self) -> None:
        """Watch every change of a file under the directory."""
        sys.addaudithook(self._audit)
        for name in _SILENT:
            _replace(os, name, functools.partial(self._before, name=name))
        for module in (os, io, builtins):
            _replace(module, "open", self._opened)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            if isinstance(args[2], int) and args[2] & _WRITING and not isinstance(args[0], int):
                self._touch("open", args[0])
        elif event in _CHANGES:
            paths, fd = _CHANGES[event]
            where = args[fd] if fd is not None else -1
            self._touch(event.removeprefix("os."), *(args[index] for index in paths), where=where)

    def _touch(self, what: str, *paths: Any, where: int = -1) -> None:
        if (names := self._names(paths, where)) is not None:
            self.happen(f"before {what} {names}")

    def _names(self, paths: tuple[Any, ...], where: int) -> str | None:
        """Return paths as they are under our directory, without what differs between runs; else None."""
        names = []
        for path in paths:
            text = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.fsdecode(path)
            if not os.path.isabs(text) and where >= 0:
                text = f"{os.readlink(f'/proc/self/fd/{where}')}/{text}"
            if not text.startswith(f"{self.directory}/") or text.endswith(_LOCKS):
                return None
            names.append(_TEMPORARY.sub(".*", _UUID.sub("*", text[len(self.directory) + 1 :])))
        return " to ".join(names)

    def _before(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        @functools.wraps(call)
        def noted(fd: int, *args: Any) -> Any:
            where = self._names((fd,), -1)
            if where is not None:
                self.happen(f"before {name} {where}")
                if name == "write" and len(args[0]) > 1:
                    half = len(args[0]) // 2
                    written = call(fd, args[0][:half])
                    self.happen(f"in the middle of {name} {where}")
                    return written + call(fd, args[0][written:])
            return call(fd, *args)

        return noted

    def _opened(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def noted(path: Any, mode: Any = "r", *args: Any, **kwargs: Any) -> Any:
            opened = call(path, mode, *args, **kwargs)
            writing = mode & _WRITING if isinstance(mode, int) else set(mode) & set("wax+")
            if writing and not isinstance(path, int) and (name := self._names((path,), -1)) is not None:
                self.happen(f"after open {name}")
            return opened

        return noted


def _replace(owner: Any, attribute: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    setattr(owner, attribute, wrap(getattr(owner, attribute)))


def _describe_command(monitor: Monitor, command: str, *arguments: object) -> str | None:
    return None if command.startswith("query-") else f"qmp {command}"


def arm(directory: Path, strike: Strike | None = None) -> None:
    """Report all events from now on, or strike at one, for the rest of this process's life."""
    points = KillPoints(directory, strike)
    points.watch_operations()
    points.watch_files()
