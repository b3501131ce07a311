# SPDX-License-Identifier: LGPL-2.1-or-later
"""The format of a driver profile: TOML, read strictly, so that a slip of the pen is an error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import msgspec

from ... import protocol as p
from ...failures import HarnessError

LOCAL_VERBS = frozenset({"hello"})
"""Verbs that a profile cannot say: the driver answers them itself."""


class Conditional(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"when": "if"}
):
    """Words of a command that are there only if an expression is true."""

    when: str
    add: tuple[str, ...]


Words = tuple[str | Conditional, ...]
"""A command: each word is a template and stays one word, whatever comes into it."""


class Transport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What runs a command: the words before it, and whether it is handed to a shell there as one line.

    ``shell`` None means: if the program is ssh, which does that.
    """

    run: tuple[str, ...] = ()
    shell: bool | None = None

    @property
    def quotes(self) -> bool:
        """Whether the command is to be quoted for a shell."""
        return Path(self.run[0]).name == "ssh" if self.shell is None and self.run else bool(self.shell)


class Version(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the version is told: the group ``version`` of a pattern in what a command prints."""

    run: tuple[str, ...]
    pattern: str = r"(?P<version>\S+)\s*\Z"


class Failure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an error means: the first whose ``exit`` and ``pattern`` both fit tells the kind."""

    kind: p.ErrorKind
    exit: tuple[int, ...] | None = None
    pattern: str | None = None


class Action(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a verb is carried out, and how its result is read.

    ``files`` are written first, by names below the driver's directory. ``run`` is one command or several; one
    whose words are all left out is not run. The exit status of each must be one of ``success``. ``pattern``
    is searched in what the last one prints, and its named groups are members of the result; for a list,
    ``rows`` is a pattern that is searched again and again, or ``json`` an expression for the list in what is
    printed. ``result`` are expressions for members of the result, ``fields`` for those of a row. ``refuse``
    are messages for what cannot be done, by an expression. ``socket`` (of ``domain_console``) makes a Unix
    socket of the command's standard input and output.
    """

    files: dict[str, str] = {}
    run: tuple[str | Conditional | Words, ...] = ()
    success: tuple[int, ...] = (0,)
    pattern: str | None = None
    rows: str | None = None
    json: str | None = None
    result: dict[str, str] = {}
    fields: dict[str, str] = {}
    refuse: dict[str, str] = {}
    socket: bool = False

    @property
    def commands(self) -> tuple[Words, ...]:
        """The commands, one after the other."""
        several = tuple(each for each in self.run if isinstance(each, tuple))
        one = tuple(each for each in self.run if not isinstance(each, tuple))
        return several or ((one,) if one else ())

    @property
    def mixed(self) -> bool:
        """Whether ``run`` has words beside whole commands, which makes no sense."""
        return len({isinstance(each, tuple) for each in self.run}) > 1


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole profile.

    ``seconds`` is how long a command may take. ``environment`` are templates, with ``root``. ``tables`` are
    names for expressions, such as letters and the states that they mean.
    """

    implementation: str
    version: str | Version
    edition: Literal["v4", "V9"] = "v4"
    capabilities: tuple[str, ...] = ()
    seconds: float = 150.0
    transport: Transport = Transport()
    environment: dict[str, str] = {}
    tables: dict[str, dict[str, str]] = {}
    errors: tuple[Failure, ...] = ()
    verbs: dict[str, Action]


def load(path: Path) -> Profile:
    """Read a profile.

    :raise HarnessError: naming the file, and what in it is wrong.
    """
    try:
        profile = msgspec.toml.decode(path.read_bytes(), type=Profile)
    except OSError as error:
        raise HarnessError(f"profile {path}: {error.strerror}") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise HarnessError(f"profile {path}: {error}") from None
    for problem in _problems(profile):
        raise HarnessError(f"profile {path}: {problem}")
    return profile


def _problems(profile: Profile) -> list[str]:
    known = [name for name in p.VERBS if name not in LOCAL_VERBS]
    problems = [
        f"verbs.{name}: no such verb; there are {', '.join(known)}"
        for name in profile.verbs
        if name not in known
    ]
    problems += [
        f"capabilities: nobody knows {name!r}; there are {', '.join(p.CAPABILITIES)}"
        for name in profile.capabilities
        if name not in p.CAPABILITIES
    ]
    problems += [
        f"capabilities: {verb.capability!r} is claimed, but there is no verbs.{name}"
        for name, verb in p.VERBS.items()
        if verb.capability in profile.capabilities and name not in profile.verbs
    ]
    problems += [
        f"verbs.{name}.run: one command (a list of words), or several (a list of lists), not both"
        for name, action in profile.verbs.items()
        if action.mixed
    ]
    problems += [
        f"verbs.{name}.socket: takes exactly one command"
        for name, action in profile.verbs.items()
        if action.socket and len(action.commands) != 1
    ]
    patterns: list[tuple[str, Any]] = []
    patterns += [(f"verbs.{name}.pattern", action.pattern) for name, action in profile.verbs.items()]
    patterns += [(f"verbs.{name}.rows", action.rows) for name, action in profile.verbs.items()]
    patterns += [("errors.pattern", failure.pattern) for failure in profile.errors]
    patterns += [("version.pattern", getattr(profile.version, "pattern", None))]
    for place, pattern in patterns:
        try:
            re.compile(pattern or "")
        except re.error as error:
            problems.append(f"{place}: {error}")
    return problems
