# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xlsnap console` on pipes and on a real terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from xlsnap.cli.console import _copy

if TYPE_CHECKING:
    from tests.reference.conftest import Shell


def run(shell: Shell, keys: bytes) -> bytes:
    command = shell.command("console", "vm")
    return subprocess.run(command, input=keys, capture_output=True, timeout=60, check=True).stdout


def test_pipes(shell: Shell) -> None:
    assert b"900001 ok one\n" in run(shell, b"\x15900001 get word\n")


def test_input_and_output_do_not_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A domain that takes no input while nobody takes its output: a pasted file must not block us."""
    typed, printed = os.urandom(1 << 20), os.urandom(1 << 20)
    (tmp_path / "typed").write_bytes(typed)
    received = bytearray()
    ours, theirs = socket.socketpair()

    def domain() -> None:
        theirs.settimeout(20)
        with theirs, contextlib.suppress(TimeoutError):
            theirs.sendall(printed)
            while len(received) < len(typed):
                received.extend(theirs.recv(65536))

    thread = threading.Thread(target=domain)
    with ours, open(tmp_path / "typed") as stdin, open(tmp_path / "printed", "w") as stdout:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "stdout", stdout)
        ours.setblocking(False)
        thread.start()
        _copy(ours.fileno(), interactive=False)
        thread.join()
    assert bytes(received) == typed
    assert (tmp_path / "printed").read_bytes() == printed


def test_nothing_to_read_from(shell: Shell) -> None:
    script = 'exec "$@" <&-'
    subprocess.run(["sh", "-c", script, "sh", *shell.command("console", "vm")], timeout=60, check=True)


def test_the_console_ends_with_the_domain(shell: Shell) -> None:
    command = shell.command("console", "vm")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\x15900008 ping\n")
        assert b"900008" in process.stdout.readline()
        shell.do("destroy", "vm")
        assert process.wait(30) == 0


class Terminal:
    """A user who types at a terminal that runs the console."""

    def __init__(self, shell: Shell) -> None:
        self.fd, self.follower = pty.openpty()
        self.before = termios.tcgetattr(self.follower)
        command = shell.command("console", "vm")
        self.process = subprocess.Popen(
            command, stdin=self.follower, stdout=self.follower, stderr=self.follower, start_new_session=True
        )
        self.seen = b""

    def ask(self, number: int) -> None:
        """Ask the guest for its word, again and again until it answers."""
        deadline = time.monotonic() + 60
        answer = b"%d ok one" % number
        while answer not in self.seen and time.monotonic() < deadline:
            os.write(self.fd, b"\x15%d get word\n" % number)
            if select.select([self.fd], [], [], 0.5)[0]:
                self.seen += os.read(self.fd, 4096)
        assert answer in self.seen

    def is_as_before(self) -> bool:
        return termios.tcgetattr(self.follower) == self.before


@pytest.fixture
def terminal(shell: Shell) -> Iterator[Terminal]:
    terminal = Terminal(shell)
    try:
        yield terminal
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.fd)
        os.close(terminal.follower)


def test_a_terminal_leaves_at_its_escape(terminal: Terminal) -> None:
    terminal.ask(900002)
    assert b"Ctrl-] leaves the console" in terminal.seen
    assert not terminal.is_as_before()
    os.write(terminal.fd, b"\x03\x04")  # for the guest: neither interrupt nor end of file
    terminal.ask(900003)
    os.write(terminal.fd, b"\x1d")
    assert terminal.process.wait(30) == 0
    assert terminal.is_as_before()


def test_a_signal_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    terminal.ask(900004)
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.process.wait(30) == 128 + signal.SIGTERM
    assert terminal.is_as_before()
