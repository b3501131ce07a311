# SPDX-License-Identifier: LGPL-2.1-or-later
"""External and mixed snapshots, as far as traces cannot say it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from xlsnap_conformance import model
from xlsnap_conformance import protocol as p
from xlsnap_conformance import trace as do
from xlsnap_conformance.failures import ConformanceFailure, HarnessError, ImplementationError
from xlsnap_conformance.protocol import DiskChoice
from xlsnap_conformance.scenario import Scenario
from xlsnap_conformance.subject import qemu_img_create
from xlsnap_conformance.trace import DomainOf

from .conftest import Need, NewScenario, Tell
from .counting import TWO_DISKS, counters_agree


@pytest.mark.clauses("XLS-CREATE-028")
def test_default_target_is_a_file_that_did_not_exist(
    new_scenario: NewScenario, need: Need, tell: Tell
) -> None:
    """A file of the user's stands where the overlay of the same snapshot would have been."""
    for capability in ("memory", "external", "delete"):
        need(capability)
    scenario = new_scenario(DomainOf())
    request = p.SnapshotCreate(domain=scenario.domain.name, name="same", type="external")
    first = _overlay(scenario, request)
    scenario.accepts(p.SnapshotDelete(domain=scenario.domain.name, name="same"), ("XLS-DELETE-007",))
    present = {disk.path for disk in scenario.domain.disks()}
    if str(first) not in present:
        _put(first, "a file of the user\n")
    second = _overlay(scenario, request)
    if second == first or (str(first) not in present and first.read_text() != "a file of the user\n"):
        raise ConformanceFailure(
            ("XLS-CREATE-028", "XLS-MODEL-004"),
            "an overlay went where a file was",
            expected="another file",
            observed=second.name,
        )
    tell(f"first {first.name}, then {second.name}")


def _overlay(scenario: Scenario, request: p.SnapshotCreate) -> Path:
    """Take a snapshot; return the overlay of the only disk."""
    scenario.accepts(request, ("XLS-CREATE-028", "XLS-CREATE-001"))
    (disk,) = scenario.domain.disks()
    return Path(disk.path)


def _put(path: Path, text: str) -> None:
    with path.open("x") as file:
        file.write(text)


BAD_TARGETS = ("directory", "dangling link", "link to a file")


@pytest.mark.parametrize("what", BAD_TARGETS)
@pytest.mark.clauses("XLS-CREATE-010")
def test_target_at_which_something_is(what: str, new_scenario: NewScenario, need: Need, tell: Tell) -> None:
    """Whatever it is, it stays; the same request with another target works."""
    for capability in ("memory", "external", "external-disk-selection"):
        need(capability)
    scenario = new_scenario(DomainOf())
    scratch = scenario.domain.scratch
    target = scratch / "target"
    if what == "directory":
        target.mkdir()
    elif what == "dangling link":
        target.symlink_to(scratch / "nowhere")
    else:
        _put(scratch / "mine", "mine\n")
        target.symlink_to(scratch / "mine")
        scenario.ignore(scratch / "mine")
    scenario.ignore(target)
    before = target.lstat()

    def request(path: Path) -> p.SnapshotCreate:
        disks = (DiskChoice(vdev="hda", type="external", target=str(path)),)
        return p.SnapshotCreate(domain=scenario.domain.name, name="s", disks=disks)

    reason = f"the target is a {what}"
    tell(scenario.refuses(request(target), "XLS-CREATE-010", reason, kinds=("input", "host")))
    unchanged = (before.st_ino, before.st_mtime_ns) == (target.lstat().st_ino, target.lstat().st_mtime_ns)
    mine = scratch / "mine"
    if not unchanged or (scratch / "nowhere").exists() or (mine.exists() and mine.read_text() != "mine\n"):
        raise ConformanceFailure(
            ("XLS-CREATE-010", "XLS-MODEL-004"), "what was there was changed", expected=what, observed=None
        )
    scenario.finish()


@pytest.mark.clauses("XLS-CREATE-030")
def test_mixed_disks_and_memory_are_of_one_instant(new_scenario: NewScenario, need: Need, tell: Tell) -> None:
    for capability in ("memory", "external", "mixed", "revert", "external-revert", "delete"):
        need(capability)
    scenario = new_scenario(TWO_DISKS)
    disks = (DiskChoice(vdev="hda"), DiskChoice(vdev="xvde", type="external"))
    request = p.SnapshotCreate(domain=scenario.domain.name, disks=disks)
    tell(counters_agree(scenario, request, "XLS-CREATE-030"))


