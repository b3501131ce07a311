# SPDX-License-Identifier: LGPL-2.1-or-later
"""``xlsnap console``: the terminal, or a pipe, and a domain's first serial port."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import termios
import tty
from collections.abc import Iterator

import click

from ..errors import HostError
from .complete import domains
from .settings import Settings, pass_settings

ESCAPE = 0x1D  # Ctrl-]

DRAIN_SECONDS = 0.3
"""How long output is waited for after the end of piped input."""


@click.command("console", short_help="Attach to a domain's console.")
@click.argument("domain", shell_complete=domains)
@pass_settings
def console(settings: Settings, domain: str) -> None:
    """Attach to the first serial port of DOMAIN. Ctrl-] leaves it.

    Standard input may be a pipe: it is sent to the domain, and the console ends a little after it.
    """
    settings.refuse_dry_run("console")
    attach_console(settings, domain)


def attach_console(settings: Settings, domain: str) -> None:
    """Copy between terminal and console until one of them ends."""
    from ..qemu.process import directory_address
    from ..toolstack import Toolstack

    path = Toolstack(settings.root).console_path(domain)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            with directory_address(path) as address:
                connection.connect(address)
        except OSError as error:
            raise HostError(f"cannot attach to the console {path}: {error.strerror}") from error
        with _raw_terminal():
            _copy(connection)


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Let every key go to the domain while standard input is a terminal."""
    if not sys.stdin.isatty():
        yield
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setraw(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _copy(connection: socket.socket) -> None:
    source = sys.stdin.fileno()
    interactive = sys.stdin.isatty()
    open_ends = [connection.fileno(), source]
    while True:
        ready, _, _ = select.select(open_ends, [], [], None if source in open_ends else DRAIN_SECONDS)
        if not ready:
            return
        if connection.fileno() in ready:
            try:
                output = connection.recv(65536)
            except ConnectionResetError:
                return
            if not output:
                return
            _write(sys.stdout.fileno(), output)
        if source in ready:
            keys = os.read(source, 65536)
            left, escape, _ = keys.partition(bytes([ESCAPE])) if interactive else (keys, b"", b"")
            try:
                connection.sendall(left)
            except OSError:
                return
            if escape:
                return
            if not keys:
                open_ends.remove(source)


def _write(fd: int, content: bytes) -> None:
    while content:
        content = content[os.write(fd, content) :]
