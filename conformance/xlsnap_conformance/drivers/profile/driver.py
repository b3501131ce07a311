# SPDX-License-Identifier: LGPL-2.1-or-later
"""Answer requests by the commands of a profile."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from ... import protocol as p
from ...fence import PREFIX
from ..serving import Refused
from . import output, templates, transport
from .commands import Action, Profile
from .console import ConsoleSocket

_NOTHING = Action()


class ProfileDriver:
    """A driver made of a `Profile`: its methods are the verbs that the profile has."""

    def __init__(self, profile: Profile) -> None:
        """Ask the implementation for its version.

        :raise Refused: if it does not tell it.
        """
        self.profile = profile
        self.implementation = profile.implementation
        self.edition = profile.edition
        self.capabilities = profile.capabilities
        self._root = ""
        self._consoles: dict[str, ConsoleSocket] = {}
        self._numbers = itertools.count(1)
        self._made: dict[str, None] = {}
        self.version = self._version()

    def _version(self) -> str:
        asked = self.profile.version
        if isinstance(asked, str):
            return asked
        ended = transport.run(self.profile.transport, asked.run, {}, seconds=self.profile.seconds)
        match = re.search(asked.pattern, ended.stdout)
        if match is None:
            raise Refused("host", f"the version is not told: {ended.stdout[:200]!r} {ended.stderr[:200]!r}")
        return match["version"]

    def __getattr__(self, verb: str) -> Callable[[p.Request[Any]], p.Result]:
        if verb in p.VERBS and verb in self.profile.verbs:
            action = self.profile.verbs[verb]
            return lambda request: self._answer(verb, action, request)
        raise AttributeError(verb)

    def setup(self, request: p.Setup) -> p.Result:
        """Begin in a directory."""
        self._root = request.root
        self._do("setup", request)
        return p.Done()

    def teardown(self, request: p.Teardown) -> p.Result:
        """Remove the domains that are left with their snapshots, then do what the profile says."""
        for name in list(self._made):
            with contextlib.suppress(Refused):
                if self._call(p.DomainStateOf(domain=name)).state not in ("absent", "stopped"):
                    self._call(p.DomainDestroy(domain=name))
            with contextlib.suppress(Refused):
                for snapshot in self._call(p.SnapshotList(domain=name)).snapshots:
                    self._call(p.SnapshotDelete(domain=name, name=snapshot.name))
        for console in self._consoles.values():
            console.close()
        self._consoles.clear()
        self._do("teardown", request)
        self._made.clear()
        return p.Done()

    def _call(self, request: p.Request[Any]) -> Any:
        verb = p.VERB_OF[type(request)]
        action = self.profile.verbs.get(verb)
        if action is None:
            raise Refused("unsupported", f"the profile has no verbs.{verb}")
        return self._answer(verb, action, request)

    def _do(self, verb: str, request: p.Request[Any]) -> None:
        action = self.profile.verbs.get(verb)
        if action is not None:
            self._carry_out(action, request)

    def _answer(self, verb: str, action: Action, request: p.Request[Any]) -> p.Result:
        if isinstance(request, p.DomainCreate):
            if not request.name.startswith(PREFIX):
                raise Refused("input", f"domain {request.name!r} is not one of the suite's")
            self._made[request.name] = None
        if action.socket:
            return self._console(action, request)
        stdout, values = self._carry_out(action, request)
        return output.result(verb, action, stdout, values)

    # --- commands -------------------------------------------------------------------------------------------

    def _carry_out(self, action: Action, request: p.Request[Any]) -> tuple[str, templates.Values]:
        """Write the files and run the commands; return what the last one printed, and the placeholders."""
        values = self._prepare(action, request)
        stdout = ""
        for command in action.commands:
            words = templates.words(command, values)
            if not words:
                continue
            ended = self._run(words, values)
            if ended.status not in action.success:
                raise output.refusal(self.profile.errors, ended.status, ended.stderr)
            stdout = ended.stdout
        return stdout, values

    def _prepare(self, action: Action, request: p.Request[Any]) -> templates.Values:
        values = templates.values_of(request, self._root, self.profile.tables)
        for expression, message in action.refuse.items():
            if templates.evaluate(expression, values):
                raise Refused("unsupported", message)
        for name, text in action.files.items():
            path = self._path(templates.fill(name, values))
            self._write(path, templates.fill(text, values), values)
        return values

    def _path(self, name: str) -> str:
        """Return the path of a file below our directory."""
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts or "\0" in name:
            raise Refused("input", f"{name!r} is no name for a file below the driver's directory")
        return str(PurePosixPath(self._root) / relative)

    def _write(self, path: str, text: str, values: templates.Values) -> None:
        if not self.profile.transport.run:
            Path(path).write_text(text, encoding="utf-8", errors="surrogateescape")
            return
        ended = self._run(["tee", "--", path], values, stdin=text)
        if ended.status != 0:
            raise Refused("host", f"{path} cannot be written: {ended.stderr.strip()}")

    def _run(self, words: list[str], values: templates.Values, stdin: str | None = None) -> transport.Ended:
        return transport.run(
            self.profile.transport,
            words,
            self._environment(values),
            seconds=self.profile.seconds,
            stdin=stdin,
        )

    def _environment(self, values: templates.Values) -> dict[str, str]:
        known = {"root": values["root"]}
        return {name: templates.fill(text, known) for name, text in self.profile.environment.items()}

    # --- the console ----------------------------------------------------------------------------------------

    def _console(self, action: Action, request: p.Request[Any]) -> p.DomainConsoleResult:
        """Return a socket that is the command's standard input and output."""
        domain = getattr(request, "domain", "")
        state = self._call(p.DomainStateOf(domain=domain)).state
        if state in ("absent", "stopped"):
            raise Refused("input" if state == "absent" else "state", f"domain {domain} is {state}")
        if domain not in self._consoles:
            values = self._prepare(action, request)
            (command,) = action.commands
            words = transport.vector(
                self.profile.transport, templates.words(command, values), self._environment(values)
            )
            path = Path(self._root) / f"console-{next(self._numbers)}"
            try:
                self._consoles[domain] = ConsoleSocket(path, words)
            except OSError as error:
                raise Refused("host", f"{path}: {error.strerror}") from None
        return p.DomainConsoleResult(unix=str(self._consoles[domain].path))
