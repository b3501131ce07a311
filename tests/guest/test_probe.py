# SPDX-License-Identifier: LGPL-2.1-or-later
"""The probe guest and its client, on QEMU."""

import contextlib
import fcntl
import json
import os
import re
import shlex
import socket
import subprocess
import termios
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from xlsnap_conformance import guest
from xlsnap_conformance.guest import Probe, ProbeClosed, ProbeError, ProbeTimeout

IDE = ("hda", "hdb", "hdc", "hdd")
VIRTIO = ("xvda", "xvdb", "xvdc", "xvdd")


def refused(probe: Probe, reason: str, command: str, *arguments: str) -> None:
    with pytest.raises(ProbeError) as caught:
        probe.request(command, *arguments)
    assert caught.value.reason == reason


# --- memory ---------------------------------------------------------------------------------------------


def test_variables(start: Any) -> None:
    probe = start().probe
    assert probe.get("a") is None
    assert probe.variables()[0] == 0
    probe.set("a", "1")
    probe.set("b", "v" * 47)
    one = probe.variables()
    probe.set("a", "2")
    assert (probe.get("a"), probe.get("b")) == ("2", "v" * 47)
    assert probe.variables()[0] == 2
    assert probe.variables() != one
    probe.set("a", "1")
    assert probe.variables() == one
    probe.delete("a")
    assert probe.get("a") is None
    refused(probe, "nokey", "del", "a")
    refused(probe, "long", "set", "k" * 16, "v")
    refused(probe, "long", "set", "k", "v" * 48)
    probe.set("k" * 15, "v")
    assert probe.get("k" * 15) == "v"


def test_there_is_room_for_64_variables(start: Any) -> None:
    probe = start().probe
    for number in range(64):
        probe.set(f"key{number}", f"value{number}")
    refused(probe, "full", "set", "one-more", "x")
    assert all(probe.get(f"key{number}") == f"value{number}" for number in range(64))
    probe.set("key0", "other")
    probe.delete("key1")
    probe.set("one-more", "x")
    assert (probe.get("key0"), probe.get("key1"), probe.get("one-more")) == ("other", None, "x")
    assert probe.variables()[0] == 64


def test_time_passes_while_the_guest_runs(start: Any) -> None:
    machine = start()
    before = machine.probe.tick()
    end = time.monotonic() + 20
    while machine.probe.tick() < before + 10 and time.monotonic() < end:
        time.sleep(0.01)
    began, stopped = time.monotonic(), machine.probe.tick()
    machine.qmp("stop")
    time.sleep(0.5)
    machine.qmp("cont")
    ran = machine.probe.tick() - stopped
    assert ran <= (time.monotonic() - began - 0.5) * 100 + 5  # half a second would be 50 ticks


def test_a_pattern_in_memory(start: Any) -> None:
    probe = start().probe
    probe.memory_fill(1)
    first = probe.memory_sum()
    probe.memory_fill(2)
    assert probe.memory_sum() != first
    probe.memory_fill(1)
    assert probe.memory_sum() == first


# --- disks ----------------------------------------------------------------------------------------------


def test_eight_disks(start: Any, disk: Any) -> None:
    machine = start(*(item for vdev in (*IDE, *VIRTIO) for item in disk(vdev)))
    probe = machine.probe
    assert probe.disks() == [2048] * 8
    for number in range(8):
        assert probe.read(number, 7) is None
        probe.write(number, 7, f"word{number}")
    assert [probe.read(number, 7) for number in range(8)] == [f"word{number}" for number in range(8)]
    probe.flush()
    sums = {probe.disk_sum(number, 0, 16) for number in range(8)}
    assert len(sums) == 8
    before = probe.disk_sum(0, 0, 16)
    assert probe.disk_sum(0, 8, 8) == probe.disk_sum(1, 8, 8) == probe.disk_sum(7, 8, 8)
    probe.write(0, 15, "last")
    assert probe.disk_sum(0, 0, 16) != before
    assert probe.disk_sum(0, 0, 15) != probe.disk_sum(0, 0, 16)
    probe.write(7, 2047, "end")
    assert probe.read(7, 2047) == "end"
    refused(probe, "nodisk", "rd", "8", "0")
    refused(probe, "nosector", "rd", "0", "2048")
    refused(probe, "nosector", "dsum", "0", "2047", "2")
    refused(probe, "long", "wr", "0", "0", "w" * 32)