FORMATS = ("XLS-CREATE-026", "XLS-MODEL-007")

BEHIND_THE_HEADER = 1500
"""A sector behind the forged header: what the guest reads there tells the formats apart."""


@pytest.mark.clauses("XLS-CREATE-026", "XLS-CREATE-029")
def test_raw_backing_file_that_looks_like_qcow2(new_scenario: NewScenario, need: Need, tell: Tell) -> None:
    """A guest writes a qcow2 header to its raw disk, which then becomes a backing file."""
    for capability in ("memory", "external", "revert", "external-revert"):
        need(capability)
    scenario = new_scenario(DomainOf(disks=(do.DiskOf(vdev="hda", format="raw"),)))
    before = scenario.domain.guest().disks()[0]
    scenario.play(do.Write(vdev="hda", lba=BEHIND_THE_HEADER, word="kept"))
    scenario.play(do.Destroy())
    _forge(scenario.domain.image("hda"))
    scenario.play(do.Start())
    request = p.SnapshotCreate(domain=scenario.domain.name, name="s", type="external")
    scenario.accepts(request, ("XLS-CREATE-029", "XLS-MODEL-007"))
    scenario.accepts(p.SnapshotRevert(domain=scenario.domain.name, name="s"), FORMATS)
    scenario.domain.reconnect()
    scenario.accepts(p.DomainPowerCycle(domain=scenario.domain.name), FORMATS)
    guest = scenario.domain.guest()
    after, word = guest.disks()[0], guest.read(scenario.domain.disk_number_of["hda"], BEHIND_THE_HEADER)
    if (after, word) != (before, "kept"):
        raise ConformanceFailure(
            FORMATS,
            "the format of a raw backing file was guessed from its content",
            expected=f"a disk of {before} sectors with the word kept",
            observed=f"a disk of {after} sectors with {word}",
        )
    tell(f"the guest still has {after} sectors, and reads what it wrote")


def _forge(image: Path) -> None:
    """Write the header of a qcow2 image of 64 MiB over the beginning of a raw one."""
    forged = image.with_name("forged")
    qemu_img_create(forged, size_kib=64 << 10)
    content = forged.read_bytes()
    forged.unlink()
    with image.open("r+b") as file:
        file.write(content[: image.stat().st_size])


@contextlib.contextmanager
def _held(image: Path) -> Iterator[None]:
    """Read an image in another process, whose lock lets nobody else write to it (QEMU's image locking)."""
    path = str(image).replace(",", ",,")
    command = ["qemu-io", "-r", "--image-opts", f"driver=qcow2,file.driver=file,file.filename={path}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(b"length\n")
            process.stdin.flush()
            if not process.stdout.readline():
                raise HarnessError(f"qemu-io cannot read {image}")
            yield
        finally:
            process.kill()


@pytest.mark.clauses("XLS-DELETE-015")
def test_a_merge_that_fails_loses_nothing(new_scenario: NewScenario, need: Need, tell: Tell) -> None:
    """Somebody reads the image into which another would be merged, so that it cannot be written to."""
    for capability in ("memory", "external", "delete", "revert"):
        need(capability)
    clauses = ("XLS-DELETE-015",)
    scenario = new_scenario(DomainOf())
    domain = scenario.domain
    for name in ("one", "two"):
        scenario.play(do.Set(key="a", value=name))
        scenario.play(do.Write(vdev="hda", lba=1, word=name))
        scenario.play(do.Create(name=name, type="external"))
    scenario.play(do.Write(vdev="hda", lba=2, word="now"))
    domain.flush_before(do.Check())
    upper = Path(domain.chains.places["two", "hda"].path)
    step, old = do.Delete(name="one"), scenario.world
    new = model.apply(old, step).after
    with _held(domain.image("hda")):
        domain.reconnect()
        try:
            scenario.subject.call(p.SnapshotDelete(domain=domain.name, name="one"))
            answer, worlds = "done", [new]
        except ImplementationError as error:
            answer, worlds = str(error), [old, new]
        scenario.settle(worlds, clauses, "an image could not be merged in a delete", step=step)
    what = "kept" if upper.exists() else "merged all the same"
    scenario.play(do.Revert(name="two"), also=clauses)
    scenario.play(do.Create(name="three", type="external"), also=clauses)
    scenario.play(do.Delete(name="two"), also=clauses)
    scenario.finish()
    tell(f"{answer}; the upper image was {what}")
