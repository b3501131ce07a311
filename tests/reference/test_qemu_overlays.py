# SPDX-License-Identifier: LGPL-2.1-or-later
"""Overlays, merges and live memory images on real QEMU, through the host alone: no plan, no journal."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from xlsnap.chain import with_images
from xlsnap.domain import DomainConfig, DomainRecord, Overlay, RunState
from xlsnap.errors import HostError, InputError, NameTakenError, QmpError
from xlsnap.layout import StateRoot
from xlsnap.qemu import QemuHost, background, process
from xlsnap.qemu.command_line import command_line
from xlsnap.qemu.graph import read_graph, root_node
from xlsnap.qemu.monitor import Monitor
from xlsnap.qemu.nodes import image_node, node_name
from xlsnap.qemu.process import ProcessPaths, living_pid
from xlsnap.qemu.qcow2 import read_header
from xlsnap.steps import DiskImage, OverlaidDisk, TaggedImage
from xlsnap_conformance import guest
from xlsnap_grammars import DiskSpec

T = TypeVar("T")

UUID = "5f1c0b5a-0000-4000-8000-00000000abcd"
VDEV = "hda"


def qemu_img(*arguments: str) -> str:
    return subprocess.run(["qemu-img", *arguments], check=True, capture_output=True, text=True).stdout


def info(path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(qemu_img("info", "-U", "-f", "qcow2", "--output=json", path))
    return found


def tags(path: str) -> list[str]:
    return [item["name"] for item in info(path).get("snapshots", [])]


def fill(path: str, mebibytes: int, pattern: int = 7) -> None:
    command = f"write -P {pattern} 0 {mebibytes}M"
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", command, path], check=True, capture_output=True)


class Lab:
    """A host with one domain of one disk `hda`, whose record is kept here as the toolstack would."""

    def __init__(self, directory: Path, *, base_format: str = "qcow2", size: str = "1M") -> None:
        self.directory = directory
        self.runner = asyncio.Runner()
        self.root = StateRoot.at(directory / "root")
        self.host = QemuHost(self.root, accelerator="tcg", keep_connections=True)
        self.base = DiskImage(VDEV, self.at(f"base.{base_format}"), base_format)
        qemu_img("create", "-q", "-f", base_format, self.base.path, size)
        disk = DiskSpec(target=self.base.path, format=base_format, vdev=VDEV, readwrite=True)
        rom = str(guest.image("rom"))
        config = DomainConfig(name="d1", memory_mib=1, bios=rom, disks=(disk,))
        self.record = DomainRecord(uuid=UUID, name="d1", config=config)

    def at(self, name: str) -> str:
        return str(self.directory / name)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def change(self, **fields: Any) -> None:
        self.record = msgspec.structs.replace(self.record, **fields)

    @property
    def paths(self) -> ProcessPaths:
        return ProcessPaths(self.root.domain(UUID).directory / f"process-{self.record.process}")

    @property
    def image(self) -> DiskImage:
        """The disk's present image, as the record has it."""
        (disk,) = self.record.config.disks
        return DiskImage(VDEV, str(disk.target), str(disk.format))

    def monitor(self) -> Monitor:
        return self.run(self.host._monitor(self.record))

    def live_root(self) -> str:
        return self.run(root_node(self.monitor(), VDEV))

    def nodes(self) -> set[str]:
        """Return the named nodes of images that QEMU has open."""
        names = self.run(read_graph(self.monitor())).nodes
        return {name for name in names if name.startswith(VDEV) and not name.endswith("-file")}

    # --- what the toolstack does ------------------------------------------------------------------------

    def start(self, *, paused: bool = False) -> None:
        started = self.run(self.host.start(self.record, self.record.config, paused=paused))
        self.change(process=started.process, accelerator=started.accelerator)

    def stop(self) -> None:
        self.run(self.host.stop(self.record))

    def make(self, path: str, over: DiskImage) -> DiskImage:
        """Make an overlay and note it."""
        overlay = Overlay(path, over.path, over.format)
        self.run(self.host.create_overlays([overlay]))
        self.change(overlays=(*self.record.overlays, overlay))
        return DiskImage(VDEV, path, "qcow2")

    def go_on(self, image: DiskImage) -> None:
        """Note another present image."""
        self.change(config=with_images(self.record.config, {VDEV: image}))

    def grow(self, name: str) -> DiskImage:
        """Take an external snapshot of the running domain."""
        overlay = self.make(self.at(name), self.image)
        item = OverlaidDisk(self.image, overlay.path)
        self.run(self.host.take_disk_snapshots(self.record, "s", [], [item]))
        self.go_on(overlay)
        return overlay

    def grow_stopped(self, depth: int) -> list[DiskImage]:
        """Put overlays over the stopped domain's image."""
        made = []
        for number in range(depth):
            made.append(self.make(self.at(f"o{number}.qcow2"), self.image))
            self.go_on(made[-1])
        return made

    def copy(self, top: DiskImage, base: DiskImage, *, active: bool) -> None:
        self.run(self.host.copy_down(self.record, top, base, active=active))

    def merge(self, top: DiskImage, base: DiskImage) -> None:
        """Merge the present image, as a deletion does."""
        self.copy(top, base, active=True)
        if self.host.is_active(self.record):
            self.run(self.host.pause(self.record))
        self.run(self.host.switch_down(self.record, top, base))
        self.forget(top)
        self.go_on(base)
        if self.host.is_active(self.record):
            self.run(self.host.resume(self.record))

    def merge_below(self, top: DiskImage, base: DiskImage, *over: DiskImage) -> None:
        """Merge an image that is not the present one; `over` are all that lie over it."""
        self.copy(top, base, active=False)
        for overlay in over:
            self.run(self.host.lay_over(self.record, overlay.path, base))
        self.forget(top)
        paths = {overlay.path for overlay in over}
        self.change(
            overlays=tuple(
                Overlay(item.path, base.path, base.format) if item.path in paths else item
                for item in self.record.overlays
            )
        )

    def forget(self, image: DiskImage) -> None:
        os.unlink(image.path)
        self.change(overlays=tuple(item for item in self.record.overlays if item.path != image.path))

    # --- what is to be seen -----------------------------------------------------------------------------

    def probe(self) -> guest.Probe:
        return guest.Probe(self.host.console(self.record))

    def write(self, lba: int, word: str) -> None:
        with self.probe() as probe:
            probe.write(0, lba, word)

    def read(self, *sectors: int) -> list[str | None]:
        with self.probe() as probe:
            return [probe.read(0, lba) for lba in sectors]

    def state(self) -> RunState | None:
        return self.run(self.host.run_state(self.record))

    def files(self) -> set[str]:
        return {path.name for path in self.directory.iterdir() if path.is_file()}

    def close(self) -> None:
        for path in self.root.domains.glob("*/process-*"):
            pid = living_pid(ProcessPaths(path))
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
        self.run(self.host.close())
        self.runner.close()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    try:
        yield lab
    finally:
        lab.close()


