# SPDX-License-Identifier: LGPL-2.1-or-later
"""The probe guest and its client, on QEMU."""

import os
import socket
import subprocess
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


def test_there_is_room_for_64_variables(start: Any) -> None:
    probe = start().probe
    for number in range(64):
        probe.set(f"key{number}", f"value{number}")
    refused(probe, "full", "set", "one-more", "x")
    assert all(probe.get(f"key{number}") == f"value{number}" for number in range(64))


def test_time_passes_while_the_guest_runs(start: Any) -> None:
    machine = start()
    before = machine.probe.tick()
    time.sleep(0.2)
    assert machine.probe.tick() > before


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
    refused(probe, "nodisk", "rd", "8", "0")
    refused(probe, "nosector", "rd", "0", "2048")
    refused(probe, "nosector", "dsum", "0", "2047", "2")
    refused(probe, "long", "wr", "0", "0", "w" * 32)


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


# --- the line -------------------------------------------------------------------------------------------


def test_requests_that_make_no_sense(start: Any, disk: Any) -> None:
    probe = start(*disk("hda")).probe
    refused(probe, "command", "frobnicate")
    refused(probe, "arguments", "get")
    refused(probe, "arguments", "ping", "now")
    refused(probe, "arguments", "set", "a", "b", "c", "d")
    for number in ("x", "-1", "1x", "0x", "4294967296", "0x1g"):
        refused(probe, "number", "rd", number, "0")
    assert probe.request("rd", "0x0", "0x10") == "-"
    with pytest.raises(ValueError, match="cannot be sent"):
        probe.set("a", "two words")
    probe.ping()


def test_noise_does_no_harm(start: Any) -> None:
    machine = start()
    machine.probe.set("a", "1")
    for noise in (b"half a line", b"\n\n\r\n", b"999 set a 2\x15", b"x" * 500 + b"\n", bytes(range(32, 127))):
        machine.console.sendall(noise)
        assert machine.probe.get("a") == "1"


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
    assert machine.process.wait(20) == 0


def test_power_off_can_be_kept(start: Any) -> None:
    machine = start("-action", "shutdown=pause")
    machine.probe.power_off()
    end = time.monotonic() + 20
    while machine.status() != "shutdown" and time.monotonic() < end:
        time.sleep(0.01)
    assert machine.status() == "shutdown"


def test_reboot_forgets_memory_and_keeps_disks(start: Any, disk: Any) -> None:
    probe = start(*disk("hda")).probe
    probe.set("a", "1")
    probe.write(0, 0, "kept")
    probe.reboot()
    assert probe.get("a") is None
    assert probe.read(0, 0) == "kept"


# --- ways to boot ---------------------------------------------------------------------------------------

RAW = "file={disk},format=raw,read-only=on"
BOOTS = {
    "rom": ("r", ("-m", "1", "-bios", "{rom}")),
    "multiboot": ("k", ("-m", "4", "-kernel", "{disk}")),
    "floppy": ("b", ("-m", "4", "-drive", f"if=floppy,{RAW}", "-boot", "a")),
    "cd": ("b", ("-m", "4", "-drive", "if=ide,media=cdrom,format=raw,file={iso}", "-boot", "d")),
    "ide": ("b", ("-m", "4", "-drive", "if=ide,format=raw,snapshot=on,file={disk}", "-boot", "c")),
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


def test_counting_in_lockstep_survives_a_move(start: Any, disk: Any, tmp_path: Path) -> None:
    first = start(*disk("hda"))
    first.probe.count(0, 5)
    while first.probe.counted() < 50:
        pass
    second = move(start, first, tmp_path / "memory", *disk("hda"))
    counted = second.probe.stop()
    word = second.probe.read(0, 5)
    assert counted >= 50
    assert word is not None
    assert counted - int(word) in (0, 1)


def test_a_request_in_progress_is_answered_after_the_move(start: Any, disk: Any, tmp_path: Path) -> None:
    first = start(*disk("hda"))
    first.probe.set("a", "1")
    first.console.sendall(b"\x15777777 dsum 0 0 2048\n" * 3)
    second = move(start, first, tmp_path / "memory", *disk("hda"))
    assert second.probe.get("a") == "1"


def test_the_image_is_small() -> None:
    assert guest.image("disk").stat().st_size <= 9216
    assert guest.image("rom").stat().st_size == 65536
    subprocess.run(["qemu-img", "info", "-f", "raw", guest.image("iso")], check=True, capture_output=True)
