# SPDX-License-Identifier: LGPL-2.1-or-later
"""Talk to the probe guest over its serial port.

Requests have ids that rise and are never used twice in a process, because a guest that is reverted may send
a reply again that it was just sending when its memory was saved. Whatever is not the reply that is waited
for is passed over: boot messages, noise, half lines, old replies.
"""

from __future__ import annotations

import itertools
import re
import socket
import time
from pathlib import Path
from types import TracebackType

from ..sockets import short_address

DEFAULT_SECONDS = 10.0
"""How long a reply may take; the guest needs well under a millisecond."""

RESEND_SECONDS = 0.5
"""A request may get lost while the guest boots: it is sent again until there is a reply."""

LINE_BYTES = 159
"""The longest request that the guest takes, its id included."""

CONNECT_SECONDS = 0.02
"""How long to wait before a console that is busy is asked again."""

_ids = itertools.count(1)

_SAFE = re.compile(r"[!-~]+")


class ProbeClosed(Exception):
    """The guest's console was closed: the domain has ended, or was reverted into a new process."""


class ProbeTimeout(Exception):
    """The guest did not answer in time: it is paused, hangs, or its console is elsewhere."""


class ProbeError(Exception):
    """The guest refused a request; ``reason`` is its word for it, ``detail`` a number in hexadecimal."""

    def __init__(self, request: str, reason: str, detail: str) -> None:
        super().__init__(f"{request}: {reason} {detail}".rstrip())
        self.request = request
        self.reason = reason
        self.detail = detail


