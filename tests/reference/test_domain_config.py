# SPDX-License-Identifier: LGPL-2.1-or-later
"""Domains from xl.cfg, and their QEMU command line."""

import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest
from xlsnap.domain import DomainConfig, RunState, c_integer
from xlsnap.errors import ConfigFileError, InputError
from xlsnap.qemu.command_line import Sockets, command_line
from xlsnap.qemu.nodes import node_name

EXAMPLE = """
name = "d1"           # a comment
uuid = "6F1C0B5A-0000-4000-8000-00000000ABCD"
memory = 0x40
vcpus = 010
kernel = "kernel"
ramdisk = "/boot/initrd"
root = "/dev/xvda1"
extra = "quiet"
serial = "pty"
on_poweroff = "preserve"
disk = [ "a.qcow2,qcow2,hda,w",
         'format=raw, vdev=xvdb, access=ro, target=/img/b,c.raw',
         "/img/cd.iso,,hdc:cdrom,r" ]
vif = [ "bridge=xenbr0" ]
"""


def read(text: str) -> DomainConfig:
    return DomainConfig.from_text(text, filename="d1.cfg", directory=Path("/cfg"))


def test_an_example() -> None:
    config = read(EXAMPLE)
    assert config.name == "d1"
    assert config.uuid == "6f1c0b5a-0000-4000-8000-00000000abcd"
    assert (config.memory_mib, config.vcpus) == (64, 8)
    assert (config.kernel, config.ramdisk) == ("/cfg/kernel", "/boot/initrd")
    assert config.extra == "root=/dev/xvda1 quiet"
    assert config.on_poweroff == "preserve"
    assert [(disk.vdev, disk.target, disk.format, disk.readwrite) for disk in config.disks] == [
        ("hda", "/cfg/a.qcow2", "qcow2", True),
        ("xvdb", "/img/b,c.raw", "raw", False),
        ("hdc", "/img/cd.iso", "raw", False),
    ]
    assert config.warnings == ("d1.cfg: vif has no effect here",)


def test_a_disk_without_a_format_is_raw() -> None:
    (disk,) = read('name="x" ; disk=["vdev=hda,target=/x"]').disks
    assert disk.format == "raw"


def test_a_configuration_survives_the_record() -> None:
    config = read(EXAMPLE)
    assert msgspec.json.decode(msgspec.json.encode(config), type=DomainConfig) == config


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("memory=1", "name: it is missing"),
        ('name=["x"]', "name: a list"),
        ('name="a/b"', "name: it contains '/'"),
        ('name="x" ; uuid="5"', "uuid: bad uuid '5'"),
        ('name="x" ; memory=08', "memory: '08' is not a number"),
        ('name="x" ; memory=0', "memory: 0 is too small"),
        ('name="x" ; memory="lots"', "memory: 'lots' is not a number"),
        ('name="x" ; memory=99999999999999999999', "memory: '99999999999999999999' is out of range"),
        ('name="x" ; serial="tcp::4444"', "serial: only 'pty' is supported"),
        ('name="x" ; on_crash="explode"', "on_crash: 'explode' is none of"),
        ('name="x" ; disk="/img,raw,hda"', "disk: one string where a list is expected"),
        ('name="x" ; disk=["/a,raw,hda","/b,raw,hda"]', "disk 2: vdev hda is used twice"),
        ('name="x" ; disk=["/a,foo=bar,hda"]', "disk 1"),
        ('name="x" ; disk=[["/a"]]', "disk 1: a list"),
        ("name=x", "d1.cfg:1:"),
    ],
)
def test_what_is_wrong_is_said(text: str, complaint: str) -> None:
    with pytest.raises(ConfigFileError, match=r"^d1\.cfg: not a") as caught:
        read(text)
    assert complaint in "\n".join(caught.value.details)
    assert all(line.startswith("d1.cfg") for line in caught.value.details)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigFileError) as caught:
        read('memory=0 ; vcpus="x" ; serial="x"')
    assert len(caught.value.details) == 4


def test_actions_that_need_a_daemon_are_taken_as_the_default_with_a_warning() -> None:
    config = read('name="x" ; on_crash="restart" ; on_poweroff="restart"')
    assert (config.on_crash, config.on_poweroff) == ("destroy", "destroy")
    assert len(config.warnings) == 2


@pytest.mark.parametrize(
    ("text", "number"), [("5", 5), ("010", 8), ("0x10", 16), ("0", 0), ("9223372036854775807", (1 << 63) - 1)]
)
def test_numbers_are_those_of_c(text: str, number: int) -> None:
    assert c_integer(text) == number


@pytest.mark.parametrize("text", ["", "08", "1k", "0x", "1.5", "9223372036854775808"])
def test_what_c_does_not_take_for_a_number(text: str) -> None:
    with pytest.raises(ValueError, match=r"number|range"):
        c_integer(text)


# --- command line ---------------------------------------------------------------------------------------


def arguments(text: str, **options: Any) -> list[str]:
    return command_line(
        read(text),
        binary="qemu",
        uuid="u",
        accelerator="tcg",
        pidfile="/run/pid",
        sockets=Sockets(3, 4, 5, 6),
        **options,
    )


def test_formats_are_named_and_read_only_disks_are_read_only() -> None:
    command = arguments(EXAMPLE)
    blockdevs = [
        msgspec.json.decode(after) for item, after in itertools.pairwise(command) if item == "-blockdev"
    ]
    assert [(item["node-name"], item["driver"], item["read-only"]) for item in blockdevs] == [
        (node_name("hda", "/cfg/a.qcow2"), "qcow2", False),
        (node_name("xvdb", "/img/b,c.raw"), "raw", True),
        (node_name("hdc", "/img/cd.iso"), "raw", True),
    ]
    assert all(item["file"]["driver"] == "file" for item in blockdevs)


def test_each_vdev_has_its_fixed_place() -> None:
    command = arguments(EXAMPLE)
    devices = [msgspec.json.decode(after) for item, after in itertools.pairwise(command) if item == "-device"]
    places = {item["id"]: (item["driver"], item.get("bus") or item.get("addr")) for item in devices}
    assert places == {
        "disk-hda": ("ide-hd", "ide.0"),
        "disk-xvdb": ("virtio-blk-pci", "0x11"),
        "disk-hdc": ("ide-cd", "ide.1"),
    }


def test_names_with_commas_are_one_option() -> None:
    command = arguments('name="a,debug-threads=on"')
    assert "guest=a,,debug-threads=on" in command


@pytest.mark.parametrize(
    "spec", ["/a,qcow,hda", "/a,raw,sda", "/a,raw,hde", "/a,raw,xvda:cdrom", "/a,raw,hda,r"]
)
def test_disks_that_this_host_does_not_have(spec: str) -> None:
    with pytest.raises(InputError):
        arguments(f'name="x" ; disk=["{spec}"]')


def test_a_domain_waits_for_its_memory_paused() -> None:
    assert "-S" not in arguments('name="x"')
    assert arguments('name="x"', paused=True)[-1] == "-S"
    assert arguments('name="x"', incoming=True)[-3:] == ["-incoming", "defer", "-S"]


def test_run_states_are_shown_as_xl_shows_them() -> None:
    assert [state.letters for state in RunState] == [
        "r-----",
        "-b----",
        "--p---",
        "---s--",
        "----c-",
        "-----d",
    ]
