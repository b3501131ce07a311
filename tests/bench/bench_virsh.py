# SPDX-License-Identifier: LGPL-2.1-or-later
"""Commands of `xlsnap` beside those of `virsh`, each as a user runs it: a process from start to finish.

Both take turns on guests that are alike: the probe guest as firmware, one qcow2 disk, the same memory, QEMU
under TCG. libvirt is the kit's own libvirtd, which is started for this and stopped again, unless it ran.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rows import Row, main
from xlsnap_conformance import guest
from xlsnap_conformance import protocol as p
from xlsnap_conformance.drivers.virsh.daemon import Daemon
from xlsnap_conformance.drivers.virsh.domain_xml import domain_xml

ROUNDS = 5

NAME = f"xlsnap-cts-bench-{os.getpid()}"
XLSNAP = str(Path(sys.executable).parent / "xlsnap")
SECONDS = 120


def run(*command: str, environment: dict[str, str] | None = None) -> float:
    """Run a command that must succeed; return how long it took."""
    begin = time.perf_counter()
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
        env={**os.environ, **(environment or {})},
    )
    seconds = time.perf_counter() - begin
    if done.returncode != 0:
        raise RuntimeError(f"{command}: {done.stderr.strip()}")
    return seconds


def image(directory: Path) -> Path:
    path = directory / "hda.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", str(path), "64M")
    return path


class Ours:
    """A domain of `xlsnap`."""

    def __init__(self, directory: Path, memory_mib: int) -> None:
        self._environment = {"XLSNAP_ROOT": str(directory / "state"), "XLSNAP_ACCELERATOR": "tcg"}
        config = directory / "domain.cfg"
        config.write_text(
            f"name = '{NAME}'\ntype = 'hvm'\nmemory = {memory_mib}\nserial = 'pty'\n"
            f"bios_path_override = '{guest.image('rom')}'\n"
            f"disk = [ 'vdev=hda,format=qcow2,access=rw,target={image(directory)}' ]\n"
        )
        self("create", str(config))

    def __call__(self, *arguments: str) -> float:
        return run(XLSNAP, *arguments, environment=self._environment)

    def create(self, name: str) -> float:
        return self("snapshot-create", "-n", name, NAME)

    def revert(self, name: str) -> float:
        return self("snapshot-revert", "-n", name, NAME)

    def delete(self, name: str) -> float:
        return self("snapshot-delete", "-n", name, NAME)

    def close(self) -> None:
        self("destroy", NAME)


class Theirs:
    """A domain of libvirt's QEMU driver."""

    def __init__(self, directory: Path, memory_mib: int, uri: str) -> None:
        self._uri = uri
        rom = str(guest.image("rom"))
        request = p.DomainCreate(
            name=NAME,
            memory_mib=memory_mib,
            vcpus=1,
            firmware=p.Firmware(rom=rom, disk=rom, iso=rom),
            disks=(p.Disk(vdev="hda", path=str(image(directory)), format="qcow2"),),
        )
        definition = directory / "domain.xml"
        definition.write_text(domain_xml(request, str(directory / "console")))
        self("define", str(definition))
        self("start", NAME)

    def __call__(self, *arguments: str) -> float:
        return run("virsh", "--connect", self._uri, *arguments)

    def create(self, name: str) -> float:
        return self("snapshot-create-as", NAME, name, "--memspec=snapshot=internal")

    def revert(self, name: str) -> float:
        return self("snapshot-revert", NAME, name)

    def delete(self, name: str) -> float:
        return self("snapshot-delete", NAME, name)

    def close(self) -> None:
        self("destroy", NAME)
        self("undefine", NAME, "--snapshots-metadata")


OPERATIONS = {"create": "<= 0.5x", "revert": "<= 0.25x", "delete": "<= 0.5x"}


def compare(ours: Ours, theirs: Theirs, label: str) -> Iterator[Row]:
    """Measure the operations of both in turns, so that a busy machine disturbs both alike."""
    seconds: dict[tuple[int, str], list[float]] = {}
    for number in range(ROUNDS):
        for operation in OPERATIONS:
            for side, domain in enumerate((ours, theirs)):
                took = getattr(domain, operation)(f"s{number}")
                seconds.setdefault((side, operation), []).append(took)
    for operation, goal in OPERATIONS.items():
        mine, other = (statistics.median(seconds[side, operation]) for side in (0, 1))
        yield Row(f"{operation} ÷ virsh, {label}", mine, other, goal=goal)


def measure() -> Iterator[Row]:
    if any(shutil.which(program) is None for program in ("libvirtd", "virsh")):
        print("skipped: libvirt is not installed")
        return
    daemon = Daemon.default()
    ran = daemon.process() is not None
    uri = daemon.start()
    try:
        for memory_mib in (1, 64):
            with tempfile.TemporaryDirectory(prefix="xlsnap-bench-") as scratch:
                directories = [Path(scratch, side) for side in ("ours", "theirs")]
                for directory in directories:
                    directory.mkdir()
                ours = Ours(directories[0], memory_mib)
                try:
                    theirs = Theirs(directories[1], memory_mib, uri)
                    try:
                        yield from compare(ours, theirs, f"{memory_mib} MiB")
                    finally:
                        theirs.close()
                finally:
                    ours.close()
    finally:
        if not ran:
            daemon.stop()


if __name__ == "__main__":
    main("xlsnap beside virsh", measure)
