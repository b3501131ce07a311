# SPDX-License-Identifier: LGPL-2.1-or-later
"""What all commands share: global options, and how they reach toolstack and files."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click
import msgspec

from ..errors import ConfigFileError, InputError
from ..layout import StateRoot
from .text import shown

if TYPE_CHECKING:
    from ..toolstack import Toolstack

T = TypeVar("T")

PROGRAM = "xlsnap"

CONFIG_LIMIT = 16 << 20
"""Largest configuration file that is read, in bytes."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The global options."""

    root: StateRoot
    accelerator: str = "auto"
    dry_run: bool = False
    verbose: bool = False

    def run(self, action: Callable[[Toolstack], Awaitable[T]]) -> T:
        """Carry out an operation of the toolstack."""
        import asyncio

        from ..toolstack import Toolstack

        async def operate() -> T:
            async with Toolstack(self.root, accelerator=self.accelerator) as toolstack:
                return await action(toolstack)

        return asyncio.run(operate())

    def refuse_dry_run(self, command: str) -> None:
        """Refuse `-N` for a command that has none: doing the thing would be worse."""
        if self.dry_run:
            raise InputError(f"{command} has no dry run", hint="leave -N out")


pass_settings = click.make_pass_decorator(Settings)


def warn(message: str) -> None:
    """Print a warning on standard error."""
    print("\n".join(shown(line) for line in f"{PROGRAM}: warning: {message}".splitlines()), file=sys.stderr)


def read_config(path: str) -> bytes:
    """Return the content of a configuration file.

    :raise ConfigFileError: if it cannot be read or is too large.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(CONFIG_LIMIT + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigFileError(f"cannot read configuration file {path}: {reason}") from error
    if len(content) > CONFIG_LIMIT:
        raise ConfigFileError(f"configuration file {path} is larger than {CONFIG_LIMIT >> 20} MiB")
    return content
