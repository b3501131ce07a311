# SPDX-License-Identifier: LGPL-2.1-or-later
"""Driver in a nested Xen host: ``python -m xlsnap_conformance.drivers.xen [OPTIONS]``.

Options are those of the driver in dom0, by default the reference's. The suite's directory is mounted there
at the same path, so that images and metadata are the same files on both sides.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ...driver import DIRECTORY_VARIABLE, LINE_LIMIT, LOGS_VARIABLE
from ...failures import HarnessError
from ...hosts.xen import code, logs
from ...hosts.xen.machine import Places
from ...hosts.xen.nested import NestedHost
from ...hosts.xen.store import open_store
from .preparation import INSIDE, options
from .relay import Ports, Relay, first_of

END_SECONDS = 60.0
"""How long the driver in dom0 may take to clean up when the suite hangs up."""


def main() -> None:
    """Serve on standard input and output."""
    parser = options()
    chosen, rest = parser.parse_known_args()
    argv = ["python3", "-m", f"xlsnap_conformance.drivers.{chosen.inside}", *INSIDE[chosen.inside], *rest]
    try:
        with _directory() as directory:
            sys.exit(asyncio.run(_serve(directory, chosen.accelerator, argv)))
    except HarnessError as error:
        parser.exit(2, f"xen driver: {error}\n")


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    """Yield the directory that the suite shares with us; one of our own when we are run by hand."""
    given = os.environ.get(DIRECTORY_VARIABLE)
    if given:
        yield Path(given)
        return
    with tempfile.TemporaryDirectory(prefix="xlsnap-xen-") as made:
        yield Path(made)


async def _serve(directory: Path, accelerator: str, argv: list[str]) -> int:
    """Run the driver in dom0 until the suite hangs up, or it ends; return its exit status."""
    places = Places(directory / "xen", directory)
    store = await open_store(accelerator, _tell)
    host = await store.start(places)
    try:
        await host.unpack(await asyncio.to_thread(code.kit))
        await host.mount_share(str(directory))
        return await _relayed(host, argv)
    finally:
        if wanted := os.environ.get(LOGS_VARIABLE):
            await logs.keep(host, Path(wanted))
        await host.stop()


async def _relayed(host: NestedHost, argv: list[str]) -> int:
    ports = Ports()
    port, log = ports.take(), ports.take()
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ending.set)
    requests = asyncio.StreamReader(limit=LINE_LIMIT)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin.buffer)
    inner = await asyncio.open_unix_connection(host.places.run / f"{port}.sock", limit=LINE_LIMIT)
    errors = await asyncio.open_unix_connection(host.places.run / f"{log}.sock")
    ended = await host.link.use(port, "start", argv=argv, log=log, cwd="/run")
    relay = Relay(host, ports)

    async def to_driver(line: bytes) -> None:
        inner[1].write(line)
        await inner[1].drain()

    async def to_suite(line: bytes) -> None:
        await asyncio.to_thread(_write_all, 1, line)

    logging = asyncio.ensure_future(_log(errors[0]))
    answering = asyncio.ensure_future(relay.back(inner[0], to_suite))
    try:
        await first_of(relay.forward(requests, to_driver), ending.wait(), asyncio.shield(ended))
        if not ended.done():
            inner[1].close()  # the end of the driver's input
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    await asyncio.shield(ended)
        return ended.result() if ended.done() else 1
    finally:
        await asyncio.sleep(0.1)  # its last words may be on their way
        for task in (logging, answering):
            task.cancel()
        await asyncio.gather(logging, answering, return_exceptions=True)
        errors[1].close()


async def _log(reader: asyncio.StreamReader) -> None:
    while data := await reader.read(1 << 16):
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _tell(text: str, done: int, total: int) -> None:
    if not total:
        print(text, file=sys.stderr, flush=True)


main()
