# SPDX-License-Identifier: LGPL-2.1-or-later
"""Our terminal as the terminal of a program in dom0."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence

from .nested import NestedHost

_CHUNK = 1 << 16


async def interactive(host: NestedHost, argv: Sequence[str]) -> int:
    """Run a program in dom0 on a terminal there that ours is connected with; return its exit status.

    :raise XenHostError: if it cannot be started.
    """
    port = await host.free_port()
    reader, writer = await asyncio.open_unix_connection(host.places.run / f"{port}.sock")
    loop = asyncio.get_running_loop()
    size = _size()
    ended = await host.link.use(
        port,
        "start",
        argv=list(argv),
        cwd="/root",
        terminal=size,
        env={"TERM": os.environ.get("TERM", "vt100")},
    )

    def resized() -> None:
        rows, columns = _size()
        resizing.append(asyncio.ensure_future(host.link.ask("resize", port=port, rows=rows, columns=columns)))

    def typed() -> None:
        data = os.read(0, _CHUNK)
        if data:
            writer.write(data)
        else:
            loop.remove_reader(0)
            writer.write(b"\x04")

    async def show() -> None:
        while data := await reader.read(_CHUNK):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

    resizing: list[asyncio.Future[object]] = []
    showing = asyncio.ensure_future(show())
    loop.add_signal_handler(signal.SIGWINCH, resized)
    with _raw():
        loop.add_reader(0, typed)
        try:
            return await ended
        finally:
            loop.remove_reader(0)
            await asyncio.sleep(0.1)  # its last output may be on its way
            showing.cancel()
            await asyncio.gather(showing, *resizing, return_exceptions=True)
            writer.close()
            await host.link.ask("end", port=port)


def _size() -> list[int]:
    try:
        size = os.get_terminal_size(1)
    except OSError:
        return [24, 80]
    return [size.lines, size.columns]


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    if not os.isatty(0):
        yield
        return
    saved = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, saved)