@pytest.fixture
def raw_lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path, base_format="raw")
    try:
        yield lab
    finally:
        lab.close()


def check(*images: DiskImage) -> None:
    for image in images:
        if image.format == "qcow2":
            qemu_img("check", "-q", "-f", "qcow2", image.path)


# --- making overlays ------------------------------------------------------------------------------------


def test_an_overlay_names_its_backing_file_and_format_and_is_private(lab: Lab) -> None:
    overlay = lab.make(lab.at("o.qcow2"), lab.base)
    found = info(overlay.path)
    assert found["backing-filename"] == lab.base.path
    assert found["backing-filename-format"] == "qcow2"
    assert found["virtual-size"] == 1 << 20
    assert stat.S_IMODE(os.stat(overlay.path).st_mode) == 0o600


def test_an_overlay_over_a_raw_image_has_its_size(raw_lab: Lab) -> None:
    os.truncate(raw_lab.base.path, 1_000_001)
    overlay = raw_lab.make(raw_lab.at("o.qcow2"), raw_lab.base)
    found = info(overlay.path)
    assert found["virtual-size"] == 1_000_448  # in whole sectors
    assert found["backing-filename-format"] == "raw"


def test_nothing_below_the_backing_file_is_opened(lab: Lab) -> None:
    """So that the cost of an overlay does not depend on the depth of its chain."""
    middle = lab.make(lab.at("middle.qcow2"), lab.base)
    os.unlink(lab.base.path)
    assert info(lab.make(lab.at("o.qcow2"), middle).path)["virtual-size"] == 1 << 20


@pytest.mark.parametrize("taken", ["file", "link", "dangling"])
def test_what_is_at_a_path_stays_and_nothing_else_is_left(lab: Lab, taken: str) -> None:
    path = Path(lab.at("taken.qcow2"))
    if taken == "file":
        path.write_text("precious")
    else:
        path.symlink_to(lab.base.path if taken == "link" else lab.at("nothing"))
    before = (lab.files(), Path(lab.base.path).read_bytes(), os.lstat(path))
    overlays = [
        Overlay(lab.at("new.qcow2"), lab.base.path, "qcow2"),
        Overlay(str(path), lab.base.path, "qcow2"),
    ]
    with pytest.raises(InputError, match=r"taken\.qcow2 exists"):
        lab.run(lab.host.create_overlays(overlays))
    after = (lab.files(), Path(lab.base.path).read_bytes(), os.lstat(path))
    assert after[:2] == before[:2]
    assert after[2].st_ino == before[2].st_ino


def test_overlays_that_cannot_be_made_leave_nothing(lab: Lab) -> None:
    before = lab.files()
    overlays = [
        Overlay(lab.at("new.qcow2"), lab.base.path, "qcow2"),
        Overlay(lab.at("other.qcow2"), lab.at("missing"), "qcow2"),
    ]
    with pytest.raises(HostError, match="missing"):
        lab.run(lab.host.create_overlays(overlays))
    assert lab.files() == before
    with pytest.raises(HostError, match="No such file"):
        lab.run(lab.host.create_overlays([Overlay(lab.at("no/where"), lab.base.path, "qcow2")]))


