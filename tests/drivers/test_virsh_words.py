# SPDX-License-Identifier: LGPL-2.1-or-later
"""The driver of libvirt as far as no libvirt is needed: what it asks, what it reads, what errors mean."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from xlsnap_conformance import protocol as p
from xlsnap_conformance.drivers.serving import Refused
from xlsnap_conformance.drivers.virsh.command import Virsh, kind_of
from xlsnap_conformance.drivers.virsh.domain_xml import console_path, disks_in_use, domain_xml, listed
from xlsnap_conformance.drivers.virsh.driver import VirshDriver
from xlsnap_conformance.drivers.virsh.options import create_options

FIRMWARE = p.Firmware(rom="/r&m", disk="/d", iso="/i")
REQUEST = p.DomainCreate(
    name="xlsnap-cts-<a>",
    uuid="11111111-2222-3333-4444-555555555555",
    memory_mib=1,
    vcpus=1,
    firmware=FIRMWARE,
    disks=(
        p.Disk(vdev="xvdb", path="/b", format="qcow2"),
        p.Disk(vdev="hda", path='/with "quotes" & more', format="qcow2"),
        p.Disk(vdev="hdc", path="/c", format="raw", cdrom=True),
        p.Disk(vdev="xvda", path="/a", format="raw", readonly=True),
    ),
)


def test_definition_says_what_was_asked() -> None:
    xml = domain_xml(REQUEST, "/run/c&c")
    domain = ET.fromstring(xml)
    assert domain.findtext("name") == "xlsnap-cts-<a>"
    assert domain.findtext("os/loader") == "/r&m"
    assert console_path(xml) == "/run/c&c"
    assert disks_in_use(xml) == (
        p.DiskInUse(vdev="xvdb", path="/b", format="qcow2"),
        p.DiskInUse(vdev="hda", path='/with "quotes" & more', format="qcow2"),
        p.DiskInUse(vdev="hdc", path="/c", format="raw"),
        p.DiskInUse(vdev="xvda", path="/a", format="raw"),
    )
    assert [disk.vdev for disk in disks_in_use(xml, writable=True)] == ["xvdb", "hda"]


def test_guest_finds_disks_in_the_order_of_their_names() -> None:
    domain = ET.fromstring(domain_xml(REQUEST, "/c"))
    slots = {}
    for disk in domain.iterfind("devices/disk"):
        target, address = disk.find("target"), disk.find("address")
        if target is not None and address is not None:
            slots[target.get("dev")] = int(address.get("slot", ""), 16)
    assert slots == {"vda": 4, "vdb": 5}


SNAPSHOT = """\
<domainsnapshot>
  <name>a &amp; b</name>
  <description>two
lines</description>
  <state>paused</state>
  <creationTime>1700000000</creationTime>
  <parent><name>base</name></parent>
  <memory snapshot='internal'/>
  <disks>
    <disk name='hda' snapshot='internal'/>
    <disk name='vda' snapshot='external' type='file'/>
    <disk name='hdc' snapshot='no'/>
  </disks>
  <domain><name>inner</name><memory unit='KiB'>1024</memory></domain>
