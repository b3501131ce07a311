# SPDX-License-Identifier: LGPL-2.1-or-later
"""The pure parts of the Xen host: configurations, lists, save files, what is learnt of a domain."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from xlsnap import savefile
from xlsnap.domain import DomainConfig, DomainRecord, RunState
from xlsnap.errors import ConfigFileError, InputError, SnapshotDamagedError
from xlsnap.host import KnownDomain
from xlsnap.learning import learn, record_of
from xlsnap.xen import xl
from xlsnap.xen.config import config_from_json, disk_text, domain_type, with_stored_images, xl_cfg
from xlsnap.xen.listing import Row, parse_rows, run_state
from xlsnap.xen.stream import read_config
from xlsnap_grammars import DiskSpec, parse_disk

UUID = "17cacc64-4c15-40ba-b6e2-190f63847dd0"

# --- xl.cfg -----------------------------------------------------------------------------------------------


def read(text: str) -> DomainConfig:
    return DomainConfig.from_text(text, filename="x.cfg", directory=Path("/etc/xen"), xen=True)


CFG = f"""
name = "web"
uuid = "{UUID}"
type = "pvh"
memory = 96
maxmem = 0x100
kernel = "/boot/vmlinuz"
ramdisk = "initrd.img"
root = "/dev/xvda1"
extra = 'console=hvc0 say="hello" \\\\'
vif = [ 'bridge=xenbr0,mac=00:16:3e:00:00:01', "" ]
disk = [ 'a.qcow2,qcow2,xvda,w', 'format=raw,vdev=hdc,access=ro,devtype=cdrom,target=/iso/with,comma' ]
on_crash = "preserve"
on_reboot = "rename-restart"
"""


def test_a_configuration_survives_being_written_and_read() -> None:
    config = read(CFG)
    assert read(xl_cfg(config)) == config
    assert config.warnings == ()
    assert config.on_reboot == "rename-restart"
    assert config.more == {
        "type": "pvh",
        "maxmem": "0x100",
        "vif": ["bridge=xenbr0,mac=00:16:3e:00:00:01", ""],
    }


def test_only_xen_takes_all_settings() -> None:
    text = 'name = "a"\nvif = [ "" ]\non_crash = "restart"\n'
    assert read(text).on_crash == "restart"
    elsewhere = DomainConfig.from_text(text, filename="x.cfg")
    assert (len(elsewhere.warnings), elsewhere.on_crash) == (2, "destroy")
    with pytest.raises(ConfigFileError):
        read('name = "a"\non_crash = "explode"\n')


def test_a_target_that_a_script_understands_is_no_path() -> None:
    (disk,) = read(
        'name = "a"\ndisk = [ "format=raw,vdev=xvda,access=rw,script=block-drbd,target=r0" ]'
    ).disks
    assert disk.target == "r0"


@pytest.mark.parametrize("name", ['a "b"', "back\\slash", "two\nlines", "tab\there", "schnee-☃", "'"])
def test_whatever_a_value_has_in_it_is_read_as_it_was(name: str) -> None:
    config = DomainConfig(name="x", extra=name, more={"vncpasswd": name})
    again = read(xl_cfg(config))
    assert (again.extra, again.more["vncpasswd"]) == (name, name)


def test_no_escape_stands_for_a_nul() -> None:
    with pytest.raises(InputError, match="NUL"):
        xl_cfg(DomainConfig(name="x", extra="a\0b"))


@pytest.mark.parametrize(
    "text",
    [
        "format=qcow2,vdev=xvda,access=rw,target=/a,b=c.qcow2",
        "format=raw,vdev=hdc,access=ro,devtype=cdrom,target=/x.iso",
        "format=empty,vdev=hdc,access=ro,devtype=cdrom",
        "format=raw,vdev=xvdb,access=rw,backendtype=phy,target=/dev/vg/lv",
        "format=qcow2,vdev=xvda,access=rw,backendtype=qdisk,direct-io-safe,no-discard,target=/a",
        "format=raw,vdev=xvda,access=rw,script=block-drbd,discard,target=r0",
    ],
)
def test_a_disk_survives_being_written_and_read(text: str) -> None:
    disk = parse_disk(text)
    assert parse_disk(disk_text(disk)) == disk


def test_the_type_of_a_domain() -> None:
    assert domain_type(read('name = "a"')) == "pv"
    assert domain_type(read('name = "a"\nbuilder = "hvm"')) == "hvm"
    assert domain_type(read('name = "a"\ntype = "pvh"')) == "pvh"
    assert "serial" in xl_cfg(read('name = "a"\ntype = "hvm"'))
    assert "serial" not in xl_cfg(read('name = "a"'))


# --- libxl's JSON -----------------------------------------------------------------------------------------

# As libxl 4.17 keeps it, shortened.
STORED: dict[str, Any] = {
    "c_info": {"type": "pv", "name": "pv", "uuid": UUID, "run_hotplug_scripts": "True"},
    "b_info": {
        "max_vcpus": 1,
        "max_memkb": 98304,
        "target_memkb": 98304,
        "kernel": "/vm/vmlinuz",
        "cmdline": "console=hvc0 quiet",
        "ramdisk": "/vm/domu.cpio",
        "type.pv": {},
    },
    "disks": [
        {
            "pdev_path": "/img/a.qcow2",
            "vdev": "hda",
            "backend": "qdisk",
            "format": "qcow2",
            "readwrite": 1,
            "colo_restore_enable": "False",
        },
        {"pdev_path": "/img/b.iso", "vdev": "hdc", "backend": "qdisk", "format": "raw", "is_cdrom": 1},
    ],
    "nics": [{"mac": "00:16:3e:00:00:01", "bridge": "xenbr0", "devid": 0}],
    "on_reboot": "restart",
    "on_crash": "rename_restart",
}


def test_configuration_from_libxl() -> None:
    config = config_from_json(STORED)
    assert config.more == {"type": "pv", "vif": ["mac=00:16:3e:00:00:01,bridge=xenbr0"]}
    assert (config.memory_mib, config.extra, config.uuid) == (96, "console=hvc0 quiet", UUID)
    assert (config.on_poweroff, config.on_crash) == ("destroy", "rename-restart")
    first, second = config.disks
    assert (first.vdev, first.target, first.format, first.readwrite) == ("hda", "/img/a.qcow2", "qcow2", True)
    assert (second.is_cdrom, second.readwrite, second.backend) == (True, False, "qdisk")
    assert config_from_json({**STORED, "pcidevs": [{}]}).warnings == ("pcidevs: not known to xlsnap",)


def test_only_the_image_of_the_disk_is_exchanged_in_libxls_json() -> None:
    changed = with_stored_images(STORED, {"hda": ("/img/o.qcow2", "qcow2"), "xvdz": ("/no", "raw")})
    assert changed["disks"][0] == STORED["disks"][0] | {"pdev_path": "/img/o.qcow2"}
    assert {**changed, "disks": None} == {**STORED, "disks": None}
    assert changed["disks"][1:] == STORED["disks"][1:]


# --- lists ------------------------------------------------------------------------------------------------

LIST = """\
Name                                        ID   Mem VCPUs\tState\tTime(s)   UUID                            Reason-Code\tSecurity Label
Domain-0                                     0  1536     1     r-----      28.0 00000000-0000-0000-0000-000000000000        -                -
pv                                           1    96     1     ---sc-       4.9 236efeb2-39c2-406a-812f-450f763a623d        3                -
a name with 1 2 spaces                      12   128     2     --p---    1234.5 17cacc64-4c15-40ba-b6e2-190f63847dd0        -                -
"""  # noqa: E501 - as xl prints it


def test_rows_of_xl_list() -> None:
    assert parse_rows(LIST) == [
        Row("pv", 1, RunState.CRASHED, 4.9, "236efeb2-39c2-406a-812f-450f763a623d"),
        Row("a name with 1 2 spaces", 12, RunState.PAUSED, 1234.5, UUID),
    ]


@pytest.mark.parametrize(
    ("letters", "state"),
    [
        ("r-----", RunState.RUNNING),
        ("------", RunState.RUNNING),
        ("-b----", RunState.BLOCKED),
        ("-bp---", RunState.PAUSED),
        ("--ps--", RunState.SHUTDOWN),
        ("---s-d", RunState.DYING),
    ],
)
def test_run_states(letters: str, state: RunState) -> None:
    assert run_state(letters) is state


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        (
            "Saving to f new xl format\nxc: info: Saving domain 2\nxc: error: Failed to write page data to "
            "stream (28 = No space left on device): Internal error\nxc: error: Save failed (28 = No space "
            "left on device): Internal error\nlibxl: error: libxl_stream_write.c:347:save_done: "
            "Domain 2:saving domain: domain responded to suspend request: No space left on device\n",
            "saving domain: domain responded to suspend request: No space left on device",
        ),
        (
            "libxl: error: libxl_create.c:1640:rebuild_done: Domain 3:cannot (re-)build domain: -3\n",
            "cannot (re-)build domain: -3",
        ),
        ("pv is an invalid domain identifier (rc=-6)\n", "pv is an invalid domain identifier (rc=-6)"),
        ("", ""),
    ],
)
def test_why_xl_failed(stderr: str, reason: str) -> None:
    assert xl.reason(stderr) == reason


# --- save files -------------------------------------------------------------------------------------------


def save_file(stored: object = STORED, *, pages: bytes = b"m" * 5000) -> bytes:
    """Return a save file in the form that xl 4.17 writes."""

    def record(kind: int, body: bytes = b"") -> bytes:
        return struct.pack("<II", kind, len(body)) + body + b"\0" * (-len(body) % 8)

    text = json.dumps(stored).encode() + b"\0"
    optional = struct.pack("<I", len(text)) + text
    header = savefile.XL_MAGIC + struct.pack("<IIII", 0x01020304, 3, 0, len(optional)) + optional
    libxc = b"\xff" * 8 + b"\0" * 16 + b"\0" * 16 + record(1, pages) + record(1, pages) + record(0)
    return header + b"LibxlFmt" + b"\0" * 8 + record(1) + libxc + record(2, b"12345") + record(0)


def test_a_whole_save_file_tells_of_its_domain(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(save_file())
    assert read_config(str(path)) == STORED
    assert savefile.is_save_file(str(path))
    assert savefile.memory_image_problem(str(path), UUID) is None
    assert savefile.read(str(path)).config.name == "pv"
    assert "belongs to the domain with uuid" in str(savefile.memory_image_problem(str(path), "other"))


def test_a_save_file_that_is_cut_anywhere_is_found_out(tmp_path: Path) -> None:
    whole = save_file(pages=b"m" * 32)
    path = tmp_path / "s"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(SnapshotDamagedError):
            read_config(str(path))


@pytest.mark.parametrize("stored", [[], "x", None])
def test_a_save_file_with_another_configuration(stored: object, tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(save_file(stored))
    with pytest.raises(SnapshotDamagedError, match="damaged header"):
        read_config(str(path))


# --- learning ---------------------------------------------------------------------------------------------


def known(domid: int, *disks: tuple[str, str]) -> KnownDomain:
    specs = tuple(DiskSpec(vdev=vdev, target=path, format="qcow2") for vdev, path in disks)
    return KnownDomain(uuid=UUID, domid=domid, config=DomainConfig(name="d", uuid=UUID, disks=specs))


RECORD = record_of(known(7, ("xvda", "/img/overlay"), ("xvdb", "/img/b")))


def images(record: DomainRecord) -> dict[str | None, str | None]:
    return {disk.vdev: disk.target for disk in record.config.disks}


def test_nothing_new() -> None:
    assert learn(RECORD, known(7, ("xvda", "/img/overlay"), ("xvdb", "/img/b"))) == RECORD


def test_images_change_by_our_hand_only_while_the_domain_goes_on() -> None:
    """Xen's own configuration may lag behind an operation that was interrupted."""
    assert learn(RECORD, known(7, ("xvda", "/img/base"), ("xvdb", "/img/b"))) == RECORD


def test_a_domain_that_others_have_begun_has_the_images_that_they_named() -> None:
    learned = learn(RECORD, known(8, ("xvda", "/img/base"), ("xvdb", "/img/b")))
    assert images(learned) == {"xvda": "/img/base", "xvdb": "/img/b"}
    assert (learned.domid, learned.process) == (8, 8)


def test_disks_come_and_go() -> None:
    learned = learn(RECORD, known(7, ("xvda", "/img/base"), ("xvdc", "/img/c")))
    assert images(learned) == {"xvda": "/img/overlay", "xvdc": "/img/c"}