class Probe:
    """A connection to a probe guest. Close it, or use it as a context manager.

    `console` is the path of the Unix socket of the guest's serial port, or a connected socket. `timeout` is
    in seconds and holds for each request.

    :raise ProbeClosed: if nobody listens there.
    :raise ProbeTimeout: if no connection is taken within `timeout`.
    """

    def __init__(self, console: Path | str | socket.socket, *, timeout: float = DEFAULT_SECONDS) -> None:
        self.timeout = timeout
        self._buffer = b""
        self._awake = False
        self._socket = console if isinstance(console, socket.socket) else _connect(Path(console), timeout)

    def __enter__(self) -> Probe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the guest goes on."""
        self._socket.close()

    # --- requests ---------------------------------------------------------------------------------------

    def ping(self) -> None:
        """Wait until the guest answers."""
        self.request("ping", repeat=True)
        self._awake = True

    def info(self) -> str:
        """Return the guest's version and how it was booted: ``probe2 boot=r``."""
        return self.request("info")

    def set(self, key: str, value: str) -> None:
        """Set a variable: key and value are printable ASCII without spaces, at most 15 and 47 long."""
        self.request("set", key, value)

    def get(self, key: str) -> str | None:
        """Return a variable's value, or None if it is not set."""
        try:
            return self.request("get", key)
        except ProbeError as error:
            if error.reason == "nokey":
                return None
            raise

    def delete(self, key: str) -> None:
        """Forget a variable."""
        self.request("del", key)

    def variables(self) -> tuple[int, str]:
        """Return the number of variables and a checksum over all of them."""
        count, checksum = self.request("vars").split()
        return int(count), checksum

    def tick(self) -> int:
        """Return the number of timer interrupts, 100 a second of its time, since the guest started."""
        return int(self.request("tick"))

    def write(self, disk: int, lba: int, word: str) -> None:
        """Write a patterned sector; the word is printable ASCII without spaces, at most 31 long."""
        self.request("wr", str(disk), str(lba), word)

    def read(self, disk: int, lba: int) -> str | None:
        """Return the word in a sector, or None if it is all zero.

        :raise ProbeError: ``bad`` if the content is damaged, ``foreign`` if it is of another disk or sector.
        """
        word = self.request("rd", str(disk), str(lba))
        return None if word == "-" else word

    def disk_sum(self, disk: int, lba: int, count: int) -> str:
        """Return a checksum over `count` sectors."""
        return self.request("dsum", str(disk), str(lba), str(count))

    def flush(self) -> None:
        """Flush all disks."""
        self.request("flush")

    def disks(self) -> list[int | None]:
        """Return the sizes of the eight disks in sectors: 0 for none, None for a CD."""
        return [None if size == "cd" else int(size) for size in self.request("disks").split()]

    def rescan(self) -> None:
        """Look for disks again."""
        self.request("rescan")

    def memory_fill(self, seed: int) -> None:
        """Fill 256 KiB of memory with a pattern."""
        self.request("fill", str(seed))

    def memory_sum(self) -> str:
        """Return a checksum over those 256 KiB."""
        return self.request("msum")

    def count(self, disk: int, lba: int) -> None:
        """Begin to count in memory and in a sector in lockstep, until `stop`."""
        self.request("count", str(disk), str(lba))

    def counted(self) -> int:
        """Return how far the counter in memory is."""
        return int(self.request("counted"))

    def stop(self) -> int:
        """Stop counting; return how far it got."""
        return int(self.request("stop"))

    def power_off(self) -> None:
        """Power the guest off: it does so at once after its reply.

        :raise ProbeError: ``nopower`` if the machine cannot be powered off.
        """
        self.request("off")

    def reboot(self) -> None:
        """Reset the guest and wait until it is up again, with no variables."""
        self.request("reboot")
        self.ping()

    def request(self, command: str, *arguments: str, repeat: bool = False) -> str:
        """Send a request and return what the guest says after ``ok``.

        With `repeat` it is sent again from time to time, for a guest that may still be booting.

        :raise ProbeError: if the guest refuses.
        :raise ProbeTimeout: if there is no answer within `timeout`.
        :raise ProbeClosed: if the connection ends.
        :raise ValueError: if the request cannot be sent: odd characters, or too long for a line.
        """
        if not repeat:
            self._wake()
        text = " ".join((command, *arguments))
        deadline = time.monotonic() + self.timeout
        awaited = [self._send(command, *arguments)]
        while True:
            now = time.monotonic()
            if now >= deadline:
                raise ProbeTimeout(f"the guest did not answer {text!r} within {self.timeout:g} s")
            line = self._line(min(deadline, now + RESEND_SECONDS) if repeat else deadline)
            if line is None:
                if repeat and time.monotonic() < deadline:
                    awaited.append(self._send(command, *arguments))
                continue
            number, _, answer = line.partition(" ")
            if number not in awaited:
                continue
            verdict, _, rest = answer.partition(" ")
            if verdict == "ok":
                return rest
            if verdict != "err":  # a booting Linux echoes what it is sent
                continue
            reason, _, detail = rest.partition(" ")
            raise ProbeError(text, reason, detail)

    def _wake(self) -> None:
        """Wait until the guest has booted, once a connection: what it is sent before may get lost."""
        if not self._awake:
            self.ping()

    # --- the line ---------------------------------------------------------------------------------------

    def _send(self, command: str, *arguments: str) -> str:
        for argument in arguments:
            if not _SAFE.fullmatch(argument):
                raise ValueError(f"{argument!r} cannot be sent: printable ASCII without spaces is needed")
        number = str(next(_ids))
        line = " ".join((number, command, *arguments)).encode()
        if len(line) > LINE_BYTES:
            raise ValueError(f"the request is {len(line)} bytes long, the guest takes {LINE_BYTES}")
        # The control character clears what noise may have left on the guest's line.
        content = b"\x15" + line + b"\n"
        self._socket.settimeout(self.timeout)
        try:
            self._socket.sendall(content)
        except TimeoutError:
            raise ProbeTimeout(f"the guest took no request within {self.timeout:g} s") from None
        except OSError as error:
            raise ProbeClosed(f"the guest's console was closed: {error.strerror}") from error
        return number

    def _line(self, deadline: float) -> str | None:
        """Return the next whole line, or None at the deadline."""
        while b"\n" not in self._buffer:
            seconds = deadline - time.monotonic()
            if seconds <= 0:
                return None
            self._socket.settimeout(seconds)
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                return None
            except OSError as error:
                raise ProbeClosed(f"the guest's console was closed: {error.strerror}") from error
            if not data:
                raise ProbeClosed("the guest's console was closed")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.strip(b"\r").decode("ascii", "replace")


def _connect(path: Path, timeout: float) -> socket.socket:
    """Connect to a Unix socket, whose path may be longer than an address (107 bytes)."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        with short_address(path) as address:
            _connect_in_time(connection, address, timeout)
    except TimeoutError:
        connection.close()
        raise ProbeTimeout(f"console {path} took no connection within {timeout:g} s") from None
    except OSError as error:
        connection.close()
        raise ProbeClosed(f"console {path}: {error.strerror}") from error
    return connection


def _connect_in_time(connection: socket.socket, address: str, timeout: float) -> None:
    """Connect also while others wait there: connect(2) then fails with EAGAIN at once."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            connection.connect(address)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError from None
            time.sleep(CONNECT_SECONDS)