</domainsnapshot>
"""


def test_row_of_the_list() -> None:
    assert listed(SNAPSHOT) == p.ListedSnapshot(
        name="a & b",
        description="two\nlines",
        creation_time=1700000000,
        disk_only=False,
        state="p",
        disks=(p.ListedDisk(vdev="hda"), p.ListedDisk(vdev="xvda", type="external")),
        parent="base",
    )


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("failed to get domain 'x'", "input"),
        ("operation failed: domain moment base already exists", "input"),
        ("Domain snapshot not found: no domain snapshot with matching name 'x'", "input"),
        ("invalid snapshot name 'a/b': name can't contain '/'", "input"),
        ("Requested operation is not valid: domain is not running", "state"),
        ("internal error: unable to execute QEMU command 'migrate': no space", "host"),
    ],
)
def test_whose_fault_it_is(message: str, kind: str) -> None:
    assert kind_of(message) == kind


@pytest.fixture
def driver(tmp_path: Path) -> VirshDriver:
    """A driver whose `virsh` prints the definition of a domain for whatever it is asked."""
    (tmp_path / "definition").write_text(domain_xml(REQUEST, "/c"))
    program = tmp_path / "virsh"
    program.write_text(f'#!/bin/sh\nexec cat "{tmp_path}/definition"\n')
    program.chmod(0o700)
    driver = VirshDriver(Virsh(None, program=str(program)))
    driver._root = tmp_path  # no set-up: that would look for domains
    return driver


def request(**members: object) -> p.SnapshotCreate:
    return p.SnapshotCreate(domain="xlsnap-cts-a", **members)  # type: ignore[arg-type]


OVERLAY = p.DiskChoice(vdev="xvdb", type="external", target="/t,1.qcow2", format="qcow2")

OPTIONS: list[tuple[p.SnapshotCreate, list[str]]] = [
    (request(name="-n"), ["--name=-n", "--memspec=snapshot=internal"]),
    (
        request(name="a b", description='say "x"'),
        ["--name=a b", '--description=say "x"', "--memspec=snapshot=internal"],
    ),
    (
        request(name="s", disks=(OVERLAY,), memory="/m,1"),
        [
            "--name=s",
            "--memspec=file=/m,,1,snapshot=external",
            "--diskspec=vdb,snapshot=external,driver=qcow2,file=/t,,1.qcow2",
            "--diskspec=hda,snapshot=no",
        ],
    ),
    (
        request(name="s", type="external", memory="yes"),
        [
            "--name=s",
            "--memspec=file=/default,snapshot=external",
            "--diskspec=vdb,snapshot=external",
            "--diskspec=hda,snapshot=external",
        ],
    ),
    (
        request(name="s", type="external", memory="no"),
        ["--name=s", "--disk-only", "--diskspec=vdb,snapshot=external", "--diskspec=hda,snapshot=external"],
    ),
]


@pytest.mark.parametrize(("asked", "options"), OPTIONS)
def test_options_of_create(asked: p.SnapshotCreate, options: list[str]) -> None:
    assert create_options(asked, ["xvdb", "hda"], "/default") == options


def test_success_is_not_believed_without_its_words(driver: VirshDriver) -> None:
    with pytest.raises(Refused, match="not what it made"):
        driver.snapshot_create(request(name="s"))


def test_foreign_domains_are_left_alone(tmp_path: Path) -> None:
    """With a libvirt that has domains of others, set-up and tear-down touch only those of runs of ours."""
    root = tmp_path / "root"
    root.mkdir()
    homes = {
        "vm": tmp_path,
        "xlsnap-cts-of-this-run": root,
        "xlsnap-cts-of-another-run": tmp_path,
        "xlsnap-cts-of-a-killed-run": tmp_path / "gone",
    }
    for name, home in homes.items():
        (tmp_path / name).write_text(domain_xml(REQUEST, str(home / "1.console")))
    program = tmp_path / "virsh"
    program.write_text(
        f"""#!/bin/sh
        case $1 in
            list) printf '%s\\n' {" ".join(homes)} ;;
            dumpxml) exec cat {tmp_path}/"$2" ;;
            domstate) echo running ;;
            destroy|undefine) echo "$1 $2" >>{tmp_path}/done ;;
        esac
        """
    )
    program.chmod(0o700)
    driver = VirshDriver(Virsh(None, program=str(program)))
    done = tmp_path / "done"
    driver.setup(p.Setup(root=str(root)))
    assert done.read_text().split() == [
        *("destroy", "xlsnap-cts-of-a-killed-run", "undefine", "xlsnap-cts-of-a-killed-run")
    ]
    done.unlink()
    driver.teardown(p.Teardown())
    assert done.read_text().split() == [
        *("destroy", "xlsnap-cts-of-this-run", "undefine", "xlsnap-cts-of-this-run")
    ]
