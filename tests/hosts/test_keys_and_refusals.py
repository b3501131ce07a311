# SPDX-License-Identifier: LGPL-2.1-or-later
"""What decides whether a nested host is made anew, and what is said when it cannot be made."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from xlsnap_conformance.hosts.xen import accelerator, machine, nested, packages
from xlsnap_conformance.hosts.xen.build import Builder, Built
from xlsnap_conformance.hosts.xen.cache import Kept, key
from xlsnap_conformance.hosts.xen.failure import XenHostError
from xlsnap_conformance.hosts.xen.machine import Machine, Places
from xlsnap_conformance.hosts.xen.store import Store

BUILT = Built(Path("/cache/built/abc"))
MACHINE = Machine("QEMU emulator version 7.2.22", "tcg")


def silent(text: str, done: int, total: int) -> None:
    pass


def test_a_frozen_host_is_for_one_build_qemu_and_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [
        MACHINE.key(BUILT),
        MACHINE.key(Built(Path("/cache/built/abd"))),
        replace(MACHINE, qemu="QEMU emulator version 7.2.23").key(BUILT),
        replace(MACHINE, accelerator="kvm").key(BUILT),
    ]
    monkeypatch.setattr(machine, "MEMORY_MIB", machine.MEMORY_MIB + 1)
    keys.append(MACHINE.key(BUILT))
    assert len(set(keys)) == len(keys)
    assert replace(MACHINE, binary="/opt/qemu").key(BUILT) != ""


def test_a_resumed_machine_differs_only_in_waiting() -> None:
    places = Places(Path("/run/a"), Path("/share,with comma"))
    booted = MACHINE.command(BUILT, places)
    assert MACHINE.command(BUILT, places, incoming=True) == [*booted, "-incoming", "defer"]
    assert any("path=/share,,with comma" in word for word in booted)


def test_parts_of_a_key_cannot_flow_into_each_other() -> None:
    assert key(["ab", "c"]) != key(["a", "bc"])


def test_a_host_of_another_checkout_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = Builder(tmp_path, silent)
    assert builder.latest() is None
    (tmp_path / "built" / "one").mkdir(parents=True)
    (tmp_path / "latest-of").mkdir()
    monkeypatch.setattr("xlsnap_conformance.hosts.xen.build.our_part", lambda: "ours")
    (tmp_path / "latest-of" / "theirs").write_text("one")
    assert builder.latest() is None
    (tmp_path / "latest-of" / "ours").write_text("one")
    assert builder.latest() == Built(tmp_path / "built" / "one")
    (tmp_path / "built" / "one").rmdir()
    assert builder.latest() is None


def test_without_a_network_the_last_host_has_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(apt: packages.Apt) -> None:
        raise XenHostError("apt-get could not fetch the lists of packages")

    monkeypatch.setattr(packages.Apt, "update", unreachable)
    monkeypatch.setattr("xlsnap_conformance.hosts.xen.build.our_part", lambda: "ours")
    told: list[str] = []
    builder = Builder(tmp_path, lambda text, done, total: told.append(text))
    assert "lists of packages" in refusal(builder.build)
    (tmp_path / "built" / "one").mkdir(parents=True)
    (tmp_path / "latest-of").mkdir()
    (tmp_path / "latest-of" / "ours").write_text("one")
    assert builder.build() == Built(tmp_path / "built" / "one")
    assert told[-1].endswith("taking what was built last")


def test_what_was_not_finished_is_not_found(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    with contextlib.suppress(RuntimeError), kept.new("a") as directory:
        (directory / "half").touch()
        raise RuntimeError
    assert (kept.find("a"), list(tmp_path.iterdir())) == (None, [])
    with kept.new("a") as directory:
        (directory / "whole").touch()
    assert kept.find("a") == tmp_path / "a"
    assert (tmp_path / "a" / "whole").exists()


def test_what_is_old_or_too_much_is_removed_and_the_rest_stays(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    now = time.time()
    for name, age in {
        "a": 10,
        "b": 20,
        "c": 30,
        "old": 15 * 86400,
        ".half": 9 * 86400,
        ".at-work": 5,
    }.items():
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (now - age, now - age))
    kept.remove_old()
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c", ".at-work"}
    for name in ("d", "e", "f"):
        (tmp_path / name).mkdir()
    kept.remove_old("c")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c", "d", "e", "f", ".at-work"}


def test_apts_list_of_files_is_read() -> None:
    text = (
        "W: a warning\n"
        "'http://deb.debian.org/pool/b_1.deb' b_1%3a2_amd64.deb 12 SHA256:00\n"
        "'http://deb.debian.org/pool/a.deb' a_1_all.deb 3 SHA256:11\n"
    )
    found = packages.parse_uris(text)
    assert [(p.name, p.size) for p in found] == [("a_1_all.deb", 3), ("b_1%3a2_amd64.deb", 12)]
    assert found[1].label == "b 1:2"


def refusal(work: Callable[[], object]) -> str:
    with pytest.raises(XenHostError) as caught:
        work()
    return caught.value.message


def test_each_refusal_is_one_line_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "available_mib", lambda text: 100)
    assert "100 MiB are available" in refusal(machine.check_memory)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refusal(machine.find_qemu) == "qemu-system-x86_64 not found: apt-get install qemu-system-x86"
    assert refusal(lambda: packages.Apt(tmp_path)).startswith("no apt-get here")
    places = Places(tmp_path, tmp_path)
    assert "host xen start" in refusal(lambda: asyncio.run(nested.NestedHost.attach(places)))
    spaced = Built(Path("/a directory/built/abc"))
    assert "XDG_CACHE_HOME" in refusal(lambda: MACHINE.command(spaced, places))


def test_apts_own_complaint_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "bin" / "apt-get"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'E: Unable to locate package xen-utils-4.17' >&2; exit 100\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:/usr/bin:/bin")
    monkeypatch.setattr(packages, "_is_release", lambda path: True)
    apt = packages.Apt(tmp_path / "apt")
    assert refusal(apt.resolve) == (
        "apt-get could not find the packages: Unable to locate package xen-utils-4.17"
    )


QEMU_THAT_FAILS = "#!/bin/sh\necho 'qemu: cannot set up guest memory' >&2\nexit 1\n"


QEMU_THAT_HANGS = """#!/bin/sh
for word; do case $word in file,id=console,path=*) log=${word#*path=};; esac; done
echo 'the last thing that was heard' >"$log"
exec sleep 60
"""


@pytest.mark.parametrize(
    ("program", "message", "detail"),
    [
        (QEMU_THAT_FAILS, "QEMU ended", "cannot set up guest memory"),
        (QEMU_THAT_HANGS, "did not come up within 2 s", "the last thing that was heard"),
    ],
)
def test_a_host_that_does_not_boot_says_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, message: str, detail: str
) -> None:
    qemu = tmp_path / "qemu"
    qemu.write_text(program)
    qemu.chmod(0o755)
    monkeypatch.setattr(nested, "BOOT_SECONDS", 2.0)
    places = Places(tmp_path / "run", tmp_path)
    broken = replace(MACHINE, binary=str(qemu))
    with pytest.raises(XenHostError) as caught:
        asyncio.run(nested.NestedHost.boot(broken, BUILT, places, lambda text: None))
    assert message in caught.value.message
    assert detail in caught.value.detail
    assert nested.running(places.run) is None


QEMU_THAT_BINDS_AND_FAILS = f"""#!{sys.executable}
import socket, sys, time
path = next(word for word in sys.argv if "id=monitor" in word).split("path=")[1].split(",server")[0]
monitor = socket.socket(socket.AF_UNIX)
monitor.bind(path)  # does not listen yet
time.sleep(0.5)
sys.exit("qemu: the image is of another machine")
"""


def test_a_monitor_that_is_not_open_yet_is_waited_for(tmp_path: Path) -> None:
    qemu = tmp_path / "qemu"
    qemu.write_text(QEMU_THAT_BINDS_AND_FAILS)
    qemu.chmod(0o755)
    (tmp_path / "image").touch()
    places = Places(tmp_path / "run", tmp_path)
    broken = replace(MACHINE, binary=str(qemu))
    with pytest.raises(XenHostError) as caught:
        asyncio.run(nested.NestedHost.resume(broken, BUILT, tmp_path / "image", places, lambda text: None))
    assert (caught.value.message, caught.value.detail) == (
        "QEMU ended",
        "qemu: the image is of another machine",
    )


def test_a_panic_is_seen_on_the_console(tmp_path: Path) -> None:
    (tmp_path / "console.log").write_bytes(b"Xen 4.17\r\nPanic on CPU 0:\r\nno memory\r\n")
    with pytest.raises(XenHostError) as caught:
        nested._look_at_console(Places(tmp_path, tmp_path))
    assert caught.value.detail.splitlines() == ["Xen 4.17", "Panic on CPU 0:", "no memory"]


def test_kvm_that_is_not_there_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "DEVICE", tmp_path / "kvm")
    store = Store(tmp_path, MACHINE, silent)
    assert asyncio.run(accelerator.choose("auto", store)) == "tcg"
    assert asyncio.run(accelerator.choose("tcg", store)) == "tcg"
    assert "KVM does not work here" in refusal(lambda: asyncio.run(accelerator.choose("kvm", store)))


def test_a_trial_of_kvm_is_remembered_until_qemu_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    async def boots(store: Store) -> bool:
        tried.append(store.machine.qemu)
        return True

    (tmp_path / "kvm").touch()
    monkeypatch.setattr(accelerator, "DEVICE", tmp_path / "kvm")
    monkeypatch.setattr(accelerator, "_boots", boots)
    for qemu in ("one", "one", "two"):
        store = Store(tmp_path, replace(MACHINE, qemu=qemu), silent)
        assert asyncio.run(accelerator.choose("auto", store)) == "kvm"
    assert tried == ["one", "two"]
