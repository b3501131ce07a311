# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Xen host and the files of others: libxl's configuration, open files, dom0 itself, `xl`."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from xlsnap import hosts
from xlsnap.domain import DomainConfig, DomainRecord
from xlsnap.errors import DomainStateError, HostError, InputError
from xlsnap.layout import StateRoot
from xlsnap.steps import DiskImage, TaggedImage
from xlsnap.xen import memory, stored, xl
from xlsnap.xen.host import XenHost
from xlsnap.xen.in_use import users

UUID = "17cacc64-4c15-40ba-b6e2-190f63847dd0"

Programs = Callable[..., Path]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """A function that puts shell scripts in front of PATH, by name."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")

    def put(**scripts: str) -> Path:
        for name, text in scripts.items():
            path = directory / name.replace("_", "-")
            path.write_text(f"#!/bin/sh\n{text}\n")
            path.chmod(0o755)
        return directory

    return put


# --- which host -------------------------------------------------------------------------------------------


def capabilities(tmp_path: Path, text: str | None) -> Path:
    path = tmp_path / "capabilities"
    if text is not None:
        path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "host"), [("control_d\n", "xen"), ("", "qemu"), (None, "qemu")], ids=["dom0", "domU", "no Xen"]
)
def test_the_host_that_is_there_is_taken(
    text: str | None, host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert hosts.choose("auto", capabilities=capabilities(tmp_path, text)) == host
    assert hosts.choose("qemu", capabilities=capabilities(tmp_path, text)) == "qemu"


@pytest.mark.parametrize(
    ("text", "euid", "complaint"),
    [
        (None, 0, "this is no dom0 of Xen: it is not running on Xen"),
        ("", 0, "this is no dom0 of Xen: it is a domain without control over others"),
        ("control_d\n", 1000, "the domains of Xen are for root only"),
    ],
)
def test_xen_that_cannot_be_used(
    text: str | None, euid: int, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    with pytest.raises(HostError, match=complaint):
        hosts.choose("xen", capabilities=capabilities(tmp_path, text))


def test_an_unknown_host() -> None:
    with pytest.raises(InputError, match="unknown host 'kvm'"):
        hosts.choose("kvm")


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("echo 4.6.1", "Xen 4.6.1 is not supported"),
        ("echo huh", "Xen huh is not supported"),
        (
            "echo 'libxl: error: libxl.c:9:libxl_ctx_alloc: cannot open privcmd' >&2; exit 1",
            "cannot open privcmd",
        ),
    ],
)
def test_a_xen_of_another_version(script: str, complaint: str, programs: Programs) -> None:
    programs(xl=script)
    with pytest.raises(HostError, match=complaint):
        hosts.check_xen_version()


def test_a_xen_of_this_version(programs: Programs) -> None:
    programs(xl="echo 4.17.7")
    hosts.check_xen_version()


def test_no_xl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="xl is not installed"):
        xl.look("list")


def test_an_xl_that_crashes_is_asked_again(programs: Programs, tmp_path: Path) -> None:
    programs(
        xl=f"echo x >> {tmp_path}/asked; test $(wc -l < {tmp_path}/asked) = 3 || kill -SEGV $$; echo fine"
    )
    assert xl.look("list") == "fine\n"
    (tmp_path / "asked").unlink()
    programs(xl="kill -SEGV $$")
    with pytest.raises(xl.XlError, match="xl list failed: killed by signal 11"):
        xl.look("list")


# --- xl ---------------------------------------------------------------------------------------------------


def test_a_command_that_fails_says_why_and_leaves_no_note(programs: Programs, tmp_path: Path) -> None:
    programs(xl="echo 'libxl: error: libxl_create.c:1:f: Domain 3:no memory left' >&2; exit 3")
    note = tmp_path / "note"
    with pytest.raises(xl.XlError, match=r"^xl create failed: no memory left$"):
        asyncio.run(xl.change("create", "x", note=note))
    assert not note.exists()


def test_a_command_comes_to_its_end_though_the_operation_is_cancelled(
    programs: Programs, tmp_path: Path
) -> None:
    programs(xl=f"sleep 0.5; echo done > {tmp_path}/done")
    note = tmp_path / "note"

    async def cancel() -> None:
        task = asyncio.create_task(xl.change("save", "1", note=note))
        while not note.exists():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert (tmp_path / "done").exists()
    assert not note.exists()


def test_the_next_operation_waits_for_what_a_killed_one_has_begun(programs: Programs, tmp_path: Path) -> None:
    programs(xl=f"sleep 1; echo done > {tmp_path}/done")
    note = tmp_path / "note"
    code = f"import asyncio; from pathlib import Path; from xlsnap.xen import xl; asyncio.run(xl.change('save', note=Path({str(note)!r})))"  # noqa: E501 - one program
    killed = subprocess.Popen([sys.executable, "-c", code])
    try:
        while not note.exists():
            assert killed.poll() is None
    finally:
        killed.kill()
        killed.wait()
    assert not (tmp_path / "done").exists()
    asyncio.run(xl.wait_for_left_behind(note))
    assert (tmp_path / "done").exists()
    assert not note.exists()


def test_a_note_of_a_process_that_is_another_by_now(tmp_path: Path) -> None:
    note = tmp_path / "note"
    note.write_text(f"{os.getpid()} 1\n")
    asyncio.run(xl.wait_for_left_behind(note))
    assert not note.exists()


# --- memory -----------------------------------------------------------------------------------------------


def test_a_memory_image_is_ours_alone(programs: Programs, tmp_path: Path) -> None:
    programs(xl='test "$1 $2 $3" = "save -p 7" && head -c 3000000 /dev/zero > "$4"')
    path = tmp_path / "image"
    asyncio.run(memory.save_memory(7, str(path), note=tmp_path / "note"))
    assert path.stat().st_size == 3000000
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        (
            "head -c 3000 /dev/zero > $4; echo 'libxl: error: f.c:1:f: Domain 7:it has died' >&2; exit 1",
            "it has died",
        ),
        ("kill -9 $$", "killed by signal 9"),
    ],
    ids=["the domain dies", "xl is killed"],
)
def test_nothing_is_left_of_a_memory_image_that_fails(
    script: str, complaint: str, programs: Programs, tmp_path: Path
) -> None:
    programs(xl=script)
    path = tmp_path / "image"
    with pytest.raises(HostError, match=complaint):
        asyncio.run(memory.save_memory(7, str(path), note=tmp_path / "note"))
    assert not path.exists()


def test_no_space_for_a_memory_image(programs: Programs, tmp_path: Path) -> None:
    """A file of this size is all that this process may write; xl's complaint would be a broken pipe."""
    programs(xl='head -c 3000000 /dev/zero > "$4" || exit 1')
    path = tmp_path / "image"
    code = (
        "import asyncio, resource, signal, sys; from pathlib import Path; from xlsnap.xen import memory\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        f"try: asyncio.run(memory.save_memory(7, {str(path)!r}, note=Path({str(tmp_path / 'note')!r})))\n"
        "except Exception as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == f"cannot write memory image {path}: File too large\n"
    assert not path.exists()


def test_a_memory_image_that_exists_stays(programs: Programs, tmp_path: Path) -> None:
    programs(xl="exit 0")
    path = tmp_path / "image"
    path.write_text("mine")
    with pytest.raises(HostError, match="File exists"):
        asyncio.run(memory.save_memory(7, str(path), note=tmp_path / "note"))
    assert path.read_text() == "mine"


# --- libxl's configuration --------------------------------------------------------------------------------


def test_xen_is_told_of_another_image(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "DIRECTORY", tmp_path)
    path = stored.stored_config(3, UUID)
    disks = [{"vdev": "hda", "pdev_path": "/a", "format": "raw"}, {"vdev": "xvde", "pdev_path": "/e"}]
    path.write_bytes(json.dumps({"disks": disks, "other": 1}).encode() + b"\0")
    programs(
        xenstore_list="echo 768; echo 51776",
        xenstore_read='case "$1" in */768/dev) echo hda;; *) echo xvde;; esac',
        xenstore_write=f'echo "$@" >> {tmp_path}/written',
    )
    stored.note_images(3, UUID, {"hda": DiskImage("hda", "/o", "qcow2")})
    assert stored.stored(3, UUID) == {
        "disks": [{"vdev": "hda", "pdev_path": "/o", "format": "qcow2"}, disks[1]],
        "other": 1,
    }
    written = (tmp_path / "written").read_text()
    assert written == "/local/domain/0/backend/qdisk/3/768/params qcow2:/o\n"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["bin", path.name, "written"]
    assert stored.stored(4, UUID) is None


def test_a_configuration_of_libxl_that_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "DIRECTORY", tmp_path)
    stored.stored_config(3, UUID).write_text("{")
    with pytest.raises(HostError, match="cannot read libxl's configuration"):
        stored.stored(3, UUID)


