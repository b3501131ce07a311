# SPDX-License-Identifier: LGPL-2.1-or-later
"""The messages of the driver protocol that are about text: command lines and configuration files."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from .messages import Request, Result


class Command(Request["CommandResult"], frozen=True, kw_only=True):
    """Ask how the implementation's own command line is started: it must find the domains of this driver."""


class CommandResult(Result, frozen=True, kw_only=True, omit_defaults=True):
    """What goes before xl's arguments (``snapshot-list DOMAIN``), and what is added to the environment.

    The suite runs the command, and may end it by a signal.
    """

    argv: tuple[str, ...]
    environment: dict[str, str] = msgspec.field(default_factory=dict)


Language = Literal["xl.cfg", "xl-disk", "xl.snapshot.conf"]


class Parse(Request["ParseResult"], frozen=True, kw_only=True):
    """Parse a text; a disk specification (``xl-disk``) is one string of a ``disk`` list."""

    language: Language
    text: str


class ParseError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that is wrong with a text; line and column count from 1, 0 where they are not told."""

    message: str
    line: int = 0
    column: int = 0


class ParseResult(Result, frozen=True, kw_only=True, omit_defaults=True):
    """What a text means, or why it is not accepted: then there are ``errors``, and the value does not matter.

    ``value`` is an object: of a file in xl.cfg's language its keys with strings and lists; of a disk
    ``vdev``, ``target``, ``format``, ``readwrite``, ``is_cdrom``, ``script``, None where nothing was given;
    of an xl.snapshot.conf ``name``, ``description``, ``memory``, ``type``, and ``disks``, which are objects
    like `DiskChoice`.
    """

    value: Any = None
    errors: tuple[ParseError, ...] = ()
    warnings: tuple[str, ...] = ()
