# SPDX-License-Identifier: LGPL-2.1-or-later
"""Snapshot operations of the reference toolstack beside the same work in raw QMP, on the same guest.

The baseline speaks QMP over a plain socket and runs `qemu-img`: what a program would do that keeps no
metadata, checks nothing, and can lose everything. Both run on the probe guest with two qcow2 disks, in turns:
which of them is first changes from round to round.
"""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rows import Row, main, median_of
from xlsnap.domain import DomainConfig
from xlsnap.layout import StateRoot
from xlsnap.qemu.command_line import Sockets, command_line
from xlsnap.qemu.nodes import node_name
from xlsnap.qemu.process import find_binary
from xlsnap.request import SnapshotRequest
from xlsnap.steps import DiskImage
from xlsnap.toolstack import Toolstack
from xlsnap_conformance import guest
from xlsnap_grammars import DiskSpec

ROUNDS = 24


def make_config(directory: Path, name: str) -> DomainConfig:
    """Return a domain with two fresh disks."""
    disks = []
    for vdev in ("hda", "hdb"):
        image = directory / f"{name}-{vdev}.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], check=True)
        disks.append(DiskSpec(target=str(image), format="qcow2", vdev=vdev, readwrite=True))
    return DomainConfig(name=name, memory_mib=1, bios=str(guest.image("rom")), disks=tuple(disks))


class RawQemu:
    """A QEMU process and its monitor, with nothing around it."""

    def __init__(
        self,
        config: DomainConfig,
        directory: Path,
        memory: Path | None = None,
        *,
        chains: Mapping[str, Sequence[DiskImage]] = {},
    ) -> None:
        self.disks = [str(disk.target) for disk in config.disks]
        self.nodes = [node_name(str(disk.vdev), str(disk.target)) for disk in config.disks]
        pairs = [socket.socketpair() for _ in range(4)]
        self.monitor, self.console = pairs[0][0], pairs[3][0]
        descriptors = [theirs.fileno() for _, theirs in pairs]
        arguments = command_line(
            config,
            binary=find_binary(),
            uuid="00000000-0000-4000-8000-000000000000",
            accelerator="tcg",
            pidfile=str(directory / "raw.pid"),
            sockets=Sockets(*descriptors),
            incoming=memory is not None,
            chains=chains,
        )
        arguments = [item.replace(",server=on,wait=off", "") for item in arguments]
        self.process = subprocess.Popen(arguments, pass_fds=descriptors, stdin=subprocess.DEVNULL)
        for ours, theirs in pairs:
            theirs.close()
            ours.settimeout(60)
        self.buffer = b""
        self.message()
        self.execute("qmp_capabilities")
        self.execute("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        self.execute("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        if memory is not None:
            self.transfer("migrate-incoming", os.open(memory, os.O_RDONLY))
            self.execute("cont")

    def message(self) -> dict[str, Any]:
        while b"\n" not in self.buffer:
            self.buffer += self.monitor.recv(65536)
        line, self.buffer = self.buffer.split(b"\n", 1)
        return dict(json.loads(line))

    def execute(self, command: str, _fd: int | None = None, **arguments: object) -> Any:
        text = json.dumps({"execute": command, "arguments": arguments}).encode()
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [_fd]))] if _fd is not None else []
        self.monitor.sendmsg([text], passed)
        while True:
            message = self.message()
            if "error" in message:
                raise RuntimeError(message["error"])
            if "return" in message:
                return message["return"]

    def transfer(self, command: str, fd: int) -> None:
        self.execute("getfd", _fd=fd, fdname="memory")
        os.close(fd)
        self.execute(command, uri="fd:memory")
        while self.execute("query-migrate").get("status") != "completed":
            time.sleep(0.0005)
        while self.execute("query-status")["status"] in {"finish-migrate", "inmigrate"}:
            time.sleep(0.0005)

    def create(self, name: str, memory: Path) -> None:
        self.execute("stop")
        data = [{"device": node, "name": name} for node in self.nodes]
        actions = [{"type": "blockdev-snapshot-internal-sync", "data": item} for item in data]
        self.execute("transaction", actions=actions)
        self.transfer("migrate", os.open(memory, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600))
        self.execute("cont")

    def delete(self, name: str, memory: Path) -> None:
        for node in self.nodes:
            self.execute("blockdev-snapshot-delete-internal-sync", device=node, name=name)
        memory.unlink()

    def quit(self) -> None:
        self.execute("quit")
        self.process.wait()
        self.monitor.close()
        self.console.close()

    def revert(self, name: str) -> None:
        self.quit()
        running = [subprocess.Popen(["qemu-img", "snapshot", "-q", "-a", name, disk]) for disk in self.disks]
        assert not any(process.wait() for process in running)