def test_a_disk_that_is_plugged_in_is_found_by_rescan(start: Any, disk: Any) -> None:
    """Without firmware the guest itself places the devices: they must not come to lie on one another."""
    arguments = disk("xvdb")
    machine = start(*arguments)
    probe = machine.probe
    probe.write(4, 0, "first")
    blockdev, device = (json.loads(item) for item in disk("xvda")[1::2])
    machine.qmp("blockdev-add", **blockdev)
    machine.qmp("device_add", **device)
    assert probe.disks() == [0, 0, 0, 0, 2048, 0, 0, 0]
    probe.rescan()
    assert probe.disks() == [0, 0, 0, 0, 2048, 2048, 0, 0]
    assert probe.read(4, 0) is None  # xvda is before xvdb
    refused(probe, "foreign", "rd", "5", "0")
    probe.write(4, 0, "second")
    assert probe.read(4, 0) == "second"
    refused(probe, "foreign", "rd", "5", "0")


def test_what_is_flushed_outlives_the_process(start: Any, disk: Any) -> None:
    arguments = (*disk("hdb"), *disk("xvda"))
    first = start(*arguments)
    for number in (1, 4):
        first.probe.write(number, 3, "kept")
    first.probe.flush()
    first.close()
    second = start(*arguments)
    assert [second.probe.read(number, 3) for number in (1, 4)] == ["kept", "kept"]


def test_disk_numbers_are_those_of_the_vdevs() -> None:
    vdevs = ["xvdc", "hda", "xvda", "hdc"]
    assert [guest.disk_number(vdev, vdevs) for vdev in vdevs] == [5, 0, 4, 2]
    with pytest.raises(ValueError, match="no disk 'hdb'"):
        guest.disk_number("hdb", vdevs)


def test_a_sector_of_another_place_is_foreign_and_a_damaged_one_bad(start: Any, tmp_path: Path) -> None:
    """The images are raw, so that sectors can be changed behind the guest's back."""
    images = [tmp_path / "a.img", tmp_path / "b.img"]
    arguments = []
    for index, image in enumerate(images):
        image.write_bytes(bytes(1 << 20))
        arguments += ["-drive", f"if=ide,index={index},format=raw,file={image}"]
    probe = start(*arguments).probe
    probe.write(0, 1, "here")
    probe.flush()
    good = images[0].read_bytes()[512:1024]

    def put(disk: int, lba: int, content: bytes) -> None:
        with open(images[disk], "r+b") as file:
            file.seek(lba * 512)
            file.write(content)

    put(0, 2, good)
    refused(probe, "foreign", "rd", "0", "2")
    put(1, 1, good)
    refused(probe, "foreign", "rd", "1", "1")
    for at in (0, 12, 100, 511):
        spoilt = bytearray(good)
        spoilt[at] ^= 1
        put(0, 1, bytes(spoilt))
        refused(probe, "bad", "rd", "0", "1")
    put(0, 1, good)
    assert probe.read(0, 1) == "here"


def test_a_read_only_disk_refuses_writes(start: Any, disk: Any, tmp_path: Path) -> None:
    probe = start(*disk("xvda", readonly=True)).probe
    refused(probe, "io", "wr", "4", "0", "word")
    assert probe.read(4, 0) is None
    probe.count(4, 0)  # a counter that cannot write stands still
    end = time.monotonic() + 10
    while not probe.counted() and time.monotonic() < end:
        pass  # it may answer before it has begun
    assert (probe.counted(), probe.counted(), probe.stop()) == (1, 1, 1)


# --- the line -------------------------------------------------------------------------------------------