def test_headers_are_read_as_qemu_reads_them(lab: Lab) -> None:
    for name in ("a", "7", "name with ümläuts and some length"):
        qemu_img("snapshot", "-c", name, lab.base.path)
    overlay = lab.make(lab.at("o.qcow2"), lab.base)
    seen = [(tag["id"], tag["name"], tag["date-sec"]) for tag in info(lab.base.path)["snapshots"]]
    header = read_header(lab.base)
    assert [(tag.id, tag.name, tag.date_ns // 10**9) for tag in header.tags] == seen
    assert header.backing is None
    assert read_header(overlay).backing == lab.base.path
    Path(overlay.path).write_text("no image")
    with pytest.raises(HostError, match="not a qcow2 image"):
        read_header(overlay)


# --- chains ---------------------------------------------------------------------------------------------


def test_each_image_of_a_chain_is_a_node_named_after_its_path(lab: Lab) -> None:
    images = [lab.base, *lab.grow_stopped(2)]
    lab.start()
    live = lab.grow("live.qcow2")
    images.append(live)
    assert lab.nodes() == {image_node(image) for image in images}
    assert lab.live_root() == node_name(VDEV, live.path)
    assert all(len(image_node(image) + "-file") <= 31 for image in images)
    graph = lab.run(read_graph(lab.monitor()))
    assert [graph.backing.get(image_node(image)) for image in images] == [
        None,
        *map(image_node, images[:-1]),
    ]


def test_what_a_header_says_of_our_images_does_not_matter(lab: Lab) -> None:
    other = DiskImage(VDEV, lab.at("other.qcow2"), "qcow2")
    qemu_img("create", "-q", "-f", "qcow2", other.path, "1M")
    (overlay,) = lab.grow_stopped(1)
    lab.start()
    lab.write(1, "kept")
    lab.stop()
    qemu_img("rebase", "-u", "-f", "qcow2", "-b", other.path, "-F", "qcow2", overlay.path)
    lab.start()
    assert lab.nodes() == {image_node(lab.base), image_node(overlay)}


def test_a_chain_of_two_hundred(lab: Lab) -> None:
    lab.start()
    lab.write(0, "base")
    lab.stop()
    images = lab.grow_stopped(200)
    lab.start()
    assert lab.read(0) == ["base"]
    lab.write(1, "top")
    top = lab.grow("more.qcow2")
    assert lab.read(0, 1) == ["base", "top"]
    lab.merge(top, images[-1])
    lab.merge_below(images[100], images[99], images[101])
    assert lab.read(0, 1) == ["base", "top"]


# --- taking snapshots -----------------------------------------------------------------------------------


def test_the_base_stays_as_it_was(raw_lab: Lab) -> None:
    lab = raw_lab
    lab.start()
    lab.write(1, "before")
    lab.run(lab.host.pause(lab.record))
    lab.run(lab.host.resume(lab.record))
    overlay = lab.grow("o.qcow2")
    base = Path(lab.base.path).read_bytes()
    lab.write(1, "after")
    assert lab.read(1) == ["after"]
    lab.stop()
    assert Path(lab.base.path).read_bytes() == base
    check(overlay)


def test_internal_and_external_snapshots_are_taken_together_or_not_at_all(lab: Lab) -> None:
    second = DiskImage("xvdb", lab.at("second.qcow2"), "qcow2")
    qemu_img("create", "-q", "-f", "qcow2", second.path, "1M")
    disk = DiskSpec(target=second.path, format="qcow2", vdev="xvdb", readwrite=True)
    lab.change(config=msgspec.structs.replace(lab.record.config, disks=(*lab.record.config.disks, disk)))
    lab.start()
    overlay = lab.make(lab.at("o.qcow2"), lab.base)
    item = OverlaidDisk(lab.base, overlay.path)
    lab.run(lab.host.take_disk_snapshots(lab.record, "first", [second], []))
    for _ in range(2):  # a failure leaves nothing that would be in the way
        with pytest.raises(NameTakenError, match="xvdb"):
            lab.run(lab.host.take_disk_snapshots(lab.record, "first", [second], [item]))
        assert lab.live_root() == image_node(lab.base)
        assert image_node(overlay) not in lab.nodes()
    lab.run(lab.host.take_disk_snapshots(lab.record, "mixed", [second], [item]))
    assert tags(second.path) == ["first", "mixed"]
    assert lab.live_root() == image_node(overlay)
    assert tags(lab.base.path) == []


def test_a_node_that_an_interrupted_operation_left_is_replaced(lab: Lab) -> None:
    lab.start()
    path = lab.at("o.qcow2")
    lab.make(path, lab.base)
    options = {"driver": "qcow2", "node-name": node_name(VDEV, path), "backing": None}
    left = {**options, "file": {"driver": "file", "filename": path}}
    lab.run(lab.monitor().execute("blockdev-add", left))
    os.unlink(path)
    lab.change(overlays=())
    overlay = lab.grow("o.qcow2")
    lab.write(1, "here")
    lab.stop()
    qemu_io = ["qemu-io", "-f", "qcow2", "-r", "-c", "alloc 512 512", overlay.path]
    assert "512/512" in subprocess.run(qemu_io, check=True, capture_output=True, text=True).stdout


# --- internal snapshots in chains -----------------------------------------------------------------------


def tagged(lab: Lab, image: DiskImage, name: str) -> None:
    lab.run(lab.host.take_disk_snapshots(lab.record, name, [image]))


@pytest.mark.parametrize("active", [True, False], ids=["running", "stopped"])
@pytest.mark.parametrize("where", [0, 1, 2], ids=["first", "middle", "top"])
def test_internal_snapshots_are_seen_and_dropped_anywhere_in_a_chain(
    lab: Lab, where: int, active: bool
) -> None:
    lab.start()
    images = [lab.base]
    for number in range(3):
        tagged(lab, images[-1], "7")
        tagged(lab, images[-1], "other")
        lab.write(number, f"w{number}")
        if number < 2:
            images.append(lab.grow(f"o{number}.qcow2"))
    if not active:
        lab.stop()
    states = lab.run(lab.host.inspect(lab.record, images))
    assert [[tag.name for tag in state.tags] for state in states] == [["7", "other"]] * 3
    image = images[where]
    later = states[where].tags[0].date_ns + 1
    lab.run(lab.host.drop_disk_snapshots(lab.record, "7", [image], since_ns=later))
    assert tags(image.path) == ["7", "other"]
    lab.run(lab.host.drop_disk_snapshots(lab.record, "7", [image]))
    lab.run(lab.host.drop_disk_snapshots(lab.record, "7", [image]))
    assert [tags(item.path) for item in images] == [
        ["other"] if item == image else ["7", "other"] for item in images
    ]
    if not active:
        lab.start()
    assert lab.read(0, 1, 2) == ["w0", "w1", "w2"]
    assert lab.nodes() == {image_node(item) for item in images}
    lab.stop()
    check(*images)


def test_an_internal_snapshot_of_an_image_that_lies_over_an_image_of_the_user(lab: Lab) -> None:
    """What the user's first image lies over has no name of ours, and stays where it is."""
    lower = lab.at("lower.qcow2")
    os.rename(lab.base.path, lower)
    qemu_img("create", "-q", "-f", "qcow2", "-b", lower, "-F", "qcow2", lab.base.path)
    qemu_img("snapshot", "-c", "s", lab.base.path)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 9 4096 512", lower], check=True)
    (overlay,) = lab.grow_stopped(1)
    lab.start()
    with lab.probe() as probe:
        before = probe.disk_sum(0, 8, 1)
        assert before != probe.disk_sum(0, 9, 1)
        lab.run(lab.host.drop_disk_snapshots(lab.record, "s", [lab.base]))
        assert probe.disk_sum(0, 8, 1) == before
    assert tags(lab.base.path) == []
    assert lab.live_root() == image_node(overlay)


def test_a_backing_file_is_read_only_again_after_a_snapshot_of_it_was_dropped(lab: Lab) -> None:
    lab.start()
    tagged(lab, lab.base, "s")
    lab.grow("o.qcow2")
    lab.run(lab.host.drop_disk_snapshots(lab.record, "s", [lab.base]))
    nodes = lab.run(lab.monitor().execute("query-named-block-nodes", {"flat": True}))
    (node,) = [item for item in nodes if item["node-name"] == image_node(lab.base)]
    assert node["ro"]
    with open(lab.base.path, "rb") as file, pytest.raises(subprocess.CalledProcessError):
        qemu_img("snapshot", "-c", "x", file.name)  # still locked, as a backing file is


def test_an_internal_snapshot_of_an_overlay_is_applied(lab: Lab) -> None:
    lab.start()
    lab.write(1, "base")
    overlay = lab.grow("o.qcow2")
    lab.write(2, "tagged")
    tagged(lab, overlay, "s")
    lab.write(1, "later")
    lab.write(2, "later")
    lab.stop()
    (state,) = lab.run(lab.host.inspect(lab.record, [overlay]))
    lab.run(lab.host.apply_disk_snapshots(lab.record, [TaggedImage(overlay, state.tags[0].id)]))
    check(lab.base, overlay)
    lab.start()
    assert lab.read(1, 2) == ["base", "tagged"]


# --- copies of internal snapshots -----------------------------------------------------------------------


@pytest.mark.parametrize("active", [True, False], ids=["running", "stopped"])
def test_the_copy_of_a_snapshot_has_its_state_and_stands_alone(lab: Lab, active: bool) -> None:
    lab.start()
    lab.write(1, "base")
    overlay = lab.grow("o.qcow2")
    lab.write(2, "tagged")
    tagged(lab, overlay, "s")
    lab.write(2, "later")
    lab.write(3, "later")
    if not active:
        lab.stop()
    (state,) = lab.run(lab.host.inspect(lab.record, [overlay]))
    told: list[tuple[str, int, int]] = []
    lab.host.progress = lambda *what: told.append(what)
    copy = DiskImage(VDEV, lab.at("copy.qcow2"), "qcow2")
    lab.run(lab.host.copy_snapshot(TaggedImage(overlay, state.tags[0].id), copy.path))
    assert told[-1] == ("copying a snapshot of o.qcow2", 1 << 20, 1 << 20)
    assert "backing-filename" not in info(copy.path)
    assert tags(copy.path) == []
    assert stat.S_IMODE(os.stat(copy.path).st_mode) == 0o600
    check(copy)
    lab.stop()
    lab.go_on(copy)
    lab.start()
    assert lab.read(1, 2, 3) == ["base", "tagged", None]


def test_a_copy_that_fails_leaves_nothing(lab: Lab) -> None:
    before = lab.files()
    with pytest.raises(HostError, match=r"cannot copy a snapshot of .*base\.qcow2"):
        lab.run(lab.host.copy_snapshot(TaggedImage(lab.base, "12"), lab.at("copy.qcow2")))
    assert lab.files() == before
    Path(lab.at("copy.qcow2")).write_text("precious")
    with pytest.raises(InputError, match="exists"):
        lab.run(lab.host.copy_snapshot(TaggedImage(lab.base, "12"), lab.at("copy.qcow2")))
    assert Path(lab.at("copy.qcow2")).read_text() == "precious"


# --- merging --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["running", "paused", "stopped"])
@pytest.mark.parametrize("base_format", ["qcow2", "raw"])
def test_the_present_image_is_merged_into_its_base(tmp_path: Path, base_format: str, state: str) -> None:
    lab = Lab(tmp_path, base_format=base_format)
    try:
        lab.start()
        lab.write(1, "base")
        lab.write(2, "base")
        overlay = lab.grow("o.qcow2")
        lab.write(2, "over")
        lab.write(3, "over")
        if state == "paused":
            lab.run(lab.host.pause(lab.record))
        elif state == "stopped":
            lab.stop()
        lab.merge(overlay, lab.base)
        if state == "stopped":
            lab.start()
        else:
            assert lab.live_root() == image_node(lab.base)
        assert lab.nodes() == {image_node(lab.base)}
        lab.write(4, "after")
        assert lab.read(1, 2, 3, 4) == ["base", "over", "over", "after"]
        assert lab.run(lab.monitor().execute("query-jobs")) == []
        lab.stop()
        check(lab.base)
        lab.start()
        assert lab.read(1, 2, 3, 4) == ["base", "over", "over", "after"]
    finally:
        lab.close()


@pytest.mark.parametrize("active", [True, False], ids=["running", "stopped"])
def test_an_image_in_the_middle_is_merged_and_what_lies_over_it_relaid(lab: Lab, active: bool) -> None:
    lab.start()
    lab.write(1, "base")
    middle = lab.grow("middle.qcow2")
    lab.write(2, "middle")
    upper = lab.grow("upper.qcow2")
    lab.write(3, "upper")
    branch = lab.make(lab.at("branch.qcow2"), middle)
    if not active:
        lab.stop()
    lab.merge_below(middle, lab.base, upper, branch)
    for overlay in (upper, branch):
        found = info(overlay.path)
        assert found["backing-filename"] == lab.base.path
        assert found["backing-filename-format"] == "qcow2"
    if not active:
        lab.start()
    assert lab.nodes() == {image_node(lab.base), image_node(upper)}
    assert lab.read(1, 2, 3) == ["base", "middle", "upper"]
    lab.write(4, "after")
    lab.stop()
    check(lab.base, upper, branch)
    lab.go_on(branch)
    lab.start()
    assert lab.read(1, 2, 3, 4) == ["base", "middle", None, None]


def test_a_branch_that_the_running_domain_has_not_open_is_merged(lab: Lab) -> None:
    """Image names in its base are those of another branch than the domain's."""
    lab.start()
    lab.write(1, "base")
    first = lab.grow("first.qcow2")
    lab.write(2, "first")
    second = lab.grow("second.qcow2")
    lab.write(3, "second")
    lab.stop()
    other = DiskImage(VDEV, lab.at("other.qcow2"), "qcow2")
    qemu_img("create", "-q", "-f", "qcow2", other.path, "1M")
    lab.go_on(other)
    lab.start()
    lab.merge_below(first, lab.base, second)
    assert lab.nodes() == {image_node(other)}
    lab.stop()
    lab.go_on(second)
    lab.start()
    assert lab.read(1, 2, 3) == ["base", "first", "second"]


@pytest.mark.parametrize("active", [True, False], ids=["running", "stopped"])
def test_paths_that_look_like_protocols_and_options(tmp_path: Path, active: bool) -> None:
    directory = tmp_path / "a:b,c=d"
    directory.mkdir()
    lab = Lab(directory)
    try:
        qemu_img("snapshot", "-c", "s", lab.base.path)
        lab.start()
        lab.write(1, "base")
        middle = lab.grow("nbd:middle,x.qcow2")
        lab.write(2, "middle")
        upper = lab.grow("json:{upper}%d.qcow2")
        lab.write(3, "upper")
        tagged(lab, upper, "s")
        if not active:
            lab.stop()
        lab.run(lab.host.drop_disk_snapshots(lab.record, "s", [lab.base, upper]))
        assert tags(lab.base.path) == tags(upper.path) == []
        lab.merge_below(middle, lab.base, upper)
        assert info(upper.path)["backing-filename"] == lab.base.path
        lab.merge(upper, lab.base)
        if not active:
            lab.start()
        assert lab.read(1, 2, 3) == ["base", "middle", "upper"]
        assert lab.files() == {Path(lab.base.path).name}
    finally:
        lab.close()


def test_what_the_guest_writes_while_copying_is_not_lost(tmp_path: Path) -> None:
    lab = Lab(tmp_path, size="64M")
    try:
        lab.start()
        overlay = lab.grow("o.qcow2")
        lab.stop()
        fill(overlay.path, 64)
        lab.start()
        told: list[tuple[str, int, int]] = []
        lab.host.progress = lambda *what: told.append(what)
        with lab.probe() as probe:
            probe.count(0, 5)
            lab.copy(overlay, lab.base, active=True)
            assert probe.counted() > 0
        lab.merge(overlay, lab.base)
        assert {text for text, _, _ in told} == {"merging o.qcow2 into base.qcow2"}
        assert all(0 <= done <= total for _, done, total in told)
        assert told[-1][1] >= 64 << 20
        with lab.probe() as probe:
            count = probe.stop()
        lab.stop()
        check(lab.base)
        lab.start()
        assert lab.read(5) == [str(count)]
    finally:
        lab.close()


# --- merging, repeated after a crash --------------------------------------------------------------------


def other_host(lab: Lab) -> None:
    """Go on as another toolstack, which knows only the record."""
    lab.run(lab.host.close())
    lab.host = QemuHost(lab.root, accelerator="tcg")


def test_the_job_of_a_toolstack_that_was_killed_is_taken_over(lab: Lab) -> None:
    lab.start()
    overlay = lab.grow("o.qcow2")
    lab.write(1, "over")
    lab.copy(overlay, lab.base, active=True)
    (job,) = lab.run(lab.monitor().execute("query-jobs"))
    assert job["status"] == "ready"
    other_host(lab)
    lab.copy(overlay, lab.base, active=True)
    assert [item["id"] for item in lab.run(lab.monitor().execute("query-jobs"))] == [job["id"]]
    lab.run(lab.host.pause(lab.record))
    for _ in range(2):
        lab.run(lab.host.switch_down(lab.record, overlay, lab.base))
        assert lab.nodes() == {image_node(lab.base)}
        assert lab.run(lab.monitor().execute("query-jobs")) == []
        other_host(lab)
    lab.copy(overlay, lab.base, active=True)  # nothing is left to copy
    lab.go_on(lab.base)
    lab.run(lab.host.resume(lab.record))
    assert lab.read(1) == ["over"]


def test_a_switch_without_a_copy_before_copies(lab: Lab) -> None:
    lab.start()
    overlay = lab.grow("o.qcow2")
    lab.write(1, "over")
    lab.run(lab.host.pause(lab.record))
    lab.run(lab.host.switch_down(lab.record, overlay, lab.base))
    lab.forget(overlay)
    lab.go_on(lab.base)
    lab.run(lab.host.resume(lab.record))
    assert lab.read(1) == ["over"]


def test_a_domain_that_ends_between_copy_and_switch_loses_nothing(lab: Lab) -> None:
    lab.start()
    overlay = lab.grow("o.qcow2")
    lab.write(1, "one")
    lab.copy(overlay, lab.base, active=True)
    lab.write(2, "two")
    with lab.probe() as probe:
        probe.flush()
    lab.stop()
    lab.run(lab.host.switch_down(lab.record, overlay, lab.base))
    lab.forget(overlay)
    lab.go_on(lab.base)
    check(lab.base)
    lab.start()
    assert lab.read(1, 2) == ["one", "two"]


def test_copying_can_be_ended_and_begun_again(lab: Lab) -> None:
    lab.start()
    overlay = lab.grow("o.qcow2")
    lab.write(1, "over")
    lab.run(lab.host.stop_copying_down(lab.record, overlay, lab.base))
    lab.copy(overlay, lab.base, active=True)
    for _ in range(2):
        lab.run(lab.host.stop_copying_down(lab.record, overlay, lab.base))
        assert lab.live_root() == image_node(overlay)
        assert lab.run(lab.monitor().execute("query-jobs")) == []
    lab.write(1, "still")
    assert lab.read(1) == ["still"]
    lab.merge(overlay, lab.base)
    assert lab.read(1) == ["still"]


def test_a_merge_in_the_middle_can_be_repeated(lab: Lab) -> None:
    lab.start()
    middle = lab.grow("middle.qcow2")
    lab.write(2, "middle")
    upper = lab.grow("upper.qcow2")
    for _ in range(2):
        lab.copy(middle, lab.base, active=False)
        assert lab.nodes() == {image_node(lab.base), image_node(upper)}
        assert lab.run(lab.monitor().execute("query-jobs")) == []
        other_host(lab)
    assert lab.read(2) == ["middle"]


def test_a_merge_in_the_middle_that_nobody_has_seen_the_end_of(lab: Lab) -> None:
    """The toolstack was killed when the job had come to its end, or when it was forgotten."""
    lab.start()
    middle = lab.grow("middle.qcow2")
    lab.write(2, "middle")
    upper = lab.grow("upper.qcow2")

    async def begin() -> None:
        from xlsnap.qemu.jobs import wait_for_job
        from xlsnap.qemu.merging import LiveMerge

        merge = LiveMerge(await lab.host._monitor(lab.record), middle, lab.base)
        await merge._begin(await merge._root())
        await wait_for_job(merge._monitor, merge._job)

    lab.run(begin())
    lab.copy(middle, lab.base, active=False)
    assert lab.nodes() == {image_node(lab.base), image_node(upper)}
    assert lab.run(lab.monitor().execute("query-jobs")) == []
    assert lab.read(2) == ["middle"]


def test_an_overlay_that_was_never_taken_is_let_go(lab: Lab) -> None:
    """As when a snapshot is taken back that was interrupted before its transaction."""
    lab.start()
    overlay = lab.make(lab.at("o.qcow2"), lab.base)
    options = {"driver": "qcow2", "node-name": image_node(overlay), "backing": None}
    left = {**options, "file": {"driver": "file", "filename": overlay.path}}
    lab.run(lab.monitor().execute("blockdev-add", left))
    lab.go_on(overlay)
    lab.copy(overlay, lab.base, active=True)
    lab.run(lab.host.pause(lab.record))
    lab.run(lab.host.switch_down(lab.record, overlay, lab.base))
    assert lab.nodes() == {image_node(lab.base)}


# --- merging that fails ---------------------------------------------------------------------------------


def full_disk(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Let QEMU find no space when it allocates a cluster in an image."""

    def broken(*args: Any, **kwargs: Any) -> list[str]:
        arguments = command_line(*args, **kwargs)
        for index, item in enumerate(arguments):
            if arguments[index - 1] != "-blockdev":
                continue
            node = json.loads(item)
            if node["file"]["filename"] == path:
                error = {"event": "write_aio", "errno": 28, "once": False}
                node["file"] = {"driver": "blkdebug", "image": node["file"], "inject-error": [error]}
                arguments[index] = json.dumps(node)
        return arguments

    monkeypatch.setattr(process, "command_line", broken)


@pytest.mark.parametrize("active", [True, False], ids=["top", "middle"])
def test_a_merge_without_space_leaves_the_domain_as_it_was(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, active: bool
) -> None:
    lab.start()
    lab.write(1, "base")
    top = lab.grow("o.qcow2")
    lab.write(2, "over")
    if not active:
        lab.grow("upper.qcow2")
    lab.stop()
    full_disk(monkeypatch, lab.base.path)
    lab.start()
    root, nodes = lab.live_root(), lab.nodes()
    for _ in range(2):
        with pytest.raises(HostError, match=r"cannot merge .*o\.qcow2 into .*: No space left on device"):
            lab.copy(top, lab.base, active=active)
        assert lab.state() is RunState.RUNNING
        assert (lab.live_root(), lab.nodes()) == (root, nodes)
        assert lab.run(lab.monitor().execute("query-jobs")) == []
        lab.run(lab.host.stop_copying_down(lab.record, top, lab.base))
    lab.write(3, "after")
    assert lab.read(1, 2, 3) == ["base", "over", "after"]
    lab.stop()
    check(lab.base, top)
    monkeypatch.undo()
    lab.start()
    assert lab.read(1, 2, 3) == ["base", "over", "after"]


def test_a_merge_into_an_image_that_somebody_else_has_open_is_refused(lab: Lab) -> None:
    (overlay,) = lab.grow_stopped(1)
    fill(overlay.path, 1)
    with subprocess.Popen(
        ["qemu-io", "-f", "qcow2", lab.base.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(b"length\n")
        holder.stdin.flush()
        holder.stdout.readline()
        with pytest.raises(HostError, match=r"cannot merge .* another process"):
            lab.merge(overlay, lab.base)
        holder.communicate(b"quit\n")
    lab.merge(overlay, lab.base)
    check(lab.base)


def test_a_job_that_stands_still_is_given_up(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from xlsnap.qemu import jobs
    from xlsnap.qemu.merging import LiveMerge

    monkeypatch.setattr(jobs, "STILL_SECONDS", 0.05)
    lab.start()
    overlay = lab.grow("o.qcow2")

    async def wait() -> None:
        merge = LiveMerge(await lab.host._monitor(lab.record), overlay, lab.base)
        await merge.copy_active()
        await jobs.wait_for_job(merge._monitor, merge._job)  # which never ends by itself

    with pytest.raises(HostError, match=r"made no progress for 0\.05 s"):
        lab.run(wait())


# --- memory ---------------------------------------------------------------------------------------------


def save(lab: Lab, name: str, *, live: bool) -> str:
    path = lab.at(name)
    lab.run(lab.host.pause(lab.record))
    lab.run(lab.host.save_memory(lab.record, path, live=live))
    return path


def revert(lab: Lab, memory: str, *, paused: bool = False) -> None:
    lab.run(lab.host.load_successor(lab.record, lab.record.config, memory))
    lab.run(lab.host.stop(lab.record))
    started = lab.run(lab.host.promote_successor(lab.record, lab.record.config, memory, paused=paused))
    lab.change(process=started.process)


needs_live = pytest.mark.skipif(background.live_problem() is not None, reason=str(background.live_problem()))


@needs_live
def test_a_live_memory_image_is_of_the_instant_of_the_pause(lab: Lab) -> None:
    lab.start()
    with lab.probe() as probe:
        probe.memory_fill(1)
        probe.set("word", "then")
        before = probe.memory_sum()
        memory = save(lab, "live.save", live=True)
        assert lab.state() is RunState.RUNNING
        probe.set("word", "now")
        probe.memory_fill(2)
        assert probe.memory_sum() != before
    lab.write(1, "disks-are-ours")
    for _ in range(2):  # also of a domain that was loaded itself
        revert(lab, memory)
        with lab.probe() as probe:
            assert probe.get("word") == "then"
            assert probe.memory_sum() == before
            probe.set("word", "again")
        second = save(lab, "second.save", live=True)
        assert lab.state() is RunState.RUNNING
        revert(lab, second)
        with lab.probe() as probe:
            assert probe.get("word") == "again"
        os.unlink(second)
    plain = save(lab, "plain.save", live=False)
    assert lab.state() is RunState.PAUSED  # what live meant is over
    revert(lab, plain)


@needs_live
def test_a_live_memory_image_without_space_is_given_up_before_the_guest_runs(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later would be too late: QEMU 7.2 can hang when it cannot write while the guest runs."""
    lab.start()
    lab.run(lab.host.pause(lab.record))
    monkeypatch.setattr(background, "_STREAM_OVERHEAD", (1 << 63) - 1 - (1 << 20) - (1 << 12))
    with pytest.raises(HostError, match=r"cannot write memory image .*live\.save: File too large"):
        lab.run(lab.host.save_memory(lab.record, lab.at("live.save"), live=True))
    assert lab.files() == {"base.qcow2"}
    assert lab.state() is RunState.PAUSED
    lab.run(lab.host.resume(lab.record))
    lab.write(1, "on")
    memory = save(lab, "plain.save", live=False)
    assert lab.state() is RunState.PAUSED
    revert(lab, memory)
    assert lab.read(1) == ["on"]


@needs_live
def test_a_live_memory_image_takes_no_more_space_than_it_has_bytes(lab: Lab) -> None:
    lab.start()
    status = os.stat(save(lab, "live.save", live=True))
    assert status.st_blocks * 512 < status.st_size + (1 << 16)


@needs_live
def test_nothing_is_left_in_qemu_of_preparations_for_a_live_snapshot_that_is_not_taken(lab: Lab) -> None:
    lab.start()
    overlay = lab.make(lab.at("o.qcow2"), lab.base)
    item = OverlaidDisk(lab.base, overlay.path)
    memory = lab.at("live.save")
    before = lab.nodes()

    def open_in_qemu() -> list[str]:
        pid = living_pid(lab.paths)
        return [name for fd in Path(f"/proc/{pid}/fd").iterdir() if (name := os.readlink(fd)) == memory]

    other_host(lab)  # a file that was passed on belongs to the monitor: this one is the same for all programs
    for other in (False, True):  # dropped by who prepared it, or after its death
        lab.run(lab.host.prepare_live(lab.record, memory, [item]))
        assert lab.nodes() == {*before, image_node(overlay)}
        assert open_in_qemu()
        assert lab.state() is RunState.RUNNING
        if other:
            other_host(lab)
        lab.run(lab.host.drop_preparations(lab.record, memory, [item]))
        assert lab.nodes() == before
        assert not open_in_qemu()
        os.unlink(memory)


@needs_live
def test_a_live_snapshot_goes_on_with_what_was_prepared(lab: Lab) -> None:
    lab.start()
    overlay = lab.make(lab.at("o.qcow2"), lab.base)
    item = OverlaidDisk(lab.base, overlay.path)
    memory = lab.at("live.save")
    lab.run(lab.host.prepare_live(lab.record, memory, [item]))
    lab.write(1, "before")  # is part of it: the guest still runs
    lab.run(lab.host.pause(lab.record))
    lab.run(lab.host.take_disk_snapshots(lab.record, "s", [], [item]))
    lab.run(lab.host.save_memory(lab.record, memory, live=True))
    lab.go_on(overlay)
    assert lab.state() is RunState.RUNNING
    lab.write(2, "after")
    assert lab.read(1, 2) == ["before", "after"]
    assert lab.live_root() == image_node(overlay)
    lab.stop()
    lab.go_on(lab.base)
    lab.start()
    first, second = lab.read(1, 2)
    assert first == "before"
    assert second != "after"


@needs_live
def test_a_migration_that_a_killed_toolstack_left_is_waited_for(lab: Lab) -> None:
    lab.start()
    lab.run(lab.host.pause(lab.record))
    fd = os.open(lab.at("left.save"), os.O_RDWR | os.O_CREAT, 0o600)

    async def leave() -> None:
        monitor = await lab.host._monitor(lab.record)
        wanted = [{"capability": "background-snapshot", "state": True}]
        await monitor.execute("migrate-set-capabilities", {"capabilities": wanted})
        await monitor.execute("migrate-set-parameters", {"max-bandwidth": 1 << 20})
        await monitor.pass_fd("memory", fd)
        await monitor.execute("migrate", {"uri": "fd:memory"})

    lab.run(leave())
    os.close(fd)
    other_host(lab)
    assert lab.run(lab.host.attach(lab.record)) is not None
    memory = save(lab, "plain.save", live=False)
    assert lab.state() is RunState.PAUSED
    revert(lab, memory)


def test_what_a_machine_lacks_for_live_memory_images_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert background.live_problem() is None or "userfaultfd" in str(background.live_problem())
    assert background._refusal(1) == (
        "userfaultfd is for root only, unless /proc/sys/vm/unprivileged_userfaultfd is 1"
    )
    monkeypatch.setattr(background, "_SYSCALLS", {})
    assert background.live_problem() is None


# --- disks that a process has given up ------------------------------------------------------------------


@pytest.mark.parametrize("paused", [True, False], ids=["paused", "running"])
def test_a_successor_takes_the_whole_chain(lab: Lab, paused: bool) -> None:
    lab.start()
    tagged(lab, lab.base, "s")
    lab.write(1, "base")
    middle = lab.grow("middle.qcow2")
    lab.write(2, "middle")
    upper = lab.grow("upper.qcow2")
    memory = save(lab, "memory.save", live=False)
    lab.run(lab.host.resume(lab.record))
    revert(lab, memory, paused=paused)
    lab.run(lab.host.drop_disk_snapshots(lab.record, "s", [lab.base]))
    lab.merge_below(middle, lab.base, upper)
    lab.merge(upper, lab.base)
    assert lab.read(1, 2) == ["base", "middle"]
    lab.stop()
    check(lab.base)


@pytest.mark.parametrize("what", ["overlay", "drop", "below", "merge"])
def test_a_process_that_gave_its_disks_up_takes_them_back_first(lab: Lab, what: str) -> None:
    lab.start()
    tagged(lab, lab.base, "s")
    lab.write(1, "base")
    middle = lab.grow("middle.qcow2")
    lab.write(2, "middle")
    upper = lab.grow("upper.qcow2")
    lab.write(3, "upper")
    save(lab, "memory.save", live=False)
    other_host(lab)
    assert lab.run(lab.host.attach(lab.record)) is RunState.PAUSED
    if what == "overlay":
        lab.grow("more.qcow2")
    elif what == "drop":
        lab.run(lab.host.drop_disk_snapshots(lab.record, "s", [lab.base]))
        assert tags(lab.base.path) == []
    elif what == "below":
        lab.merge_below(middle, lab.base, upper)
    else:
        lab.merge(upper, middle)
    lab.run(lab.host.resume(lab.record))
    assert lab.read(1, 2, 3) == ["base", "middle", "upper"]
    lab.write(4, "on")
    assert lab.read(4) == ["on"]


# --- looking --------------------------------------------------------------------------------------------


def test_images_of_an_active_chain_are_examined_without_a_lock(lab: Lab) -> None:
    lab.start()
    tagged(lab, lab.base, "s")
    overlay = lab.grow("o.qcow2")
    facts = lab.run(lab.host.examine(lab.record, [lab.base, overlay]))
    assert [(item.problem, item.damage, item.tags, item.backing) for item in facts] == [
        (None, None, ("s",), None),
        (None, None, (), lab.base.path),
    ]


def test_an_image_that_cannot_be_read_is_a_problem(lab: Lab) -> None:
    missing = DiskImage(VDEV, lab.at("missing.qcow2"), "qcow2")
    (state,) = lab.run(lab.host.inspect(lab.record, [missing]))
    assert state.problem == f"{missing.path}: No such file or directory"
    lab.run(lab.host.drop_disk_snapshots(lab.record, "s", [missing]))
    os.mkfifo(missing.path)
    (state,) = lab.run(lab.host.inspect(lab.record, [missing]))
    assert state.problem is not None


def test_stopping_a_domain_ends_its_jobs(lab: Lab) -> None:
    lab.start()
    overlay = lab.grow("o.qcow2")
    lab.write(1, "over")
    lab.copy(overlay, lab.base, active=True)
    lab.stop()
    check(lab.base, overlay)
    lab.start()
    assert lab.read(1) == ["over"]


def test_a_refusal_of_qemu_is_told_in_its_words(lab: Lab) -> None:
    lab.start()
    other = DiskImage(VDEV, lab.at("other.qcow2"), "qcow2")
    overlay = OverlaidDisk(other, lab.make(lab.at("o.qcow2"), lab.base).path)
    with pytest.raises(QmpError, match="Cannot find"):
        lab.run(lab.host.take_disk_snapshots(lab.record, "s", [], [overlay]))
    assert lab.nodes() == {image_node(lab.base)}
