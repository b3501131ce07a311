# SPDX-License-Identifier: LGPL-2.1-or-later
"""The driver of `xl`: what it asks, what it reads, and a scenario on an `xl` made of the reference."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xlsnap_conformance import protocol as p
from xlsnap_conformance import trace as do
from xlsnap_conformance.drivers.linux import KINDS
from xlsnap_conformance.drivers.profile.commands import Transport
from xlsnap_conformance.drivers.serving import Refused
from xlsnap_conformance.drivers.xl import lists
from xlsnap_conformance.drivers.xl.command import Xl, kind_of
from xlsnap_conformance.drivers.xl.driver import XlDriver
from xlsnap_conformance.failures import ConformanceFailure
from xlsnap_conformance.fence import Fence
from xlsnap_conformance.scenario import replay
from xlsnap_conformance.subject import Subject
from xlsnap_conformance.trace import DiskOf, DomainOf, Trace
from xlsnap_grammars import parse_config, parse_snapshot_config

UUID = "17cacc64-4c15-40ba-b6e2-190f63847dd0"
NAME = "xlsnap-cts-a-1"

# --- what it asks -----------------------------------------------------------------------------------------


@pytest.fixture
def driver(tmp_path: Path) -> XlDriver:
    """A driver of an `xl` that notes its words, and prints what the files beside it say."""
    script = tmp_path / "xl"
    script.write_text(
        f"""#!{sys.executable}