# --- who has an image open --------------------------------------------------------------------------------


def test_who_has_an_image_open(tmp_path: Path) -> None:
    image, other = tmp_path / "image", tmp_path / "other"
    image.touch()
    other.touch()
    link = tmp_path / "link"
    link.symlink_to(image)
    assert users([str(image)]) == []
    with subprocess.Popen(["sleep", "60"], stdin=image.open("rb")) as process:
        try:
            (user,) = users([str(link), str(other)])
            assert (user.path, user.who) == (str(link), f"sleep (process {process.pid})")
        finally:
            process.kill()
    assert users([str(image)]) == []


def test_a_loop_device_has_it_open(tmp_path: Path) -> None:
    backing = tmp_path / "loops" / "loop3" / "loop" / "backing_file"
    backing.parent.mkdir(parents=True)
    backing.write_text("/img/a\n")
    (tmp_path / "proc").mkdir()
    (user,) = users(["/img/a", "/img/b"], proc=tmp_path / "proc", loops=tmp_path / "loops")
    assert user.who == "/dev/loop3"


def test_an_image_in_use_is_not_changed(tmp_path: Path) -> None:
    image = tmp_path / "image.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "1M"], check=True)
    before = image.read_bytes()
    host = XenHost(StateRoot.at(tmp_path))
    disk = DiskImage("xvda", str(image), "qcow2")
    record = DomainRecord(uuid=UUID, name="x", config=DomainConfig(name="x"))
    with subprocess.Popen(["sleep", "60"], stdin=image.open("rb")) as process:
        try:
            with pytest.raises(HostError, match="in use by sleep"):
                asyncio.run(host.apply_disk_snapshots(record, [TaggedImage(disk, "1")]))
        finally:
            process.kill()
    assert image.read_bytes() == before