def seconds(action: Callable[[], object]) -> float:
    os.sync()  # what earlier rounds left unwritten must not count for whoever syncs first
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def measure_operations(directory: Path) -> Iterator[Row]:
    """Create, revert and delete; medians."""
    times: dict[str, list[float]] = {}

    with asyncio.Runner() as runner:

        def run(operation: Callable[..., Coroutine[Any, Any, object]], *arguments: object) -> None:
            runner.run(operation(*arguments))

        toolstack = Toolstack(StateRoot.at(directory / "root"), accelerator="tcg", keep_connections=True)
        raw_config = make_config(directory, "raw")
        raw = RawQemu(raw_config, directory)
        try:
            runner.run(toolstack.create(make_config(directory, "ours")))
            for number in range(ROUNDS):
                name, memory = f"s{number}", directory / f"{number}.save"
                request = SnapshotRequest(name=name)

                def raw_revert(name: str = name, memory: Path = memory) -> None:
                    nonlocal raw
                    raw.revert(name)
                    raw = RawQemu(raw_config, directory, memory)

                both: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
                    (
                        "create",
                        partial(run, toolstack.snapshot_create, "ours", request),
                        partial(raw.create, name, memory),
                    ),
                    ("revert", partial(run, toolstack.snapshot_revert, "ours", name), raw_revert),
                    (
                        "delete",
                        partial(run, toolstack.snapshot_delete, "ours", name),
                        lambda: raw.delete(name, memory),  # noqa: B023
                    ),
                ]
                for what, operation, baseline in both:
                    turns = [(what, operation), (f"raw {what}", baseline)]
                    for key, action in turns if number % 2 else reversed(turns):
                        times.setdefault(key, []).append(seconds(action))
        finally:
            raw.process.kill()
            raw.process.wait()
            runner.run(toolstack.destroy("ours"))
            runner.run(toolstack.close())
    for what in ("create", "revert", "delete"):
        ours, raw_qmp = (statistics.median(times[key]) for key in (what, f"raw {what}"))
        yield Row(f"{what} ÷ raw QMP", ours, raw_qmp, "<= 1.2x")


def measure_list(directory: Path) -> Iterator[Row]:
    """The command line, from start to finish, on ten snapshots of a stopped domain."""
    root = directory / "root"
    with asyncio.Runner() as runner:
        toolstack = Toolstack(StateRoot.at(root), accelerator="tcg")
        runner.run(toolstack.create(make_config(directory, "listed")))
        try:
            for number in range(10):
                runner.run(toolstack.snapshot_create("listed", SnapshotRequest(name=f"s{number}")))
        finally:
            runner.run(toolstack.destroy("listed"))
    command = [sys.executable, "-c", "from xlsnap.cli import main; main()"]
    listing = [*command, "--root", str(root), "snapshot-list", "listed"]
    bare = [sys.executable, "-c", "pass"]

    def run(arguments: list[str]) -> None:
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)

    ours = median_of(lambda: run(listing), repeats=ROUNDS)
    yield Row("xlsnap snapshot-list, start to finish (baseline: bare python)", ours,
              median_of(lambda: run(bare), repeats=ROUNDS), "<= 150 ms")  # fmt: skip


def measure() -> Iterator[Row]:
    """All rows."""
    with tempfile.TemporaryDirectory(prefix="xlsnap-bench-") as name:
        yield from measure_operations(Path(name))
        if Path("reference/xlsnap/cli").exists():
            yield from measure_list(Path(name))


if __name__ == "__main__":
    main("Reference toolstack", measure)
