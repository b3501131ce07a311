# SPDX-License-Identifier: LGPL-2.1-or-later
"""External snapshots on chains of growing depth, merges beside raw ``block-commit``, and live snapshots.

Depths: an operation on a chain of 200 overlays beside the same on a chain of one. Merges: the deletion of a
snapshot whose delta has 64 MiB beside QMP's ``block-commit`` and ``job-complete`` of the same delta. Live:
how long the guest stands still, between QEMU's STOP and RESUME events, for memory of several sizes.
"""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from bench_toolstack import RawQemu
from rows import Row, main
from xlsnap.domain import DomainConfig
from xlsnap.layout import StateRoot
from xlsnap.request import SnapshotRequest
from xlsnap.toolstack import Toolstack
from xlsnap_conformance import guest
from xlsnap_grammars import DiskSpec

DEPTHS = (1, 10, 50, 100, 200)
ROUNDS = 7
DELTA_MIB = 64
MEMORY_MIB = (64, 512, 2048)
LIVE_GOAL = "<= 60 ms"


def make_config(directory: Path, name: str, *, size: str = "1M", memory_mib: int = 1) -> DomainConfig:
    """Return a domain with one fresh disk."""
    image = directory / f"{name}.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, size], check=True)
    disk = DiskSpec(target=str(image), format="qcow2", vdev="hda", readwrite=True)
    return DomainConfig(name=name, memory_mib=memory_mib, bios=str(guest.image("rom")), disks=(disk,))


async def seconds(action: Callable[[], Awaitable[object]]) -> float:
    """Time an operation."""
    start = time.perf_counter()
    await action()
    return time.perf_counter() - start


def external(name: str, *, memory: bool = True, live: bool = False) -> SnapshotRequest:
    """Ask for an external snapshot of all disks."""
    return SnapshotRequest(name=name, memory=memory, type="external", live=live)


async def at_depths(directory: Path) -> dict[tuple[str, int], float]:
    """Return medians of create, revert and delete by depth of the chain."""
    times: dict[tuple[str, int], list[float]] = {}
    async with Toolstack(StateRoot.at(directory / "root"), accelerator="tcg", keep_connections=True) as tools:
        await tools.create(make_config(directory, "chain"))
        try:
            depth = 0
            for wanted in DEPTHS:
                while depth < wanted - 1:
                    depth += 1
                    await tools.snapshot_create("chain", external(f"d{depth}", memory=False))
                for number in range(ROUNDS):
                    name = f"n{number}"
                    for what, action in (
                        ("create", lambda: tools.snapshot_create("chain", external(name))),  # noqa: B023
                        ("revert", lambda: tools.snapshot_revert("chain", name)),  # noqa: B023
                        ("delete", lambda: tools.snapshot_delete("chain", name)),  # noqa: B023
                    ):
                        times.setdefault((what, wanted), []).append(await seconds(action))
        finally:
            await tools.destroy("chain")
    return {key: statistics.median(values) for key, values in times.items()}


def measure_depths(directory: Path) -> Iterator[Row]:
    """Each operation at each depth beside the same at depth 1."""
    medians = asyncio.run(at_depths(directory))
    for what in ("create", "revert", "delete"):
        for depth in DEPTHS[1:]:
            label = f"external {what} at depth {depth} ÷ at depth 1"
            yield Row(label, medians[what, depth], medians[what, 1], "<= 1.2x")


def write_delta(path: Path) -> None:
    """Fill an image that nobody has open."""
    command = f"write -P 7 0 {DELTA_MIB}M"
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", command, path], check=True, stdout=subprocess.DEVNULL)


async def merge_ours(directory: Path, number: int) -> float:
    """Delete the only snapshot of a running domain, whose overlay is full."""
    config = make_config(directory, f"merge{number}", size=f"{DELTA_MIB}M")
    async with Toolstack(StateRoot.at(directory / "root"), accelerator="tcg", keep_connections=True) as tools:
        await tools.create(config)
        try:
            await tools.snapshot_create(config.name, external("s", memory=False))
            await tools.destroy(config.name)
            (disk,) = tools.current_disks(config.name)
            write_delta(Path(str(disk.target)))
            await tools.create(config)
            return await seconds(lambda: tools.snapshot_delete(config.name, "s"))
        finally:
            await tools.destroy(config.name)


