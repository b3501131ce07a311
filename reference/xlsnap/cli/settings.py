# SPDX-License-Identifier: LGPL-2.1-or-later
"""What all commands share: global options, and how they reach toolstack and files."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click
import msgspec

from ..errors import ConfigFileError, InputError
from ..layout import StateRoot
from .text import complain

if TYPE_CHECKING:
    from ..toolstack import Toolstack

T = TypeVar("T")

PROGRAM = "xlsnap"

CONFIG_LIMIT = 16 << 20
"""Largest configuration file that is read, in bytes."""

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end an operation as Ctrl-C does: what has begun is taken back first."""


class Terminated(BaseException):
    """A signal asked this process to end; ``signum`` is its number."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The global options."""

    root: StateRoot
    host: str = "auto"
    accelerator: str = "auto"
    dry_run: bool = False
    verbose: bool = False

    def run(self, action: Callable[[Toolstack], Awaitable[T]]) -> T:
        """Carry out an operation of the toolstack.

        :raise Terminated: on a signal, KeyboardInterrupt: on Ctrl-C; the operation is undone then.
        """
        import asyncio
        import logging

        from ..toolstack import Toolstack

        # Libraries log what they then raise, or what an interrupted operation left running.
        logging.basicConfig(level=logging.DEBUG if self.verbose else logging.CRITICAL + 1)
        received: list[int] = []

        async def operate() -> T:
            task = asyncio.current_task()
            assert task is not None

            def end(signum: int) -> None:
                received.append(signum)
                task.cancel()

            for signum in ENDING_SIGNALS:
                asyncio.get_running_loop().add_signal_handler(signum, end, signum)
            async with Toolstack(self.root, kind=self.host, accelerator=self.accelerator) as toolstack:
                return await action(toolstack)

        try:
            return asyncio.run(operate())
        except asyncio.CancelledError:
            if not received:
                raise
            raise Terminated(received[0]) from None

    def refuse_dry_run(self, command: str) -> None:
        """Refuse `-N` for a command that changes something and has no dry run."""
        if self.dry_run:
            raise InputError(f"{command} has no dry run", hint="leave -N out")


pass_settings = click.make_pass_decorator(Settings)


def warn(message: str) -> None:
    """Print a warning on standard error."""
    complain(f"{PROGRAM}: warning: {message}")


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
