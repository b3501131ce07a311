# SPDX-License-Identifier: LGPL-2.1-or-later
"""The probe as the first process of Linux, here of a namespace: its disks need Xen, the rest does not."""

import contextlib
import os
import pty
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from xlsnap_conformance.guest import Probe, ProbeError, image

UNSHARE = ("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child")

END_SECONDS = 30
CPU_SECONDS = 0.5


@pytest.fixture
def program(tmp_path: Path) -> Path:
    copy = tmp_path / "init"
    copy.write_bytes(image("linux").read_bytes())
    copy.chmod(0o755)
    return copy


class Guest:
    def __init__(self, program: Path) -> None:
        self.terminal, end = pty.openpty()  # not raw: the probe has to see to that
        self.process = subprocess.Popen([*UNSHARE, str(program)], stdin=end, stdout=end)
        os.close(end)
        ours, theirs = socket.socketpair()
        for take, give in (
            (lambda: os.read(self.terminal, 4096), theirs.sendall),
            (lambda: theirs.recv(4096), lambda data: os.write(self.terminal, data)),
        ):
            threading.Thread(target=_pump, args=(take, give), daemon=True).start()
        self.probe = Probe(ours)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.probe.close()
        os.close(self.terminal)


def _pump(take: Callable[[], bytes], give: Callable[[bytes], object]) -> None:
    with contextlib.suppress(OSError):
        while data := take():
            give(data)


@pytest.fixture
def guest(program: Path) -> Iterator[Guest]:
    if subprocess.run([*UNSHARE, "true"], capture_output=True).returncode:
        pytest.skip("this machine makes no namespaces for us")
    guest = Guest(program)
    yield guest
    guest.end()


def test_the_protocol_is_that_of_the_bare_guest(guest: Guest) -> None:
    probe = guest.probe
    assert probe.info() == "probe2 boot=l"
    assert probe.get("a") is None
    probe.set("a", "one")
    assert probe.get("a") == "one"
    assert probe.variables()[0] == 1
    assert probe.disks() == [0] * 8
    with pytest.raises(ProbeError) as caught:
        probe.read(0, 0)
    assert caught.value.reason == "nodisk"


def test_memory_is_filled_as_in_the_bare_guest(guest: Guest) -> None:
    guest.probe.request("fill", "7")
    value, hash = 7, 2166136261
    for _ in range(0x40000 // 4):
        value = (value * 1664525 + 1013904223) & 0xFFFFFFFF
        for byte in value.to_bytes(4, "little"):
            hash = ((hash ^ byte) * 16777619) & 0xFFFFFFFF
    assert guest.probe.request("msum") == f"{hash:08x}"


def test_it_sleeps_when_it_is_not_asked(guest: Guest) -> None:
    guest.probe.ping()
    first, cpu = guest.probe.tick(), _cpu_seconds(guest.process.pid)
    while guest.probe.tick() < first + 100:
        threading.Event().wait(0.2)
    assert _cpu_seconds(guest.process.pid) - cpu < CPU_SECONDS


def _cpu_seconds(pid: int) -> float:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    fields = Path(f"/proc/{children[0]}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(("command", "number"), [("off", signal.SIGINT), ("reboot", signal.SIGHUP)])
def test_it_ends_the_machine(guest: Guest, command: str, number: int) -> None:
    """The kernel tells by these signals what the first process of a namespace wanted: see reboot(2)."""
    guest.probe.request(command)
    assert guest.process.wait(END_SECONDS) == -number


def test_it_touches_nothing_unless_it_is_the_first_process(program: Path) -> None:
    done = subprocess.run([str(program)], stdin=subprocess.DEVNULL, capture_output=True, timeout=END_SECONDS)
    assert (done.returncode, done.stdout) == (2, b"the probe is the first process of a guest\n")