def merge_raw(directory: Path, number: int) -> float:
    """Commit a full overlay by hand."""
    config = make_config(directory, f"raw{number}", size=f"{DELTA_MIB}M")
    base = str(config.disks[0].target)
    overlay = Path(f"{base}.overlay")
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", overlay], check=True
    )
    write_delta(overlay)
    raw = RawQemu(DomainConfig(name="raw", memory_mib=1, bios=config.bios), directory)
    try:
        node: dict[str, Any] = {"driver": "qcow2", "node-name": "top"}
        raw.execute("blockdev-add", **node, file={"driver": "file", "filename": str(overlay)})
        start = time.perf_counter()
        commit: dict[str, Any] = {"job-id": "commit", "device": "top"}
        raw.execute("block-commit", **commit)
        while raw.execute("query-jobs")[0]["status"] != "ready":
            time.sleep(0.0005)
        raw.execute("job-complete", id="commit")
        while raw.execute("query-jobs"):
            time.sleep(0.0005)
        return time.perf_counter() - start
    finally:
        raw.quit()


def measure_merge(directory: Path) -> Iterator[Row]:
    """Ours and raw in turns."""
    ours, raw = [], []
    for number in range(ROUNDS):
        ours.append(asyncio.run(merge_ours(directory, number)))
        raw.append(merge_raw(directory, number))
    label = f"delete with a merge of {DELTA_MIB} MiB ÷ raw block-commit"
    yield Row(label, statistics.median(ours), statistics.median(raw), "<= 1.1x")


class Events:
    """A monitor of a domain that is only listened to."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.socket.settimeout(60)
        self.file = self.socket.makefile("rw")
        self.file.readline()
        self.file.write('{"execute": "qmp_capabilities"}\n')
        self.file.flush()

    def stopped(self) -> float:
        """Return how long the guest stood still in seconds: from the next STOP to the next RESUME."""
        moments: dict[str, float] = {}
        while "RESUME" not in moments:
            message: dict[str, Any] = json.loads(self.file.readline())
            if message.get("event") in ("STOP", "RESUME"):
                stamp = message["timestamp"]
                moments.setdefault(message["event"], stamp["seconds"] + stamp["microseconds"] / 1e6)
        return moments["RESUME"] - moments["STOP"]

    def close(self) -> None:
        """Let go."""
        self.file.close()
        self.socket.close()


async def live(directory: Path, memory_mib: int) -> tuple[float, float]:
    """Return the medians of the guest's downtime and of the whole operation."""
    config = make_config(directory, f"live{memory_mib}", memory_mib=memory_mib)
    downtimes, whole = [], []
    async with Toolstack(StateRoot.at(directory / "root"), accelerator="tcg") as tools:
        await tools.create(config)
        try:
            for number in range(3):
                record = tools.resolve(config.name)
                process = tools.root.domain(record.uuid).directory / f"process-{record.process}"
                events = Events(process / "status.sock")
                request = external(f"s{number}", live=True)
                whole.append(await seconds(lambda: tools.snapshot_create(config.name, request)))  # noqa: B023
                downtimes.append(await asyncio.to_thread(events.stopped))
                events.close()
        finally:
            await tools.destroy(config.name)
    return statistics.median(downtimes), statistics.median(whole)


def measure_live(directory: Path) -> Iterator[Row]:
    """How long the guest stands still; the baseline is how long the whole operation takes."""
    for memory_mib in MEMORY_MIB:
        downtime, whole = asyncio.run(live(directory, memory_mib))
        yield Row(f"downtime of a live snapshot, {memory_mib} MiB (÷ all of it)", downtime, whole, LIVE_GOAL)


def measure() -> Iterator[Row]:
    """All rows."""
    for part in (measure_depths, measure_merge, measure_live):
        with tempfile.TemporaryDirectory(prefix="xlsnap-bench-") as name:
            yield from part(Path(name))


if __name__ == "__main__":
    main("External and live snapshots", measure)