def test_requests_that_make_no_sense(start: Any, disk: Any) -> None:
    probe = start(*disk("hda")).probe
    refused(probe, "command", "frobnicate")
    refused(probe, "command", "pin")
    refused(probe, "command", "pings")
    refused(probe, "arguments", "get")
    refused(probe, "arguments", "ping", "now")
    refused(probe, "arguments", "set", "a", "b", "c", "d")
    for number in ("x", "-1", "1x", "0x", "4294967296", "0x1g", "0x100000000", "@", "`", "0x@"):
        refused(probe, "number", "rd", number, "0")
        refused(probe, "number", "rd", "0", number)
    refused(probe, "number", "dsum", "0", "0", "x")
    refused(probe, "number", "fill", "x")
    refused(probe, "nosector", "rd", "0", "4294967295")
    refused(probe, "nodisk", "count", "1", "0")
    assert probe.request("rd", "0x0", "0x10") == "-"
    with pytest.raises(ValueError, match="cannot be sent"):
        probe.set("a", "two words")
    with pytest.raises(ValueError, match="cannot be sent"):
        probe.set("a", "one\nping")
    with pytest.raises(ValueError, match=r"is \d+ bytes long, the guest takes 159"):
        probe.set("a", "v" * 160)
    probe.ping()


def test_detail_says_what_was_expected(start: Any, disk: Any) -> None:
    probe = start(*disk("hda")).probe
    details = {
        ("set", "a"): "set a: arguments 00000002",
        ("set", "k" * 16, "v"): f"set {'k' * 16} v: long 0000000f",
        ("rd", "0", "2048"): "rd 0 2048: nosector 00000800",
        ("rd", "5", "0"): "rd 5 0: nodisk 00000005",
    }
    for request, text in details.items():
        with pytest.raises(ProbeError) as caught:
            probe.request(*request)
        assert str(caught.value) == text


def test_noise_does_no_harm(start: Any) -> None:
    machine = start()
    machine.probe.set("a", "1")
    for noise in (b"half a line", b"\n\n\r\n", b"999 set a 2\x15", b"x" * 500 + b"\n", bytes(range(32, 127))):
        machine.console.sendall(noise)
        assert machine.probe.get("a") == "1"


def test_a_line_of_159_bytes_is_taken_and_a_longer_one_has_no_effect(start: Any) -> None:
    machine = start()
    request = "set a 1"
    for length, value in ((159, "1"), (160, None), (161, None), (5000, None)):
        if machine.probe.get("a") is not None:
            machine.probe.delete("a")
        machine.console.sendall(f"\x15{'n' * (length - len(request) - 1)} {request}\n".encode())
        assert machine.probe.get("a") == value


def test_a_line_that_is_too_long_is_said_to_be(start: Any) -> None:
    machine = start()
    machine.console.sendall(b"\x15" + b"x" * 160 + b"\n")
    with machine.console.makefile("rb") as lines:
        while (line := lines.readline()) != b"!toolong\n":
            assert line.startswith(b"!") or line == b"\n"


def test_a_guest_that_does_not_answer(start: Any) -> None:
    machine = start()
    machine.qmp("stop")
    machine.probe.timeout = 0.2
    with pytest.raises(ProbeTimeout, match=r"did not answer 'get a' within 0\.2 s"):
        machine.probe.get("a")
    machine.qmp("cont")
    machine.probe.timeout = 20
    assert machine.probe.get("a") is None  # the late reply to the first request is passed over


def test_a_guest_that_ends(start: Any) -> None:
    machine = start()
    machine.process.kill()
    with pytest.raises(ProbeClosed, match="was closed"):
        machine.probe.ping()


def test_a_guest_that_takes_no_request() -> None:
    ours, theirs = socket.socketpair()
    with theirs, Probe(ours, timeout=0.2) as probe:
        ours.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send(b"\n" * 65536)
        with pytest.raises(ProbeTimeout, match=r"took no request within 0\.2 s"):
            probe.ping()


