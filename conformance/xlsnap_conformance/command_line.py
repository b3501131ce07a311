# SPDX-License-Identifier: LGPL-2.1-or-later
"""The implementation's own command line: xl's commands on snapshots, run as a user runs them."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import protocol as p
from . import trace as do
from .failures import HarnessError, ImplementationError
from .live import LiveDomain
from .model import World
from .subject import Subject

COMMAND_SECONDS = 180.0
"""How long a command may take."""

KINDS = {2: "input", 3: "state", 4: "host", 70: "bug"}
"""Exit status to the kind of error (XLS-CLI-010)."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended: a negative status is a signal."""

    arguments: tuple[str, ...]
    status: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"{' '.join(self.arguments)}: status {self.status}, {self.err.strip() or self.out.strip()!r}"


class CommandLine:
    """Runs commands. ``ended`` is the last one that has ended."""

    def __init__(self, subject: Subject) -> None:
        """Ask the driver how.

        :raise HarnessError: if it does not tell.
        """
        try:
            self._told = subject.call(p.Command())
        except ImplementationError as error:
            raise HarnessError(f"the driver claims a command line, but does not tell it: {error}") from error
        self.ended: Ended | None = None

    def start(self, *arguments: str, directory: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a command in a session of its own."""
        command = [*self._told.argv, *arguments]
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=directory,
                env={**os.environ, **self._told.environment},
                start_new_session=True,
            )
        except OSError as error:
            raise HarnessError(f"cannot run {command[0]}: {error.strerror}") from error

    def run(self, *arguments: str, directory: Path | None = None) -> Ended:
        """Run a command to its end.

        :raise HarnessError: if it does not end.
        """
        return self.wait(self.start(*arguments, directory=directory), arguments)

    def wait(self, process: subprocess.Popen[bytes], arguments: tuple[str, ...] = ()) -> Ended:
        """Wait for a command to end."""
        with process:
            try:
                out, err = process.communicate(timeout=COMMAND_SECONDS)
            except BaseException as error:
                process.kill()
                if isinstance(error, subprocess.TimeoutExpired):
                    raise HarnessError(f"{arguments[0]} did not end in {COMMAND_SECONDS:g} s") from error
                raise
        texts = (text.decode(errors="backslashreplace") for text in (out, err))
        self.ended = Ended(arguments, process.returncode, *texts)
        return self.ended

    def on(
        self, domain: LiveDomain, *more: str, config: str | None = None
    ) -> Callable[[do.Step, World], str | None]:
        """Return what does a step with a command; see `scenario.Performer`.

        :param more: further arguments.
        :param config: text of a configuration file for create.
        """

        def perform(step: do.Step, world: World) -> str | None:
            domain.flush_before(step)
            domain.reconnect()
            first = int(time.time())
            ended = self.run(*arguments_for(step, domain, config), *more)
            if ended.status != 0:
                message = ended.err.strip().rpartition("\n")[2]
                raise ImplementationError(KINDS.get(ended.status, ""), message)
            if not isinstance(step, do.Create):
                return None
            name = step.name if step.name is not None else name_in(ended.out)
            domain.times[name] = (first, int(time.time()))
            return name

        return perform


def arguments_for(step: do.Step, domain: LiveDomain, config: str | None = None) -> tuple[str, ...]:
    """Return the arguments of the command that does a step (xl(1), chapter 9 of the specification).

    :raise HarnessError: if a command cannot say it.
    """
    return tuple(_ARGUMENTS[type(step)](step, domain, config))


def _create(step: do.Create, domain: LiveDomain, config: str | None) -> list[str]:
    words = ["-N"] if step.dry_run else []
    words.append("snapshot-create")
    if config is not None:
        words.append(str(file_with(domain, config)))
    elif step.memory == "no":
        words.append("-D")
    words += ["-n", step.name] if step.name is not None and config is None else []
    return [*words, domain.name]


def _revert(step: do.Revert, domain: LiveDomain, config: str | None) -> list[str]:
    return ["snapshot-revert", *(["-p"] if step.paused else []), "-n", step.name, domain.name]


def _delete(step: do.Delete, domain: LiveDomain, config: str | None) -> list[str]:
    return ["snapshot-delete", "-n", step.name, domain.name]


_ARGUMENTS: dict[type[do.Step], Callable[[Any, LiveDomain, str | None], list[str]]] = {
    do.Create: _create,
    do.Revert: _revert,
    do.Delete: _delete,
}


def file_with(domain: LiveDomain, text: str, name: str = "snapshot.conf") -> Path:
    """Write a configuration file into a directory beside the domain's own."""
    directory = domain.scratch.with_name(f"{domain.scratch.name}-files")
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / name
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return path


def name_in(output: str) -> str:
    """Return the name that a create prints: the only number of its output, else all of it."""
    numbers = re.findall(r"\d+", output)
    return numbers[0] if len(numbers) == 1 else output.strip()
