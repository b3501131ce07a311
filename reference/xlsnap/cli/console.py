# SPDX-License-Identifier: LGPL-2.1-or-later
"""``xlsnap console``: the terminal, or a pipe, and a domain's first serial port."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from pathlib import Path

import click

from ..errors import HostError
from .complete import domains
from .settings import ENDING_SIGNALS, Settings, Terminated, pass_settings
from .text import complain

ESCAPE = b"\x1d"  # Ctrl-]

DRAIN_SECONDS = 1.0
"""How long the domain may be silent after the end of piped input before the console ends."""


@click.command("console", short_help="Attach to a domain's console.")
@click.argument("domain", shell_complete=domains)
@pass_settings
def console(settings: Settings, domain: str) -> None:
    """Attach to the first serial port of DOMAIN. Ctrl-] leaves it.

    Standard input may be a pipe: it is sent to the domain, and the console ends a little after it.

    \b
    Examples:
      xlsnap console vm
      echo ping | xlsnap console vm
    """
    settings.refuse_dry_run("console")
    attach_console(settings, domain)


def attach_console(settings: Settings, domain: str) -> None:
    """Copy between terminal or pipes and console until one of them ends."""
    from ..toolstack import Toolstack

    path = Toolstack(settings.root, kind=settings.host).console_path(domain)
    with contextlib.ExitStack() as stack:
        try:
            wire = stack.enter_context(_opened(path))
        except OSError as error:
            raise HostError(f"cannot attach to the console {path}: {error.strerror}") from error
        os.set_blocking(wire, False)
        interactive = sys.stdin is not None and sys.stdin.isatty()
        with _raw_terminal() if interactive else contextlib.nullcontext():
            _copy(wire, interactive=interactive)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a console: the Unix socket of a QEMU, or the terminal that Xen's console daemon keeps."""
    from ..qemu.process import directory_address

    if path.is_char_device():
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            tty.setraw(fd)
            yield fd
        finally:
            os.close(fd)
    else:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            with directory_address(path) as address:
                connection.connect(address)
            yield connection.fileno()


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Let every key go to the domain; whatever ends us, the terminal is then as it was."""
    complain("Ctrl-] leaves the console")
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    handlers = {signum: signal.signal(signum, _end) for signum in ENDING_SIGNALS}
    try:
        tty.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def _end(signum: int, frame: object) -> None:
    raise Terminated(signum)


def _copy(wire: int, *, interactive: bool) -> None:
    """Copy both ways; neither direction waits for the other, so that both cannot block."""
    source = None if sys.stdin is None else sys.stdin.fileno()
    keys = b""
    while True:
        readable = [wire] if source is None or (keys and not interactive) else [wire, source]
        done = source is None and not keys
        writable = [wire] if keys else []
        ready, accepting, _ = select.select(readable, writable, [], DRAIN_SECONDS if done else None)
        if done and not ready:
            return
        try:
            output = os.read(wire, 65536) if wire in ready else None
            keys = keys[os.write(wire, keys) :] if accepting else keys
        except OSError:
            return  # the domain is gone
        if output == b"":
            return
        if output:
            _write(output)
        if source is not None and source in ready:
            typed = _read(source)
            if interactive and ESCAPE in typed:
                with contextlib.suppress(OSError):
                    os.write(wire, keys + typed.partition(ESCAPE)[0])
                return
            keys += typed
            source = source if typed else None


def _read(fd: int) -> bytes:
    """Read what there is of standard input; a terminal that is gone has nothing more."""
    try:
        return os.read(fd, 65536)
    except OSError:
        return b""


def _write(content: bytes) -> None:
    try:
        while content:
            content = content[os.write(sys.stdout.fileno(), content) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise HostError(f"cannot write the console's output: {error.strerror}") from error