def test_a_console_that_takes_no_connection(tmp_path: Path) -> None:
    path = tmp_path / "console.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(path))
        listener.listen(0)
        first.connect(str(path))
        with pytest.raises(ProbeTimeout, match=r"console\.sock took no connection within 0\.2 s"):
            Probe(path, timeout=0.2)


def test_a_ping_is_repeated_until_the_guest_listens() -> None:
    """A request that is lost while the guest boots: here the first one is."""
    ours, theirs = socket.socketpair()

    def answer() -> None:
        with theirs, theirs.makefile("rwb") as lines:
            lines.readline()
            number = lines.readline().lstrip(b"\x15").split()[0]
            lines.write(b"\n!probe2\n999999 ok pong\n" + number + b" ok pong\r\n")

    guest_end = threading.Thread(target=answer)
    guest_end.start()
    with Probe(ours, timeout=10) as probe:
        probe.ping()
    guest_end.join()


def test_a_console_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProbeClosed, match="No such file"):
        Probe(tmp_path / "none.sock")


def test_a_console_with_a_long_path(start: Any, tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    fd = os.open(directory, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{fd}/console.sock")
        listener.listen()
        with Probe(directory / "console.sock", timeout=1):
            pass
    os.close(fd)


# --- power ----------------------------------------------------------------------------------------------


def test_power_off_ends_the_machine(start: Any) -> None:
    machine = start()
    machine.probe.power_off()
    machine.probe.close()  # a request that was answered does not get lost
    assert machine.process.wait(20) == 0


def test_power_off_can_be_kept(start: Any) -> None:
    machine = start("-action", "shutdown=pause")
    machine.probe.power_off()
    end = time.monotonic() + 20
    while machine.status() != "shutdown" and time.monotonic() < end:
        time.sleep(0.01)
    assert machine.status() == "shutdown"


def test_a_machine_that_cannot_be_powered_off_says_so(start: Any) -> None:
    """Without ACPI the machine has no power management."""
    probe = start("-machine", "acpi=off").probe
    refused(probe, "nopower", "off")
    probe.ping()


def test_reboot_forgets_memory_and_keeps_disks(start: Any, disk: Any) -> None:
    probe = start(*disk("hda")).probe
    probe.set("a", "1")
    probe.write(0, 0, "kept")
    probe.reboot()
    assert probe.get("a") is None
    assert probe.variables()[0] == 0
    assert probe.info() == "probe2 boot=r"
    assert probe.read(0, 0) == "kept"


# --- ways to boot ---------------------------------------------------------------------------------------

RAW = "file={disk},format=raw,read-only=on"
BOOTS = {
    "rom": ("r", ("-m", "1", "-bios", "{rom}")),
    "multiboot": ("k", ("-m", "4", "-kernel", "{disk}")),
    "floppy": ("b", ("-m", "4", "-drive", f"if=floppy,{RAW}", "-boot", "a")),
    "cd": ("b", ("-m", "4", "-drive", "if=ide,media=cdrom,format=raw,file={iso}", "-boot", "d")),
    "ide": ("b", ("-m", "4", "-drive", "if=ide,format=raw,snapshot=on,file={disk}", "-boot", "c")),
    "ide-rom": ("r", ("-m", "1", "-bios", "{rom}", "-drive", "if=ide,format=raw,snapshot=on,file={disk}")),
}


@pytest.mark.parametrize(("path", "arguments"), BOOTS.values(), ids=BOOTS)
def test_every_way_to_boot(start: Any, path: str, arguments: tuple[str, ...]) -> None:
    images = {kind: str(guest.image(kind)) for kind in ("rom", "disk", "iso")}
    machine = start(boot=tuple(item.format(**images) for item in arguments))
    assert machine.probe.info() == f"probe2 boot={path}"
    machine.probe.set("a", "1")
    assert machine.probe.get("a") == "1"


def test_a_cd_is_told_from_a_disk(start: Any) -> None:
    machine = start("-drive", f"if=ide,index=2,media=cdrom,format=raw,file={guest.image('iso')}")
    assert machine.probe.disks() == [0, 0, None, 0, 0, 0, 0, 0]
    refused(machine.probe, "nodisk", "rd", "2", "0")
    machine.probe.flush()


def wait_for_console(path: Path) -> None:
    """Wait until QEMU listens: its socket is there a moment earlier."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            Probe(path).close()
            return
        except ProbeClosed:
            time.sleep(0.01)


def test_the_commands_of_the_readme_work(tmp_path: Path) -> None:
    """The command line and the Python example, word for word."""
    readme = (Path(guest.__file__).parent / "README.md").read_text()
    command = re.search(r"^    (qemu-system-x86_64 (?:.*\\\n)*.*)\n", readme, re.M)
    example = re.search(r"```python\n(.*?)```", readme, re.S)
    assert command is not None
    assert example is not None
    words = shlex.split(command[1].replace("\\\n", " "))
    (tmp_path / "probe.rom").symlink_to(guest.image("rom"))
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "disk.qcow2", "1M"], cwd=tmp_path, check=True)
    process = subprocess.Popen(words, cwd=tmp_path, stdin=subprocess.DEVNULL)
    try:
        wait_for_console(tmp_path / "console.sock")
        code = example[1].replace('"console.sock"', repr(str(tmp_path / "console.sock")))
        exec(compile(code, "README.md", "exec"), {})
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


# --- snapshots ------------------------------------------------------------------------------------------


def test_memory_and_disks_survive_savevm(start: Any, disk: Any) -> None:
    machine = start(*disk("hda"), *disk("xvda"))
    probe = machine.probe
    for word in ("one", "two"):
        probe.set("a", word)
        probe.write(0, 1, word)
        probe.write(4, 1, word)
        assert machine.hmp(f"savevm {word}") == ""
    for word in ("one", "two", "one"):
        assert machine.hmp(f"loadvm {word}") == ""
        assert (probe.get("a"), probe.read(0, 1), probe.read(4, 1)) == (word, word, word)
        probe.write(4, 2, "and-on")
        assert probe.read(4, 2) == "and-on"


def migrate(machine: Any, path: Path) -> None:
    machine.qmp("stop")
    machine.qmp("migrate", uri=f"exec:cat > {path}")
    end = time.monotonic() + 30
    while machine.qmp("query-migrate").get("status") != "completed" and time.monotonic() < end:
        time.sleep(0.005)
    machine.qmp("quit")
    machine.process.wait(20)


def move(start: Any, machine: Any, path: Path, *arguments: str) -> Any:
    """Move the guest to a new machine by way of a file."""
    migrate(machine, path)
    moved = start(*arguments, "-incoming", f"exec:cat {path}", wait=False)
    end = time.monotonic() + 30
    while moved.status() == "inmigrate" and time.monotonic() < end:
        time.sleep(0.005)
    moved.qmp("cont")
    return moved


def test_memory_and_disks_survive_a_move(start: Any, disk: Any, tmp_path: Path) -> None:
    arguments = (*disk("hda"), *disk("xvda"))
    first = start(*arguments)
    first.probe.set("a", "1")
    first.probe.memory_fill(7)
    first.probe.write(0, 1, "ide")
    first.probe.write(4, 1, "virtio")
    before = (first.probe.variables(), first.probe.memory_sum(), first.probe.tick())
    probe = move(start, first, tmp_path / "memory", *arguments).probe
    assert (probe.variables(), probe.memory_sum()) == before[:2]
    assert probe.tick() >= before[2]
    assert (probe.read(0, 1), probe.read(4, 1)) == ("ide", "virtio")
    probe.write(4, 2, "and-on")
    assert probe.read(4, 2) == "and-on"


def count_to(probe: Probe, least: int) -> None:
    """Wait until the guest has counted so far."""
    end = time.monotonic() + 20
    while probe.counted() < least and time.monotonic() < end:
        pass
    assert probe.counted() >= least


# (disk, number): the two kinds of disks take different ways through the guest and through QEMU.
KINDS = pytest.mark.parametrize(("vdev", "number"), [("hda", 0), ("xvda", 4)])


@KINDS
def test_counting_in_lockstep_survives_a_move(
    start: Any, disk: Any, tmp_path: Path, vdev: str, number: int
) -> None:
    first = start(*disk(vdev))
    first.probe.count(number, 5)
    count_to(first.probe, 50)
    probe = move(start, first, tmp_path / "memory", *disk(vdev)).probe
    moved = probe.counted()
    count_to(probe, moved + 1)  # it counts on by itself
    counted = probe.stop()
    word = probe.read(number, 5)
    assert counted > moved >= 50
    assert word is not None
    assert counted - int(word) in (0, 1)


@KINDS
def test_counting_in_lockstep_survives_savevm(start: Any, disk: Any, vdev: str, number: int) -> None:
    machine = start(*disk(vdev))
    probe = machine.probe
    probe.count(number, 5)
    for tag in ("one", "two", "three"):
        count_to(probe, probe.counted() + 20)
        assert machine.hmp(f"savevm {tag}") == ""
    latest = probe.counted()
    for tag in ("two", "one", "three"):
        machine.qmp("stop")
        assert machine.hmp(f"loadvm {tag}") == ""
        machine.qmp("cont")
        counted = probe.stop()
        word = probe.read(number, 5)
        assert word is not None
        assert counted - int(word) in (0, 1)
        probe.count(number, 5)  # a later value that the next loadvm must take back
        count_to(probe, 1)
    assert latest >= 60


def answers(console: socket.socket, ending: bytes) -> bytes:
    """Return what comes over the console until it ends so, or comes to an end."""
    console.settimeout(20)
    found = b""
    while not found.endswith(ending) and (data := console.recv(4096)):
        found += data
    return found


def send_whole(console: socket.socket, content: bytes) -> None:
    """Send a request and wait until QEMU has taken all of it into the serial port's device."""
    console.sendall(content)
    end = time.monotonic() + 20
    while fcntl.ioctl(console, termios.TIOCOUTQ, bytes(4)) != bytes(4) and time.monotonic() < end:
        time.sleep(0.001)
    time.sleep(0.02)


def test_a_request_in_progress_is_answered_after_a_move(start: Any, disk: Any, tmp_path: Path) -> None:
    """The guest takes some tenths of a second for the sum, so that it is saved in the middle of it."""
    large = tmp_path / "large.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", large, "4M"], check=True)
    arguments = disk("hda", path=large)
    first = start(*arguments)
    first.probe.set("a", "1")
    expected = first.probe.disk_sum(0, 0, 8192)
    send_whole(first.console, b"\x15777777 dsum 0 0 8192\n")
    second = move(start, first, tmp_path / "memory", *arguments)
    assert answers(first.console, b"\n") == b""
    assert answers(second.console, b"\n") == f"777777 ok {expected}\n".encode()
    assert second.probe.get("a") == "1"


def test_a_reply_that_comes_twice_does_no_harm(start: Any, disk: Any, tmp_path: Path) -> None:
    """A guest that is reverted in the middle of a request answers it once more."""
    large = tmp_path / "large.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", large, "4M"], check=True)
    machine = start(*disk("hda", path=large))
    machine.probe.set("a", "1")
    send_whole(machine.console, b"\x15777777 dsum 0 0 8192\n")
    assert machine.hmp("savevm s") == ""
    first = answers(machine.console, b"\n")
    assert first.startswith(b"777777 ok ")
    machine.probe.set("a", "2")
    for by_hand in (True, False):
        machine.qmp("stop")
        assert machine.hmp("loadvm s") == ""
        machine.qmp("cont")
        if by_hand:
            assert answers(machine.console, b"\n") == first
        assert machine.probe.get("a") == "1"


def test_the_image_is_small() -> None:
    assert guest.image("disk").stat().st_size <= 9216
    assert guest.image("rom").stat().st_size == 65536
    subprocess.run(["qemu-img", "info", "-f", "raw", guest.image("iso")], check=True, capture_output=True)