# --- domains ----------------------------------------------------------------------------------------------


@pytest.fixture
def host(programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> XenHost:
    """A host with the domain that the file ``list`` shows, made by an `xl` that can save nothing."""
    monkeypatch.setattr(stored, "DIRECTORY", tmp_path)
    (tmp_path / "list").write_text(f"d  987654  96  1  r-----  1.0 {UUID}  -  -\n")
    stored.stored_config(987654, UUID).write_text('{"c_info": {}}')
    fail = "echo 'libxl: error: f.c:1:f: Domain 9:a number' >&2; exit 1"
    programs(
        xl=f'case "$1" in list) cat {tmp_path}/list;; save) . {tmp_path}/save; {fail};; *) exit 0;; esac'
    )
    return XenHost(StateRoot.at(tmp_path / "root"))


RECORD = DomainRecord(uuid=UUID, name="d", config=DomainConfig(name="d"), domid=987654)


def test_a_domain_that_dies_while_its_memory_is_saved(host: XenHost, tmp_path: Path) -> None:
    (tmp_path / "save").write_text(f"echo > {tmp_path}/list")
    (tmp_path / "root/domains" / UUID).mkdir(parents=True)
    with pytest.raises(HostError, match=r"^domain 'd' ended while its memory was saved$"):
        asyncio.run(host.save_memory(RECORD, str(tmp_path / "image")))
    assert not (tmp_path / "image").exists()
    assert not host.is_active(RECORD)


def test_a_domain_that_lives_on_though_its_memory_cannot_be_saved(host: XenHost, tmp_path: Path) -> None:
    (tmp_path / "save").write_text("")
    (tmp_path / "root/domains" / UUID).mkdir(parents=True)
    with pytest.raises(HostError, match=r"^xl save failed: a number$"):
        asyncio.run(host.save_memory(RECORD, str(tmp_path / "image")))
    assert host.is_active(RECORD)


def test_a_domain_without_a_disk_of_qemu(host: XenHost) -> None:
    with pytest.raises(DomainStateError, match="none of its disks has the backend qdisk"):
        asyncio.run(host.disk_problems(RECORD, ["xvda"]))
    assert asyncio.run(host.disk_problems(RECORD, [])) == {}


def test_what_is_half_made_is_not_the_domain(host: XenHost, tmp_path: Path) -> None:
    """libxl stores the configuration last of all."""
    assert [found.domid for found in host.domains()] == [987654]
    stored.stored_config(987654, UUID).unlink()
    host.look_again()
    assert not host.is_active(RECORD)
    assert host.domains() == []
