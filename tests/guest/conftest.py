# SPDX-License-Identifier: LGPL-2.1-or-later
"""Probe guests under QEMU, started and ended by the tests themselves."""

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from xlsnap_conformance import guest

MACHINE = "pc,accel=tcg,usb=off,vmport=off,hpet=off,smbus=off"
ROM = ("-m", "1", "-bios", str(guest.image("rom")))


class Machine:
    """A QEMU process with a probe guest: `probe` talks to the guest, `qmp` to QEMU."""

    def __init__(self, arguments: tuple[str, ...], *, wait: bool = True) -> None:
        console, console_end = socket.socketpair()
        monitor, monitor_end = socket.socketpair()
        descriptors = (console_end.fileno(), monitor_end.fileno())
        self.process = subprocess.Popen(
            [
                *("qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", MACHINE),
                *("-chardev", f"socket,id=console,fd={descriptors[0]}", "-serial", "chardev:console"),
                *(
                    "-chardev",
                    f"socket,id=monitor,fd={descriptors[1]}",
                    "-mon",
                    "chardev=monitor,mode=control",
                ),
                *arguments,
            ],
            stdin=subprocess.DEVNULL,
            pass_fds=descriptors,
        )
        console_end.close()
        monitor_end.close()
        self.console = console
        self.probe = guest.Probe(console, timeout=20)
        monitor.settimeout(30)
        self._socket = monitor
        self._monitor = monitor.makefile("rw")
        try:
            self._monitor.readline()
            self.qmp("qmp_capabilities")
            if wait:
                self.probe.ping()
        except BaseException:
            self.close()
            raise

    def qmp(self, command: str, **arguments: object) -> Any:
        """Run a QMP command; underscores in names stand for dashes."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._monitor.write(json.dumps({"execute": command, "arguments": named}) + "\n")
        self._monitor.flush()
        while True:
            message = json.loads(self._monitor.readline())
            if "error" in message:
                raise RuntimeError(message["error"]["desc"])
            if "return" in message:
                return message["return"]

    def hmp(self, line: str) -> str:
        """Run a command of the human monitor."""
        return str(self.qmp("human-monitor-command", command_line=line))

    def status(self) -> str:
        """Return QEMU's run state."""
        return str(self.qmp("query-status")["status"])

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        self.probe.close()
        self._monitor.close()
        self._socket.close()


Start = Callable[..., Machine]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start machines that end with the test: ``start(*arguments)``, from ROM unless told otherwise."""
    machines = []

    def begin(*arguments: str, boot: tuple[str, ...] = ROM, wait: bool = True) -> Machine:
        machines.append(Machine((*boot, *arguments), wait=wait))
        return machines[-1]

    yield begin
    for machine in machines:
        machine.close()


@pytest.fixture
def disk(tmp_path: Path) -> Callable[..., tuple[str, ...]]:
    """Make images and return the arguments that attach them: ``disk("xvda", readonly=True)``."""

    def attach(vdev: str, *, readonly: bool = False, path: Path | None = None) -> tuple[str, ...]:
        image = path or tmp_path / f"{vdev}.qcow2"
        if not image.exists():
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], check=True)
        block = {
            "driver": "qcow2",
            "node-name": vdev,
            "read-only": readonly,
            "file": {"driver": "file", "filename": str(image)},
        }
        letter = ord(vdev[-1]) - ord("a")
        device = {"driver": "ide-hd", "bus": f"ide.{letter >> 1}", "unit": letter & 1}
        if vdev.startswith("xvd"):
            device = {"driver": "virtio-blk-pci", "addr": hex(0x10 + letter)}
        return ("-blockdev", json.dumps(block), "-device", json.dumps({**device, "drive": vdev}))

    return attach
