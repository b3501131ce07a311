# SPDX-License-Identifier: LGPL-2.1-or-later
"""External snapshots on chains of growing depth, merges beside raw ``block-commit``, and live snapshots.

Depths: an operation on a chain of 200 images beside the same on a chain of one, and beside the same by hand:
QMP and `qemu-img` on a chain of as many images, with nothing around it. QEMU opens every image of a chain
when it starts, and once more when it goes on after its memory was saved, but not after a live snapshot.
Merges: the deletion of a snapshot whose delta has 64 MiB beside QMP's ``block-commit`` and ``job-complete``
of the same delta. Live: how long the guest stands still, between QEMU's STOP and RESUME events, for memory of
several sizes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from bench_toolstack import RawQemu
from rows import Row, main
from xlsnap.domain import DomainConfig
from xlsnap.layout import StateRoot
from xlsnap.qemu.nodes import image_node, node_options
from xlsnap.request import SnapshotRequest
from xlsnap.steps import DiskImage
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


class RawChain:
    """A chain of images and a QEMU that has it open, by hand."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory / name
        self.directory.mkdir()
        self.config = make_config(self.directory, name)
        self.images = [DiskImage("hda", str(self.config.disks[0].target), "qcow2")]
        self.memory = self.directory / "raw.save"
        self.made = 0
        self.qemu: RawQemu | None = None

    def overlay(self) -> None:
        """Put an empty image over the upper one."""
        self.made += 1
        path = str(self.directory / f"o{self.made}.qcow2")
        backing = ("-u", "-b", self.images[-1].path, "-F", "qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, path, "1M"], check=True)
        self.images.append(DiskImage("hda", path, "qcow2"))

    def start(self, memory: Path | None = None) -> RawQemu:
        config = msgspec.structs.replace(
            self.config, disks=(dataclasses.replace(self.config.disks[0], target=self.images[-1].path),)
        )
        self.qemu = RawQemu(config, self.directory, memory, chains={"hda": self.images[::-1]})
        return self.qemu

    def deepen(self, depth: int) -> None:
        """Go on with a chain of so many images."""
        self.close()
        while len(self.images) < depth:
            self.overlay()
        self.start()

    def create(self, *, memory: bool = True, live: bool = False) -> None:
        assert self.qemu is not None
        base = image_node(self.images[-1])
        self.overlay()
        background = [{"capability": "background-snapshot", "state": live}]
        self.qemu.execute("migrate-set-capabilities", capabilities=background)
        self.qemu.execute("stop")
        options = node_options(self.images[-1], read_only=False, discard=False)
        self.qemu.execute("blockdev-add", None, **{**options, "backing": None})
        link = {"node": base, "overlay": options["node-name"]}
        self.qemu.execute("transaction", actions=[{"type": "blockdev-snapshot", "data": link}])
        if memory:
            self.qemu.transfer("migrate", os.open(self.memory, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600))
        self.qemu.execute("cont")

    def revert(self) -> None:
        assert self.qemu is not None
        self.qemu.quit()
        os.unlink(self.images.pop().path)
        self.overlay()
        self.start(self.memory)

    def delete(self) -> None:
        assert self.qemu is not None
        top = self.images.pop()
        commit_by_hand(self.qemu, image_node(top), image_node(self.images[-1]))
        self.qemu.execute("blockdev-del", None, **{"node-name": image_node(top)})
        os.unlink(top.path)
        self.memory.unlink(missing_ok=True)

    def close(self) -> None:
        if self.qemu is not None:
            self.qemu.quit()
            self.qemu = None


def commit_by_hand(raw: RawQemu, top: str, base: str | None = None) -> None:
    """Merge an upper image into a lower one, given by their nodes; without `base` into the lowest."""
    commit: dict[str, Any] = {"job-id": "commit", "device": top}
    raw.execute("block-commit", None, **commit, **({"base-node": base} if base else {}))
    while raw.execute("query-jobs")[0]["status"] != "ready":
        time.sleep(0.0005)
    raw.execute("job-complete", id="commit")
    while raw.execute("query-jobs"):
        time.sleep(0.0005)


WITHOUT_OPENING = {"create without memory": {"memory": False}, "live create": {"live": True}}
"""Kinds of create after which QEMU does not open the images again."""

OPERATIONS = (*WITHOUT_OPENING, "create", "revert", "delete")


async def at_depths(directory: Path) -> dict[tuple[str, str, int], float]:
    """Return medians by who did it, what, and at which depth of the chain.

    All depths and both ways have their turn in each round, so that what else the machine does is the same for
    all of them.
    """
    times: dict[tuple[str, str, int], list[float]] = {}
    raws = {depth: RawChain(directory, f"raw{depth}") for depth in DEPTHS}
    async with Toolstack(StateRoot.at(directory / "root"), accelerator="tcg", keep_connections=True) as tools:

        async def timed(what: str, depth: int, ours: Awaitable[object], by_hand: Callable[[], None]) -> None:
            start = time.perf_counter()
            await ours
            middle = time.perf_counter()
            by_hand()
            end = time.perf_counter()
            times.setdefault(("ours", what, depth), []).append(middle - start)
            times.setdefault(("raw", what, depth), []).append(end - middle)

        async def take_turns(depth: int, name: str) -> None:
            domain, raw = f"chain{depth}", raws[depth]
            for what, options in WITHOUT_OPENING.items():
                ours = tools.snapshot_create(domain, external(name, **options))
                await timed(what, depth, ours, lambda: raw.create(**options))  # noqa: B023
                await tools.snapshot_delete(domain, name)
                raw.delete()
            await timed("create", depth, tools.snapshot_create(domain, external(name)), raw.create)
            await timed("revert", depth, tools.snapshot_revert(domain, name), raw.revert)
            await timed("delete", depth, tools.snapshot_delete(domain, name), raw.delete)

        try:
            for depth, raw in raws.items():
                await tools.create(make_config(directory, f"chain{depth}"))
                for number in range(1, depth):
                    await tools.snapshot_create(f"chain{depth}", external(f"d{number}", memory=False))
                raw.deepen(depth)
            for number in range(ROUNDS):
                for depth in DEPTHS:
                    await take_turns(depth, f"n{number}")
        finally:
            for raw in raws.values():
                raw.close()
            for info in await tools.domains():
                await tools.destroy(info.name)
    return {key: statistics.median(values) for key, values in times.items()}


def measure_depths(directory: Path) -> Iterator[Row]:
    """Each operation at each depth beside the same at depth 1, and beside what QEMU takes at that depth."""
    medians = asyncio.run(at_depths(directory))
    for what in OPERATIONS:
        for depth in DEPTHS:
            label = f"external {what} at depth {depth}" + (" ÷ at depth 1" if depth > 1 else "")
            ours, raw = medians["ours", what, depth], medians["raw", what, depth]
            if depth == 1:
                yield Row(label, ours, raw_s=raw)
            else:
                yield Row(label, ours, medians["ours", what, 1], "<= 1.2x", raw_s=raw)


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
        commit_by_hand(raw, "top")
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
