# SPDX-License-Identifier: LGPL-2.1-or-later
"""The driver of libvirt with a real libvirtd, where one is installed: a daemon of the test's own.

None of this runs where `libvirtd` is missing. It takes about a minute.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from xlsnap_conformance import guest
from xlsnap_conformance import protocol as p
from xlsnap_conformance.driver import Driver
from xlsnap_conformance.drivers import command_of
from xlsnap_conformance.drivers.virsh.command import Virsh
from xlsnap_conformance.drivers.virsh.daemon import Daemon, DaemonError
from xlsnap_conformance.drivers.virsh.domain_xml import domain_xml
from xlsnap_conformance.failures import DriverError
from xlsnap_conformance.fence import Fence
from xlsnap_conformance.smoke import Outcome, smoke
from xlsnap_conformance.subject import Subject, qemu_img_create
from xlsnap_conformance.trace import DiskOf

pytestmark = pytest.mark.skipif(
    any(shutil.which(program) is None for program in ("libvirtd", "virsh")), reason="libvirt is not installed"
)

FOREIGN = "somebody-elses-vm"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="xl-lv-") as directory:  # short: it holds a socket
        daemon = Daemon(Path(directory) / "d")
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.stop()


@pytest.fixture
def driver(daemon: Daemon) -> str:
    return f"virsh --connect {daemon.uri}"


def definition(name: str, directory: Path) -> Path:
    """Write the definition of a domain that boots the probe guest."""
    image = directory / f"{name}.qcow2"
    qemu_img_create(image, size_kib=1024)
    rom = str(guest.image("rom"))
    request = p.DomainCreate(
        name=name,
        memory_mib=1,
        vcpus=1,
        firmware=p.Firmware(rom=rom, disk=rom, iso=rom),
        disks=(p.Disk(vdev="hda", path=str(image), format="qcow2"),),
    )
    path = directory / f"{name}.xml"
    path.write_text(domain_xml(request, str(directory / f"{name}.console")))
    return path


@pytest.fixture
def foreign(daemon: Daemon, tmp_path: Path) -> Iterator[Virsh]:
    """A domain of somebody else's that runs, with a snapshot."""
    virsh = Virsh(daemon.uri)
    virsh("define", str(definition(FOREIGN, tmp_path)))
    virsh("start", FOREIGN)
    virsh("snapshot-create-as", FOREIGN, "theirs")
    try:
        yield virsh
    finally:
        virsh("destroy", FOREIGN)
        virsh("undefine", FOREIGN, "--snapshots-metadata")


def seen(virsh: Virsh) -> tuple[str, ...]:
    """Return all that must stay as it is; the id of the domain changes whenever its process does."""
    looks = (("domid", FOREIGN), ("domstate", FOREIGN), ("dumpxml", FOREIGN), ("snapshot-list", FOREIGN))
    return tuple(virsh(*look) for look in looks)


def test_a_run_leaves_domains_of_others_alone(daemon: Daemon, driver: str, foreign: Virsh) -> None:
    before = seen(foreign)
    done = subprocess.run(
        [sys.executable, "-m", "xlsnap_conformance", "run", "--driver", driver, "--profile", "quick",
         "--seed", "1", "-k", "test_scenario and memory-and-disks or identity"],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"[1-9] pass", done.stdout)
    assert seen(foreign) == before
    names = foreign("list", "--all", "--name").split()
    assert names == [FOREIGN]


def test_driver_is_in_order(driver: str) -> None:
    with Fence() as fence:
        found = list(smoke(driver, fence))
    assert {each.outcome for each in found} <= {Outcome.OK, Outcome.SKIPPED, Outcome.SLOW}, found


def test_what_a_killed_run_left_is_removed_by_the_next(daemon: Daemon, driver: str) -> None:
    """Driver and suite are killed: QEMU and the definition stay, and the next run removes both."""
    virsh = Virsh(daemon.uri)
    fence = Fence()
    subject = Subject(driver, fence)
    name = fence.new_name()
    image = subject.new_image(DiskOf(vdev="hda"), fence.new_directory(name))
    disks = (p.Disk(vdev="hda", path=str(image), format="qcow2"),)
    subject.call(p.DomainCreate(name=name, memory_mib=1, vcpus=1, firmware=subject.firmware, disks=disks))
    os.kill(subject.driver.pid, signal.SIGKILL)
    with pytest.raises(DriverError):
        subject.call(p.DomainStateOf(domain=name))
    subject.driver.close()
    assert name in virsh("list", "--name").split()
    fence.close()  # as `sweep` does for a run that is gone
    assert name in virsh("list", "--all", "--name").split()
    with Fence() as other, Subject(driver, other):
        assert name not in virsh("list", "--all", "--name").split()


def test_daemon_is_our_own(tmp_path: Path) -> None:
    """It starts once, answers, ends by itself alone, and leaves nothing."""
    with tempfile.TemporaryDirectory(prefix="xl-lv-") as directory:
        daemon = Daemon(Path(directory) / "d")
        with pytest.raises(DaemonError, match="no libvirtd of the kit runs"):
            _ = daemon.uri
        assert daemon.start() == daemon.start() == daemon.uri
        process = daemon.process()
        assert process is not None
        virsh = Virsh(daemon.uri)
        virsh("create", str(definition("xlsnap-cts-left", tmp_path)))
        assert daemon.stop()
        assert not process.is_running()
        assert not daemon.directory.exists()
        assert not daemon.stop()


def test_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    directory.mkdir(mode=0o755)
    with pytest.raises(DaemonError, match="not a directory of ours alone"):
        Daemon(directory).start()


def test_driver_without_a_daemon_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="host libvirt start"):
        Driver(command_of("virsh"), log=tmp_path / "log", environment={"XLSNAP_LIBVIRT_DIR": str(tmp_path)})
