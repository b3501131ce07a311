# SPDX-License-Identifier: LGPL-2.1-or-later
"""Make a Unix socket of a command that is a console: what is sent there goes to its standard input."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from ...sockets import short_address

END_SECONDS = 5.0


class ConsoleSocket:
    """Listens on a socket. For each connection the command is started, and ended with it."""

    def __init__(self, path: Path, command: Sequence[str]) -> None:
        """Listen at `path`; a socket that is there already is replaced.

        :raise OSError: if that cannot be done.
        """
        self.path = path
        self._command = list(command)
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with short_address(path) as address:
            self._listener.bind(address)
        path.chmod(0o600)
        self._listener.listen(1)
        self._open: set[subprocess.Popen[bytes]] = set()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._open.add(process)
        assert process.stdin is not None
        assert process.stdout is not None
        threading.Thread(target=_to_socket, args=(process.stdout, connection), daemon=True).start()
        try:
            with contextlib.suppress(OSError):
                while data := connection.recv(65536):
                    process.stdin.write(data)
                    process.stdin.flush()
        finally:
            connection.close()
            _end(process)
            self._open.discard(process)

    def close(self) -> None:
        """Hang up: end the commands and remove the socket."""
        self._listener.close()
        for process in list(self._open):
            _end(process)
        self.path.unlink(missing_ok=True)


def _to_socket(output: IO[bytes], connection: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):
        while data := output.read1(65536):  # type: ignore[attr-defined]  # a BufferedReader has it
            connection.sendall(data)
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)  # the console has ended: let the suite know


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    process.terminate()
    try:
        process.wait(timeout=END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
