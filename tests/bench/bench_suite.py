# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the suite costs: steps through driver, model and oracles beside the same steps as plain QMP.

Both play the same list of steps on the same kind of guest, turn about. Plain QMP has no toolstack, no model
and no oracle: create is `stop`, `transaction`, `migrate` to a file, `cont`; revert is `quit`,
`qemu-img snapshot -a` and a new QEMU that loads the memory; delete is
`blockdev-snapshot-delete-internal-sync`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qemu.qmp import QMPClient
from rows import Row, main
from xlsnap_conformance import guest, model
from xlsnap_conformance import trace as do
from xlsnap_conformance.fence import Fence
from xlsnap_conformance.guest import Probe
from xlsnap_conformance.scenario import Scenario
from xlsnap_conformance.subject import Subject
from xlsnap_conformance.trace import DiskOf, DomainOf, Step

STEPS = 150
ROUNDS = 3
VDEVS = ("hda", "hdb")
DOMAIN = DomainOf(disks=tuple(DiskOf(vdev=vdev) for vdev in VDEVS))


def steps_to_play(seed: int) -> list[Step]:
    """Return a walk over a snapshot tree, with the weights that generated scenarios have."""
    draw = random.Random(seed)
    world = model.World(DOMAIN)
    steps: list[Step] = []
    names = iter(range(1, STEPS))

    def work() -> list[Step]:
        written: list[Step] = [
            do.Write(vdev=v, lba=draw.choice((1, 7, 100)), word=f"w{len(steps)}") for v in VDEVS
        ]
        return [do.Set(key=draw.choice("abc"), value=f"v{len(steps)}"), *written]

    while len(steps) < STEPS:
        known = world.names()
        choices = ["work"] * 6 + ["create"] * (5 if len(known) < 8 else 0)
        choices += ["revert"] * 5 * bool(known) + ["delete"] * 2 * (len(known) >= 3)
        match draw.choice(choices):
            case "work":
                more = work()
            case "create":
                more = [do.Create(name=f"s{next(names)}")]
            case "revert":
                more = [do.Revert(name=draw.choice(known))]
            case _:
                more = [do.Delete(name=draw.choice(known))]
        for step in more:
            steps.append(step)
            world = model.apply(world, step).after
    return steps


class PlainQemu:
    """A guest and nothing between it and QMP."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.images = {vdev: directory / f"{vdev}.qcow2" for vdev in VDEVS}
        for path in self.images.values():
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"], check=True)

    async def start(self, memory: Path | None = None) -> None:
        """Start QEMU; with a memory image load it, and let the guest run."""
        control, control_end = socket.socketpair()
        console, console_end = socket.socketpair()
        command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-m", "1"]
        command += ["-machine", "pc,accel=tcg,usb=off,vmport=off,hpet=off,smbus=off"]
        command += ["-bios", str(guest.image("rom"))]
        command += [
            "-chardev",
            f"socket,id=control,fd={control_end.fileno()}",
            "-mon",
            "chardev=control,mode=control",
        ]
        command += ["-chardev", f"socket,id=console,fd={console_end.fileno()}", "-serial", "chardev:console"]
        for unit, (vdev, path) in enumerate(self.images.items()):
            node = {"driver": "qcow2", "node-name": vdev, "file": {"driver": "file", "filename": str(path)}}
            command += [
                "-blockdev",
                json.dumps(node),
                "-device",
                f"ide-hd,bus=ide.0,unit={unit},drive={vdev}",
            ]
        if memory is not None:
            command += ["-incoming", "defer"]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=(control_end.fileno(), console_end.fileno()),
            start_new_session=True,
        )
        control_end.close()
        console_end.close()
        control.setblocking(False)
        self.qmp = QMPClient("bench")
        await self.qmp.connect(control)
        await self.execute("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        self.probe = Probe(console)
        if memory is not None:
            with memory.open("rb") as image:
                await self.migrate("migrate-incoming", image.fileno())
            await self.execute("cont")
        self.probe.ping()

    async def execute(self, command: str, **arguments: Any) -> Any:
        """Run a QMP command."""
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        return await self.qmp.execute(command, named)

    async def migrate(self, command: str, fd: int) -> None:
        """Save memory to a file descriptor, or load it from there."""
        self.qmp.send_fd_scm(fd)
        await self.execute("getfd", fdname="memory")
        with self.qmp.listener("MIGRATION") as events:
            await self.execute(command, uri="fd:memory")
            status = None
            while status not in ("completed", "failed"):
                data: Any = (await events.get())["data"]
                status = data["status"]
        while (await self.execute("query-status"))["status"] in ("inmigrate", "finish-migrate"):
            await asyncio.sleep(0.0005)

    async def end(self) -> None:
        """End QEMU."""
        with contextlib.suppress(Exception):
            await self.execute("quit")
        self.process.wait(timeout=10)
        with contextlib.suppress(Exception):
            await self.qmp.disconnect()
        self.probe.close()

    def memory(self, name: str) -> Path:
        """Return the place of a memory image."""
        return self.directory / f"{name}.memory"

    async def play(self, step: Step) -> None:
        """Do a step."""
        match step:
            case do.Set(key=key, value=value):
                self.probe.set(key, value)
            case do.Write(vdev=vdev, lba=lba, word=word):
                self.probe.write(VDEVS.index(vdev), lba, word)
            case do.Create(name=str(name)):
                await self.execute("stop")
                tag = "blockdev-snapshot-internal-sync"
                actions = [{"type": tag, "data": {"device": vdev, "name": name}} for vdev in VDEVS]
                await self.execute("transaction", actions=actions)
                with self.memory(name).open("xb") as file:
                    await self.migrate("migrate", file.fileno())
                    os.fsync(file.fileno())
                await self.execute("cont")
            case do.Revert(name=name):
                await self.end()
                for path in self.images.values():
                    subprocess.run(["qemu-img", "snapshot", "-q", "-a", name, path], check=True)
                await self.start(self.memory(name))
            case do.Delete(name=name):
                for vdev in VDEVS:
                    await self.execute("blockdev-snapshot-delete-internal-sync", device=vdev, name=name)
                self.memory(name).unlink()
            case _:
                raise NotImplementedError(step)


async def plainly(steps: list[Step]) -> float:
    """Play the steps as plain QMP; return the seconds that they took, without start and end."""
    with tempfile.TemporaryDirectory(prefix="xlsnap-bench-") as scratch:
        domain = PlainQemu(Path(scratch))
        await domain.start()
        try:
            began = time.perf_counter()
            for step in steps:
                await domain.play(step)
            return time.perf_counter() - began
        finally:
            await domain.end()


def through_the_suite(steps: list[Step], subject: Subject) -> float:
    """Play the steps as a scenario; return the seconds that they took, without start and end."""
    with Scenario(subject, DOMAIN, thorough=False) as scenario:
        began = time.perf_counter()
        for step in steps:
            scenario.play(step)
        return time.perf_counter() - began


def measure() -> Iterator[Row]:
    """Measure both, turn about, so that a busy machine disturbs both alike."""
    ours, theirs = [], []
    with Fence() as fence, Subject("reference", fence) as subject:
        for seed in range(ROUNDS):
            steps = steps_to_play(seed)
            theirs.append(asyncio.run(plainly(steps)) / len(steps))
            ours.append(through_the_suite(steps, subject) / len(steps))
    mine, plain = statistics.median(ours), statistics.median(theirs)
    name = f"a step of a generated scenario ({1 / mine:.0f} a second; plain QMP {1 / plain:.0f})"
    yield Row(name, mine, plain, goal=">= 60 % rate")


if __name__ == "__main__":
    main("Suite", measure)