import json, sys
from pathlib import Path
here = Path({str(tmp_path)!r})
with (here / "asked").open("a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
told = here / ("told-" + "-".join(word for word in sys.argv[1:] if not word.startswith("/")))
if told.exists():
    print(told.read_text(), end="")
status = here / ("status-" + sys.argv[1])
if status.exists():
    print("libxl: error: it is wrong", file=sys.stderr)
    sys.exit(int(status.read_text()))
"""
    )
    script.chmod(0o755)
    (tmp_path / "told-info-xen_version").write_text("4.17.7\n")
    (tmp_path / "told-list--v").write_text(LIST)
    made = XlDriver(
        Xl((str(script),), Transport()), guest=KINDS["pv"], metadata_root=Path("/var/lib/xen/snapshots")
    )
    made.setup(p.Setup(root=str(tmp_path)))
    return made


def asked(tmp_path: Path) -> list[list[str]]:
    import json

    return [json.loads(line) for line in (tmp_path / "asked").read_text().splitlines()]


LIST = f"""\
Name                                        ID   Mem VCPUs\tState\tTime(s)   UUID                            Reason
Domain-0                                     0  1536     1     r-----      28.0 00000000-0000-0000-0000-000000000000    -
{NAME}                               7    96     1     --p---       4.9 {UUID}        -                -
two words                                   12    96     1     ------       4.9 236efeb2-39c2-406a-812f-450f763a623d  3  -
"""  # noqa: E501 - as xl prints it

REQUEST = p.DomainCreate(
    name=NAME,
    uuid=UUID,
    memory_mib=1,
    vcpus=1,
    firmware=p.Firmware(rom="/r", disk="/d", iso="/i"),
    disks=(
        p.Disk(vdev="hda", path='/with,comma "and quotes"', format="qcow2"),
        p.Disk(vdev="hdc", path="/c", format="raw", cdrom=True),
    ),
    paused=True,
)


def test_a_domain_is_created_from_a_configuration_that_xl_reads(driver: XlDriver, tmp_path: Path) -> None:
    made = driver.domain_create(REQUEST)
    assert (made.domid, made.uuid) == (7, UUID)
    path = tmp_path / f"{NAME}.cfg"
    assert ["create", "-p", str(path)] in asked(tmp_path)
    config = parse_config(path.read_text(), filename="x")
    assert (config["type"], config["memory"], config["kernel"]) == (
        "pv",
        "96",
        "/usr/share/xlsnap/guest/vmlinux",
    )
    assert config["disk"] == [
        'format=qcow2,vdev=hda,access=rw,backendtype=qdisk,target=/with,comma "and quotes"',
        "format=raw,vdev=hdc,access=ro,backendtype=qdisk,devtype=cdrom,target=/c",
    ]
    assert driver.domain_state(p.DomainStateOf(domain=NAME)).state == "paused"
    assert driver.metadata(p.Metadata(domain=UUID)).directory == f"/var/lib/xen/snapshots/{UUID}"


def test_others_domains_are_left_alone(driver: XlDriver) -> None:
    with pytest.raises(Refused, match="not one of the suite"):
        driver.domain_create(
            p.DomainCreate(**{f: getattr(REQUEST, f) for f in REQUEST.__struct_fields__} | {"name": "web"})
        )


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (p.SnapshotCreate(domain=NAME, name="a b"), ["snapshot-create", "-n", "a b", NAME]),
        (p.SnapshotCreate(domain=NAME, name="s", memory="no"), ["snapshot-create", "-n", "s", "-D", NAME]),
        (p.SnapshotCreate(domain=NAME, name="s", dry_run=True), ["-N", "snapshot-create", "-n", "s", NAME]),
        (
            p.SnapshotCreate(domain=NAME, name="s", config='memory = "yes"', disk_only=True),
            ["snapshot-create", "FILE", "-n", "s", "-D", NAME],
        ),
        (p.SnapshotCreate(domain=NAME, name="s", type="external"), ["snapshot-create", "FILE", NAME]),
        (p.SnapshotCreate(domain=NAME, name="s", description="d"), ["snapshot-create", "FILE", NAME]),
        (p.SnapshotCreate(domain=NAME, name="s", memory="/m"), ["snapshot-create", "FILE", NAME]),
    ],
)
def test_what_options_can_say_needs_no_file(
    request_: p.SnapshotCreate, words: list[str], driver: XlDriver, tmp_path: Path
) -> None:
    found = driver.create_words(request_)
    assert ["FILE" if word.endswith(".conf") else word for word in found] == words


def test_a_file_says_what_options_cannot(driver: XlDriver, tmp_path: Path) -> None:
    disks = (p.DiskChoice(vdev="hda"), p.DiskChoice(vdev="xvde", type="external", target="/o.qcow2"))
    driver.create_words(p.SnapshotCreate(domain=NAME, name='"s"', description="two\nlines", disks=disks))
    (path,) = tmp_path.glob("*.conf")
    config = parse_snapshot_config(path.read_text())
    assert (config.name, config.description, config.memory) == ('"s"', "two\nlines", "yes")
    assert [(disk.vdev, disk.type, disk.target) for disk in config.disks or ()] == [
        ("hda", "internal", None),
        ("xvde", "external", "/o.qcow2"),
    ]


def test_a_name_that_was_not_given_is_looked_for_in_the_list(driver: XlDriver, tmp_path: Path) -> None:
    (tmp_path / f"told-snapshot-list--o-json-{NAME}").write_text("[]")
    with pytest.raises(Refused, match="the list has 0 new snapshots") as caught:
        driver.snapshot_create(p.SnapshotCreate(domain=NAME))
    assert caught.value.kind == "host"


def test_the_status_says_whose_fault_it_is(driver: XlDriver, tmp_path: Path) -> None:
    for status, kind in ((2, "input"), (3, "state"), (4, "host"), (1, "host")):
        (tmp_path / "status-snapshot-revert").write_text(str(status))
        with pytest.raises(Refused, match="it is wrong") as caught:
            driver.snapshot_revert(p.SnapshotRevert(domain=NAME, name="s", paused=True))
        assert caught.value.kind == kind
    assert asked(tmp_path)[-1] == ["snapshot-revert", "-n", "s", "-p", NAME]
    assert kind_of(1, "x is an invalid domain identifier (rc=-6)") == "input"


def test_words_go_through_ssh_as_they_are() -> None:
    xl = Xl(("xl",), Transport(run=("ssh", "root@xen1")))
    assert xl.vector("console", "a b") == ["ssh", "root@xen1", "xl console 'a b'"]


# --- what it reads ----------------------------------------------------------------------------------------


def test_domains() -> None:
    assert lists.domains(LIST) == (
        p.ListedDomain(name=NAME, uuid=UUID, domid=7, state="paused"),
        p.ListedDomain(
            name="two words", uuid="236efeb2-39c2-406a-812f-450f763a623d", domid=12, state="running"
        ),
    )


def test_snapshots_in_a_table() -> None:
    text = """\
TAG  NAME        DATE                 STATE   DISK ONLY
1    a  b c      2026-11-23 12:31:56  r-----  no
2    disks       1970-01-01 00:00:01  --p---  yes
"""
    first, second = lists.table(text)
    assert (first.name, first.creation_time, first.state, first.disk_only) == (
        "a  b c",
        1795437116,
        "r",
        False,
    )
    assert (second.name, second.creation_time, second.state, second.disk_only) == ("disks", 1, "p", True)
    assert lists.table("") == ()


@pytest.mark.parametrize("text", ["what?", "TAG NAME DATE STATE DISK ONLY\n1 a yesterday r----- no"])
def test_another_table(text: str) -> None:
    with pytest.raises(Refused, match=r"another form|no table"):
        lists.table(text)


@pytest.mark.parametrize("text", ["", "{}", '[{"name": "a"}]', '[{"name": 1, "creation_time": 2}]', "[3]"])
def test_another_json(text: str) -> None:
    with pytest.raises(Refused) as caught:
        lists.snapshots(text)
    assert caught.value.kind == "bug"


# --- the suite through it ---------------------------------------------------------------------------------


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subject]:
    with Fence(tmp_path) as fence:
        monkeypatch.setenv("XLSNAP_ROOT", str(fence.driver_root))
        xl = shlex.join([sys.executable, str(Path(__file__).with_name("xl_over_qemu.py"))])
        metadata = fence.driver_root / "snapshots"
        with Subject(
            shlex.join(["xl", "--xl", xl, "--guest", "bare", "--metadata-root", str(metadata)]), fence
        ) as made:
            yield made


TRACE = Trace(
    title="internal, external and mixed snapshots by commands",
    domain=DomainOf(disks=(DiskOf(vdev="hda"), DiskOf(vdev="xvda"))),
    steps=(
        do.Set(key="a", value="1"),
        do.Write(vdev="hda", lba=1, word="one"),
        do.Create(name="with space", description="said in a file"),
        do.Set(key="a", value="2"),
        do.Create(name="outer", disks=(p.DiskChoice(vdev="hda", type="external"), p.DiskChoice(vdev="xvda"))),
        do.Write(vdev="hda", lba=1, word="three"),
        do.Create(memory="no"),
        do.Revert(name="with space", paused=True),
        do.Create(name="outer", refused="input"),
        do.Destroy(),
        do.Revert(name="outer"),
        do.Delete(name="with space"),
    ),
)


def test_a_scenario_by_commands(subject: Subject) -> None:
    scenario = replay(TRACE, subject)
    assert scenario.checks > len(TRACE.steps)


def test_success_that_is_none_is_found_out(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """An `xl` that says that it has reverted, and has not."""
    original = subject.call

    def call(request: p.Request[Any]) -> Any:
        return p.Done() if isinstance(request, p.SnapshotRevert) else original(request)

    monkeypatch.setattr(subject, "call", call)
    steps = (do.Set(key="a", value="1"), do.Create(name="s"), do.Set(key="a", value="2"), do.Revert(name="s"))
    with pytest.raises(ConformanceFailure, match="guest variable a has another value"):
        replay(Trace(steps=steps), subject)


def test_no_xl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(os.environ, "PATH", str(tmp_path))
    with pytest.raises(Refused, match=r"cannot run|exit status 127|No such file"):
        XlDriver(Xl(("xl",), Transport()), guest=None, metadata_root=tmp_path)
