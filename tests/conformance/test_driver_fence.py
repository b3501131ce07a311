# SPDX-License-Identifier: LGPL-2.1-or-later
"""The fence: nothing outside is touched, nothing inside is left."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from xlsnap_conformance import protocol as p
from xlsnap_conformance.failures import HarnessError
from xlsnap_conformance.fence import PREFIX, Fence, end_users_of
from xlsnap_conformance.scenario import Scenario
from xlsnap_conformance.subject import Subject
from xlsnap_conformance.trace import DomainOf

FIRMWARE = p.Firmware(rom="/rom", disk="/disk", iso="/iso")


def domain(name: str, path: str) -> p.DomainCreate:
    disk = p.Disk(vdev="hda", path=path, format="raw")
    return p.DomainCreate(name=name, memory_mib=1, vcpus=1, firmware=FIRMWARE, disks=(disk,))


@pytest.mark.parametrize(
    "request_",
    [
        p.DomainDestroy(domain="vm1"),
        p.SnapshotList(domain="0"),
        p.SnapshotRevert(domain=f"x{PREFIX}", name="s"),
        domain("vm1", "INSIDE/hda"),
        domain(f"{PREFIX}1", "/var/lib/vm1.img"),
        domain(f"{PREFIX}1", "INSIDE/../../etc/passwd"),
        p.SnapshotCreate(domain=f"{PREFIX}1", memory="/var/lib/memory"),
        p.SnapshotCreate(domain=f"{PREFIX}1", disks=(p.DiskChoice(vdev="hda", target="/overlay"),)),
        p.Setup(root="/var/lib/xen"),
    ],
)
def test_what_is_outside_is_refused(request_: p.Request[Any], tmp_path: Path) -> None:
    with Fence(tmp_path) as fence:
        if isinstance(request_, p.DomainCreate):
            request_ = domain(request_.name, request_.disks[0].path.replace("INSIDE", str(fence.path)))
        with pytest.raises(HarnessError, match="refused to"):
            fence.check(request_)


def test_what_is_inside_is_allowed(tmp_path: Path) -> None:
    with Fence(tmp_path) as fence:
        fence.check(p.Setup(root=str(fence.driver_root)))
        fence.check(domain(fence.new_name(), f"{fence.path}/hda"))
        fence.check(p.SnapshotList(domain="12345678-1234-1234-1234-123456789abc"))
        fence.check(p.DomainList())
        assert fence.path.stat().st_mode & 0o777 == 0o700
        assert fence.new_name() != fence.new_name()
    assert not fence.path.exists()


def test_byte_budget(tmp_path: Path) -> None:
    with Fence(tmp_path, budget=1 << 20) as fence:
        directory = fence.new_directory("one")
        (directory / "sparse").open("wb").truncate(1 << 30)
        fence.new_directory("two")
        (directory / "full").write_bytes(os.urandom(2 << 20))
        with pytest.raises(HarnessError, match="budget"):
            fence.new_directory("three")
        for grows in (domain(f"{PREFIX}1", f"{fence.path}/hda"), p.SnapshotCreate(domain=f"{PREFIX}1")):
            with pytest.raises(HarnessError, match="budget"):
                fence.check(grows)
        fence.check(p.SnapshotDelete(domain=f"{PREFIX}1", name="s"))
        fence.check(p.DomainDestroy(domain=f"{PREFIX}1"))


BROKEN = Path(__file__).parents[1] / "drivers" / "broken_driver.py"


def test_domains_of_others_are_listed_and_never_asked_for(tmp_path: Path) -> None:
    """The driver shows domains of others beside ours, also such as are named nearly as ours."""
    asked = tmp_path / "asked"
    done = subprocess.run(
        [sys.executable, "-m", "xlsnap_conformance", "run", "--profile", "quick", "--seed", "1",
         "--driver", f"{sys.executable} {BROKEN} 'among others'", "-k", "identity or branches"],
        capture_output=True, text=True, check=False, timeout=300, env={**os.environ, "ASKED": str(asked)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [row.split() for row in asked.read_text().splitlines()]
    assert ["domain_list", "-"] in rows
    names = {name for _, name in rows if name != "-"}
    assert names
    assert not names & {"vm-of-others", "xlsnap", "xlsnap-cts"}
    assert not [name for name in names if name.startswith("00000000-")]  # their uuids


def test_only_processes_on_our_files_are_ended(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "mine-too"
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    with (
        subprocess.Popen([*sleep, f"{mine}/image"]) as ours,
        subprocess.Popen([*sleep, f"{other}/image"]) as theirs,
    ):
        try:
            assert end_users_of(mine) == [ours.pid]
            assert ours.poll() is not None
            assert theirs.poll() is None
        finally:
            ours.kill()
            theirs.kill()


def test_nothing_is_left_of_a_driver_that_was_killed(tmp_path: Path) -> None:
    with Fence(tmp_path) as fence:
        subject = Subject("reference", fence)
        scenario = Scenario(subject, DomainOf())
        scenario.begin()
        needle = str(fence.path)
        pids = [each.pid for each in psutil.process_iter() if needle in " ".join(_words(each))]
        assert pids, "the domain has a process"
        os.kill(subject.driver.pid, signal.SIGKILL)
        scenario.close()
        subject.close()
    assert not fence.path.exists()
    assert not [pid for pid in pids if _lives(pid)]


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from xlsnap_conformance.fence import Fence\nfrom xlsnap_conformance.scenario import Scenario\n"
        "from xlsnap_conformance.subject import Subject\nfrom xlsnap_conformance.trace import DomainOf\n"
        "fence = Fence(Path(sys.argv[1]))\nScenario(Subject('reference', fence), DomainOf()).begin()\n"
        "print('up', flush=True)\ntime.sleep(60)\n"
    )
    (tmp_path / "not-ours").mkdir()
    (tmp_path / f"{PREFIX}without-lock").mkdir()
    with Fence(tmp_path) as going_on:
        with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as run:
            assert run.stdout
            assert run.stdout.readline() == b"up\n"
            (left,) = set(tmp_path.glob(f"{PREFIX}*/root")) - {going_on.driver_root}
            users = [each.pid for each in psutil.process_iter() if f"{left}/" in " ".join(_words(each))]
            assert users, "the domain has a process"
            run.kill()
        with Fence(tmp_path):
            assert not left.exists()
            assert not [pid for pid in users if _lives(pid)]
            assert going_on.driver_root.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"not-ours", f"{PREFIX}without-lock"}


def _lives(pid: int) -> bool:
    """Say whether a process runs; one that has ended and that nobody has asked about does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_nothing_is_left_of_a_run(tmp_path: Path) -> None:
    with Fence(tmp_path) as fence, Subject("reference", fence) as subject:
        with Scenario(subject, DomainOf()) as scenario:
            subject.call(p.SnapshotCreate(domain=scenario.domain.name, name="left"))
            directory = subject.call(p.Metadata(domain=scenario.domain.name)).directory
            assert os.listdir(directory)
        assert not os.path.exists(directory)
        assert not scenario.domain.scratch.exists()
        assert subject.call(p.DomainStateOf(domain=scenario.domain.name)).state == "absent"
    assert list(tmp_path.iterdir()) == []
