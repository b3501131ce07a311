# SPDX-License-Identifier: LGPL-2.1-or-later
"""`snapshot-check` on real images, metadata and memory images, healthy ones and each kind of damage."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xlsnap import savefile
from xlsnap import steps as do
from xlsnap.check import Damaged, ImageFacts, MemoryFacts, Observations, check
from xlsnap.domain import DomainConfig, DomainRecord, Overlay
from xlsnap.errors import HostError
from xlsnap.executor import Executor
from xlsnap.findings import Finding, Kind, plan_repair
from xlsnap.journal import Journal
from xlsnap.layout import StateRoot
from xlsnap.observe import find_and_mend, observe_for_check
from xlsnap.qemu import QemuHost
from xlsnap.qemu.examine import examine
from xlsnap.snapshot import CONFIG_KEY, PARENT_KEY, DiskSnapshot, DomainSnapshot, SnapshotType, to_json
from xlsnap.steps import DiskImage, Plan, PlannedStep
from xlsnap.store import Store
from xlsnap_grammars import parse_disk

UUID = "00000000-0000-4000-8000-000000000001"
OTHER = "00000000-0000-4000-8000-000000000002"


class Examiner:
    """Looks at images as the QEMU host does; `active` is what it is told."""

    def __init__(self) -> None:
        self.active = False

    def is_active(self, record: DomainRecord) -> bool:
        return self.active

    async def examine(self, record: DomainRecord, images: Sequence[DiskImage]) -> list[ImageFacts]:
        return await examine(images)


class World:
    """A stopped domain `vm` with two snapshots, all of it in order::

    hda   a.img (raw)  <--  a.s1.qcow2  <--  a.s2.qcow2     states of s1 and s2, working state
    hdb   b.qcow2 with the tags s1 and s2
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = Store(StateRoot.at(directory / "root"))
        self.paths = self.store.root.domain(UUID)
        self.host = Examiner()
        self.qemu_img("create", "-f", "raw", "a.img", "1M")
        self.qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", self.at("a.img"), "a.s1.qcow2")
        self.qemu_img("create", "-f", "qcow2", "-F", "qcow2", "-b", self.at("a.s1.qcow2"), "a.s2.qcow2")
        self.qemu_img("create", "-f", "qcow2", "b.qcow2", "1M")
        disks = ("a.s2.qcow2,qcow2,hda,w", "b.qcow2,qcow2,hdb,w")
        self.config = DomainConfig(
            name="vm", uuid=UUID, disks=tuple(parse_disk(self.at(disk)) for disk in disks)
        )
        self.record = DomainRecord(
            uuid=UUID,
            name="vm",
            config=self.config,
            overlays=(
                Overlay(self.at("a.s1.qcow2"), self.at("a.img"), "raw"),
                Overlay(self.at("a.s2.qcow2"), self.at("a.s1.qcow2"), "qcow2"),
            ),
            current="s2",
        )
        self.store.write_record(self.record)
        self.snapshot("s1", None, 1, base="a.img", image_format="raw", overlay="a.s1.qcow2")
        self.snapshot("s2", "s1", 2, base="a.s1.qcow2", image_format="qcow2", overlay="a.s2.qcow2")

    def at(self, name: str) -> str:
        return str(self.directory / name)

    def qemu_img(self, *arguments: str) -> None:
        subprocess.run(["qemu-img", arguments[0], "-q", *arguments[1:]], check=True, cwd=self.directory)

    def snapshot(
        self, name: str, parent: str | None, when: int, *, base: str, image_format: str, overlay: str
    ) -> None:
        """Make a snapshot with memory, an external disk and an internal one."""
        external = DiskSnapshot(
            device="hda",
            name=name,
            path=self.at(base),
            format=image_format,
            type=SnapshotType.EXTERNAL,
            file=self.at(overlay),
        )
        internal = DiskSnapshot(device="hdb", name=name, path=self.at("b.qcow2"), format="qcow2")
        extra = {CONFIG_KEY: msgspec.to_builtins(self.config)}
        made = DomainSnapshot(
            name=name,
            creation_time=when,
            memory=str(self.paths.memory_image(name)),
            type=SnapshotType.ANY,
            running=True,
            disks=(external, internal),
            extra=extra if parent is None else {**extra, PARENT_KEY: parent},
        )
        self.qemu_img("snapshot", "-c", name, "b.qcow2")
        self.write(made)
        self.memory(name)

    def write(self, snapshot: DomainSnapshot) -> None:
        self.store.write_metadata(self.paths, snapshot.name, to_json(snapshot))

    def change(self, name: str, **changes: object) -> None:
        self.write(msgspec.structs.replace(self.store.snapshots(UUID)[name], **changes))

    def memory(self, name: str, *, complete: bool = True) -> Path:
        path = self.paths.memory_image(name)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        savefile.write_header(fd, savefile.SaveHeader(UUID, self.config, "tcg"))
        os.write(fd, b"QEVM")
        if complete:
            savefile.mark_complete(fd)
        os.close(fd)
        return path

    def change_record(self, **changes: object) -> None:
        self.record = msgspec.structs.replace(self.record, **changes)
        self.store.write_record(self.record)

    # --- check ------------------------------------------------------------------------------------------

    def check(self, *, repair: bool = False) -> list[Finding]:
        run = Executor(QemuHost(self.store.root, accelerator="tcg"), self.store, self.record)
        found = asyncio.run(find_and_mend(run, self.host, repair=repair))
        self.record = run.record
        return found

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.directory)): path.read_bytes()
            for path in sorted(self.directory.rglob("*"))
            if path.is_file() and path.name != "journal.json"
        }

    def tags(self) -> list[str]:
        command = ["qemu-img", "info", "--output=json", "-f", "qcow2", self.at("b.qcow2")]
        data = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return [item["name"] for item in data.get("snapshots", [])]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# --- damage ---------------------------------------------------------------------------------------------


def hide(world: World, name: str = "s2") -> None:
    world.store.hide_metadata(world.paths, name)


def second_copy(world: World) -> None:
    world.paths.hidden_metadata("s1").write_bytes(b'{"name": "s1"')


def cut_hidden(world: World) -> None:
    world.paths.hidden_metadata("s3").write_bytes(b'{"name": "s3"')


def unreadable_hidden(world: World) -> None:
    world.paths.hidden_metadata("s3").mkdir()


def hidden_without_tag(world: World) -> None:
    """A deletion that got past the disk snapshots; the children of s1 have been given to nobody yet."""
    hide(world)
    world.qemu_img("snapshot", "-d", "s2", "b.qcow2")


def hidden_without_memory(world: World) -> None:
    hide(world)
    world.paths.memory_image("s2").unlink()


def hidden_without_image(world: World) -> None:
    hide(world)
    os.rename(world.at("b.qcow2"), world.at("away"))


def garble(world: World) -> None:
    world.paths.metadata("s2").write_bytes(b"{")


def garble_and_more(world: World) -> None:
    """While nobody knows what s2 needs, nothing is removed that it could need."""
    garble(world)
    world.change_record(
        overlays=(*world.record.overlays, Overlay(world.at("x.qcow2"), world.at("a.img"), "raw"))
    )
    world.qemu_img("create", "-f", "qcow2", "x.qcow2", "1M")
    world.qemu_img("rebase", "-u", "-F", "raw", "-b", world.at("a.img"), "x.qcow2")
    world.memory("s3", complete=False)


def bad_config(world: World) -> None:
    world.change("s1", extra={CONFIG_KEY: {"name": 1}})


def interrupt(world: World) -> None:
    journal = Journal(world.paths.journal)
    journal.open(Plan(operation="delete", snapshot="s9", steps=(PlannedStep(do.ForgetMetadata(name="s9")),)))
    journal.close(keep=True)


def no_memory(world: World) -> None:
    world.paths.memory_image("s1").unlink()


def cut_memory(world: World) -> None:
    os.truncate(world.paths.memory_image("s1"), 65537)


def stray_memory(world: World) -> None:
    world.memory("s9", complete=False)


def stray_memory_that_loads(world: World) -> None:
    world.memory("s9")


def stray_file(world: World) -> None:
    world.paths.memory_image("mine").write_bytes(b"precious")


def stray_link(world: World) -> None:
    world.memory("s9", complete=False).rename(world.at("kept"))
    world.paths.memory_image("s9").symlink_to(world.at("kept"))


def no_image(world: World) -> None:
    os.rename(world.at("a.img"), world.at("away"))


def wrong_format(world: World) -> None:
    Path(world.at("b.qcow2")).write_bytes(bytes(1 << 20))


def corrupt(world: World) -> None:
    """Let two clusters of the guest be one: its L1 table points to the header."""
    world.qemu_img("create", "-f", "qcow2", "b.qcow2", "1M")
    world.qemu_img("snapshot", "-c", "s1", "b.qcow2")
    world.qemu_img("snapshot", "-c", "s2", "b.qcow2")
    with open(world.at("b.qcow2"), "r+b") as file:
        file.seek(40)  # l1_table_offset
        offset = int.from_bytes(file.read(8), "big")
        file.seek(offset)
        file.write((1 << 63 | 0x10000).to_bytes(8, "big"))


def mark_corrupt(world: World) -> None:
    with open(world.at("b.qcow2"), "r+b") as file:
        file.seek(72)  # incompatible_features
        file.write((2).to_bytes(8, "big"))


def no_tag(world: World) -> None:
    world.qemu_img("snapshot", "-d", "s1", "b.qcow2")


def two_tags(world: World) -> None:
    world.qemu_img("snapshot", "-c", "s1", "b.qcow2")


def foreign_tag(world: World) -> None:
    world.qemu_img("snapshot", "-c", "mine", "b.qcow2")


def unused_overlay(world: World) -> None:
    world.qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", world.at("a.img"), "x.qcow2")
    world.change_record(
        overlays=(*world.record.overlays, Overlay(world.at("x.qcow2"), world.at("a.img"), "raw"))
    )


def unused_overlay_of_a_user(world: World) -> None:
    """Another domain lies over it."""
    unused_overlay(world)
    config = DomainConfig(name="other", uuid=OTHER, disks=(parse_disk(world.at("x.qcow2,qcow2,hda,w")),))
    world.store.write_record(DomainRecord(uuid=OTHER, name="other", config=config))


def unused_by_the_record_alone(world: World) -> None:
    """The record says that the disk lies over a.img, its header that it lies over what is over a.img."""
    world.change_record(
        overlays=(
            world.record.overlays[0],
            Overlay(world.at("a.s2.qcow2"), world.at("a.img"), "raw"),
        )
    )
    hide(world)
    world.store.forget_metadata(world.paths, "s2")
    world.qemu_img("snapshot", "-d", "s2", "b.qcow2")
    world.paths.memory_image("s2").unlink()
    world.change_record(current="s1")


def unused_by_the_header_alone(world: World) -> None:
    """The record says that the disk lies over x.qcow2, its header does not."""
    unused_overlay(world)
    lower, upper, new = world.record.overlays
    world.change_record(overlays=(lower, Overlay(upper.path, new.path, "qcow2"), new))


def gone_overlay(world: World) -> None:
    world.change_record(
        overlays=(*world.record.overlays, Overlay(world.at("x.qcow2"), world.at("a.img"), "raw"))
    )


def other_backing(world: World) -> None:
    world.qemu_img("rebase", "-u", "-F", "raw", "-b", world.at("a.img"), "a.s2.qcow2")


def other_backing_format(world: World) -> None:
    world.qemu_img("rebase", "-u", "-F", "qcow2", "-b", world.at("a.img"), "a.s1.qcow2")


def no_backing(world: World) -> None:
    world.qemu_img("rebase", "-u", "-b", "", "a.s1.qcow2")


def disk_of_the_first_day(world: World) -> None:
    disks = (parse_disk(world.at("a.img,raw,hda,w")), world.config.disks[1])
    world.change_record(config=msgspec.structs.replace(world.config, disks=disks))


def disk_of_the_first_day_read_only(world: World) -> None:
    disks = (parse_disk(world.at("a.img,raw,hda,r")), world.config.disks[1])
    config = msgspec.structs.replace(world.config, disks=disks)
    world.change_record(config=config, overlays=world.record.overlays[:1])


def no_parent(world: World) -> None:
    world.change("s2", extra={**world.store.snapshots(UUID)["s2"].extra, PARENT_KEY: "gone"})


def circle(world: World) -> None:
    world.change("s1", extra={**world.store.snapshots(UUID)["s1"].extra, PARENT_KEY: "s2"})


def no_current(world: World) -> None:
    world.change_record(current="gone")


INCOMPLETE = ("snapshot-incomplete", "s2")
DAMAGES: list[tuple[Callable[[World], None], list[tuple[str, str]], bool]] = [
    (second_copy, [("metadata-copy", "snapshot 's1'")], True),
    (hide, [("snapshot-hidden", "snapshot 's2'")], True),
    (cut_hidden, [("snapshot-incomplete", "not snapshot metadata")], True),
    (unreadable_hidden, [("snapshot-uncertain", "Is a directory")], False),
    (hidden_without_tag, [("snapshot-incomplete", "no snapshot is named 's2'")], True),
    (hidden_without_memory, [("snapshot-incomplete", "s2.save: No such file")], True),
    (
        hidden_without_image,
        [
            ("snapshot-uncertain", "snapshot 's2'"),
            ("image-missing", "b.qcow2 (disk hdb of the domain, disk hdb of"),
        ],
        False,
    ),
    (garble, [("metadata-damaged", "snapshot 's2': ")], False),
    (
        garble_and_more,
        [
            ("metadata-damaged", "snapshot 's2': "),
            ("memory-unused", "s3.save"),
            ("overlay-unused", "x.qcow2"),
        ],
        False,
    ),
    (bad_config, [("config-damaged", "snapshot 's1': xlsnap_config: ")], False),
    (interrupt, [("interrupted", "delete of snapshot 's9'")], False),
    (no_memory, [("memory-missing", "snapshot 's1': ")], False),
    (cut_memory, [("memory-missing", "is cut")], False),
    (stray_memory, [("memory-incomplete", "s9.save is not complete")], True),
    (stray_memory_that_loads, [("memory-unused", "s9.save")], False),
    (stray_file, [("memory-unused", "mine.save is not a save file")], False),
    (stray_link, [("memory-unused", "s9.save is not complete")], False),
    (no_image, [("image-missing", "a.img (disk hda of snapshot 's1')")], False),
    (
        wrong_format,
        [("image-unreadable", "not in qcow2 format")],
        False,
    ),
    (corrupt, [("image-damaged", "qemu-img check finds")], False),
    (mark_corrupt, [("image-damaged", "marked")], False),
    (no_tag, [("tag-missing", "snapshot 's1': no snapshot is named 's1' in")], False),
    (two_tags, [("tag-missing", "snapshot 's1': 2 snapshots are named 's1' in")], False),
    (foreign_tag, [("tag-unknown", "'mine' in ")], False),
    (unused_overlay, [("overlay-unused", "x.qcow2")], True),
    (unused_overlay_of_a_user, [], False),
    (unused_by_the_record_alone, [("link-differs", "the record says")], False),
    (unused_by_the_header_alone, [("link-differs", "the record says")], False),
    (gone_overlay, [("overlay-missing", "x.qcow2")], True),
    (other_backing, [("link-differs", "a.s2.qcow2 says that it lies over")], False),
    (no_backing, [("link-differs", "a.s1.qcow2 says that it lies over nothing")], False),
    (disk_of_the_first_day, [("overlay-unused", "a.s2.qcow2"), ("disk-is-needed", "disk hda: ")], False),
    (disk_of_the_first_day_read_only, [], False),
    (no_parent, [("parent-wrong", "snapshot 's2': it came from 'gone', which does not exist")], True),
    (circle, [("parent-wrong", "snapshot 's1': it came from 's2', which came from it")], True),
    (no_current, [("current-wrong", "snapshot 'gone'")], True),
]


def test_where_nothing_is_wrong_nothing_is_found_or_changed(world: World) -> None:
    before = world.files()
    assert world.check() == []
    assert world.check(repair=True) == []
    assert world.files() == before


@pytest.mark.parametrize(
    ("damage", "expected", "mendable"), DAMAGES, ids=lambda item: getattr(item, "__name__", "")
)
def test_damage_is_found_and_mended_if_that_loses_nothing(
    world: World, damage: Callable[[World], None], expected: list[tuple[str, str]], mendable: bool
) -> None:
    damage(world)
    before = world.files()
    found = world.check()
    assert [item.kind.value for item in found] == [kind for kind, _ in expected]
    for item, (_, fragment) in zip(found, expected, strict=True):
        assert fragment in item.what
        assert "\n" not in item.what + item.why
    assert world.files() == before, "a check without --repair changes nothing"
    assert all(item.repair for item in found) == (mendable or not found)
    if not any(item.repair for item in found):
        assert world.check(repair=True) == found
        assert world.files() == before, "what cannot be repaired is left as it is"
    elif mendable:
        repaired = world.check(repair=True)
        assert {item.kind for item in found} <= {item.kind for item in repaired}
        assert all(item.repaired and not item.is_left for item in repaired)
        assert world.check() == []


# --- repairs --------------------------------------------------------------------------------------------


def test_a_second_copy_goes_and_the_first_stays(world: World) -> None:
    before = world.files()
    second_copy(world)
    world.check(repair=True)
    assert world.files() == before


def test_a_hidden_snapshot_that_is_whole_is_listed_again(world: World) -> None:
    before = world.files()
    hide(world)
    world.check(repair=True)
    assert world.files() == before


@pytest.mark.parametrize("damage", [hidden_without_tag, hidden_without_memory])
def test_the_rest_of_a_hidden_snapshot_is_removed(world: World, damage: Callable[[World], None]) -> None:
    damage(world)
    found = world.check(repair=True)
    assert [item.kind for item in found] == [Kind.SNAPSHOT_INCOMPLETE, Kind.CURRENT_WRONG]
    assert world.tags() == ["s1"]
    assert sorted(os.listdir(world.paths.snapshots)) == ["s1.save", "snapshotdata-d.s1.libxl-json"]
    assert world.record.current is None
    # The image that held its state lies below the disk's.
    assert [overlay.path for overlay in world.record.overlays] == [
        world.at("a.s1.qcow2"),
        world.at("a.s2.qcow2"),
    ]


def test_a_memory_image_that_the_user_placed_stays(world: World) -> None:
    elsewhere = world.at("mine.save")
    os.rename(world.paths.memory_image("s2"), elsewhere)
    world.change("s2", memory=elsewhere)
    hidden_without_tag(world)
    assert all(item.repaired for item in world.check(repair=True))
    assert os.path.exists(elsewhere)


def test_unused_overlays_are_removed_and_forgotten(world: World) -> None:
    unused_overlay(world)
    world.check(repair=True)
    assert not os.path.exists(world.at("x.qcow2"))
    assert world.store.record(UUID) == world.record
    assert len(world.record.overlays) == 2


def test_a_parent_is_forgotten_and_nothing_else(world: World) -> None:
    before = world.store.snapshots(UUID)["s2"]
    no_parent(world)
    world.check(repair=True)
    after = world.store.snapshots(UUID)["s2"]
    extra = {key: value for key, value in before.extra.items() if key != PARENT_KEY}
    assert after == msgspec.structs.replace(before, extra=extra)


def test_several_damages_are_mended_one_after_the_other(world: World) -> None:
    for damage in (
        second_copy,
        cut_hidden,
        stray_memory,
        unused_overlay,
        gone_overlay_too,
        no_current,
        no_tag,
    ):
        damage(world)
    found = world.check(repair=True)
    assert [item.kind for item in found if item.is_left] == [Kind.TAG_MISSING]
    assert sum(item.repaired for item in found) == 6
    assert [item.kind for item in world.check()] == [Kind.TAG_MISSING]


def gone_overlay_too(world: World) -> None:
    gone = Overlay(world.at("y.qcow2"), world.at("a.img"), "raw")
    world.change_record(overlays=(*world.record.overlays, gone))


def test_a_repair_without_effect_is_no_repair(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(run: Executor, step: do.AnyStep) -> None:
        pass

    stray_memory(world)
    monkeypatch.setattr(Executor, "perform", nothing)
    (finding,) = world.check(repair=True)
    assert finding.is_left


def test_a_repair_that_fails_leaves_no_journal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    second_copy(world)
    before = world.files()
    perform = Executor.perform

    async def failing(run: Executor, step: do.AnyStep) -> None:
        await perform(run, step)
        if isinstance(step, do.HideMetadata):
            raise HostError("no")

    monkeypatch.setattr(Executor, "perform", failing)
    with pytest.raises(HostError):
        world.check(repair=True)
    monkeypatch.undo()
    assert Journal(world.paths.journal).interrupted() is None
    del before["root/snapshots/" + UUID + "/snapshotdata-n.s1.libxl-json"]
    assert world.files() == before
    assert world.check() == []


def test_what_a_listed_snapshot_has_too_is_no_rest_of_a_hidden_one() -> None:
    image = DiskImage("hda", "/i/a", "qcow2")
    tag = DiskSnapshot(device="hda", name="tag", path="/i/a", format="qcow2")
    gone = DiskSnapshot(device="hda", name="gone", path="/i/a", format="qcow2")
    hidden = DomainSnapshot(name="hidden", memory="/d/m", disks=(tag, gone))
    record = DomainRecord(uuid=UUID, name="vm", config=DomainConfig(name="vm"))
    seen = Observations(
        record=record,
        directory="/d",
        hidden=(hidden,),
        memory={"/d/m": MemoryFacts()},
        images={"/i/a": ImageFacts(image=image, tags=("tag",))},
    )
    (finding,) = check(seen)
    drop = do.DropDiskSnapshots(name="tag", disks=(image,))
    forget = do.ForgetMetadata(name="hidden")
    assert finding.repair == (drop, do.RemoveMemory(path="/d/m"), forget)

    listed = DomainSnapshot(name="listed", memory="/d/m", disks=(tag,))
    (finding,) = check(msgspec.structs.replace(seen, snapshots=(listed,)))
    assert finding.repair == (forget,)
    damaged = (Damaged("listed", "damaged"),)
    *_, finding = (item for item in check(msgspec.structs.replace(seen, damaged=damaged)) if item.repair)
    assert finding.repair == (drop, forget)


# --- images ---------------------------------------------------------------------------------------------


def test_a_wrong_format_is_corrected_only_while_the_domain_is_stopped(world: World) -> None:
    other_backing_format(world)
    (finding,) = world.check()
    assert finding.kind is Kind.LINK_FORMAT
    base = DiskImage("hda", world.at("a.img"), "raw")
    assert finding.repair == (do.LayOver(overlay=world.at("a.s1.qcow2"), base=base),)
    world.host.active = True
    (finding,) = world.check()
    assert (finding.kind, finding.repair) == (Kind.LINK_FORMAT, None)


def test_only_the_image_itself_is_opened(world: World) -> None:
    """A backing file that is missing is no fault of the image over it, nor is a hostile one opened."""
    os.unlink(world.at("a.s1.qcow2"))
    os.mkfifo(world.at("a.s1.qcow2"))  # to open it would block
    image = DiskImage("hda", world.at("a.s2.qcow2"), "qcow2")
    (facts,) = asyncio.run(asyncio.wait_for(examine([image]), 30))
    assert (facts.problem, facts.damage, facts.backing) == (None, None, world.at("a.s1.qcow2"))


def test_a_relative_backing_file_is_relative_to_the_image(world: World) -> None:
    world.qemu_img("rebase", "-u", "-F", "raw", "-b", "./a.img", "a.s1.qcow2")
    assert world.check() == []


def test_an_image_that_is_written_is_not_checked(world: World) -> None:
    corrupt(world)
    image = DiskImage("hdb", world.at("b.qcow2"), "qcow2")
    (facts,) = asyncio.run(examine([image]))
    assert facts.damage
    (facts,) = asyncio.run(examine([image], in_use=[image.path]))
    assert (facts.damage, sorted(facts.tags)) == (None, ["s1", "s2"])


def test_lost_space_is_no_damage(world: World) -> None:
    """Every crash of QEMU can leave some."""
    with open(world.at("b.qcow2"), "r+b") as file:
        file.seek(48)  # refcount_table_offset
        table = int.from_bytes(file.read(8), "big")
        file.seek(table)
        block = int.from_bytes(file.read(8), "big")
        file.seek(block + 2 * 100)
        file.write(b"\0\1")  # cluster 100 is used once, by nothing
    os.truncate(world.at("b.qcow2"), 101 << 16)
    done = subprocess.run(["qemu-img", "check", "-q", world.at("b.qcow2")], check=False)
    assert done.returncode == 3
    assert world.check() == []


# --- whatever is seen -----------------------------------------------------------------------------------

NAMES = st.sampled_from(["s1", "s2", "s3"])
PATHS = st.sampled_from(["/i/a", "/i/b", "/i/c", "/i/d"])
MEMORY = st.sampled_from(["/d/m1", "/d/m2", "/e/m"])


@st.composite
def snapshots(draw: st.DrawFn, name: str) -> DomainSnapshot:
    kinds = st.sampled_from(SnapshotType)
    disks = draw(
        st.lists(
            st.builds(
                DiskSnapshot, device=st.just("hda"), name=st.just(name) | NAMES, path=PATHS,
                format=st.just("qcow2"), type=kinds,
            ),
            max_size=2,
        )
    )  # fmt: skip
    parent = draw(st.none() | NAMES)
    return DomainSnapshot(
        name=name,
        memory=draw(st.none() | MEMORY),
        disks=tuple(disks),
        extra={} if parent is None else {PARENT_KEY: parent},
    )


@st.composite
def observations(draw: st.DrawFn) -> Observations:
    """Anything that a look at the files of a domain could find."""
    names = draw(st.lists(NAMES, unique=True))
    cut = draw(st.integers(0, len(names)))
    overlays = draw(
        st.dictionaries(PATHS, st.none() | PATHS, max_size=3).map(
            lambda backings: tuple(
                Overlay(path, backing, "qcow2") for path, backing in sorted(backings.items())
                if backing is None or backing > path  # no circle
            )
        )
    )  # fmt: skip
    disk = parse_disk(f"{draw(PATHS)},qcow2,hda,w")
    record = DomainRecord(
        uuid=UUID,
        name="vm",
        config=DomainConfig(name="vm", disks=(disk,)),
        overlays=overlays,
        current=draw(st.none() | NAMES),
    )
    facts = st.builds(
        ImageFacts,
        image=PATHS.map(lambda path: DiskImage("hda", path, "qcow2")),
        exists=st.booleans(),
        problem=st.none() | st.just("problem"),
        tags=st.lists(NAMES | st.just("mine"), max_size=3).map(tuple),
        backing=st.none() | PATHS,
        backing_format=st.none() | st.just("qcow2"),
    )
    hidden = draw(st.lists(NAMES, unique=True, max_size=2))
    memory_facts = st.builds(MemoryFacts, st.none() | st.just("problem"), ours=st.booleans())
    listed = tuple(draw(snapshots(name)) for name in names[:cut])
    return Observations(
        record=record,
        directory="/d",
        active=draw(st.booleans()),
        snapshots=listed,
        damaged=tuple(Damaged(name, "damaged") for name in names[cut:]),
        hidden=tuple(draw(snapshots(name)) for name in hidden),
        memory=draw(st.dictionaries(MEMORY, memory_facts)),
        stray_memory=draw(st.dictionaries(st.sampled_from(["/d/m3", "/d/m4"]), memory_facts)),
        images={item.image.path: item for item in draw(st.lists(facts, max_size=4))},
        elsewhere=draw(st.frozensets(PATHS, max_size=1)),
    )


@settings(max_examples=400)
@given(observations())
def test_no_repair_takes_away_what_somebody_needs(seen: Observations) -> None:
    listed = {snapshot.name for snapshot in seen.snapshots} | {item.name for item in seen.damaged}
    tags = {(disk.path, disk.name) for item in seen.snapshots for disk in item.disks}
    ours = {overlay.path for overlay in seen.record.overlays}
    for finding in check(seen):
        hidden_now: set[str] = set()
        for step in plan_repair(finding).steps:
            match step.do:
                case do.RemoveImages(paths=paths):
                    exists = {path for path in paths if path not in seen.images or seen.images[path].exists}
                    assert set(paths) <= ours
                    assert not exists or not seen.damaged
                    assert not set(paths) & needed(seen)
                case do.RemoveMemory(path=path):
                    assert os.path.dirname(path) == "/d"
                    assert path not in {snapshot.memory for snapshot in seen.snapshots}
                    assert not seen.damaged
                case do.DropDiskSnapshots(name=name, disks=disks):
                    assert not {(disk.path, name) for disk in disks} & tags
                    assert name != "mine"
                case do.ForgetMetadata(name=name):
                    assert name not in listed
                case do.HideMetadata(name=name):
                    assert isinstance(step.undo, do.ShowMetadata)
                    hidden_now.add(name)
                case do.ShowMetadata(name=name):
                    assert name in hidden_now or name not in listed
                    hidden_now.discard(name)
                case do.ReplaceMetadata(name=name) | do.LayOver(overlay=name):
                    assert name in listed | ours
                case do.UpdateDomain(config=config):
                    assert config == seen.record.config
                case other:
                    pytest.fail(f"a repair that nobody has thought of: {other}")
        assert not hidden_now


def needed(seen: Observations) -> set[str]:
    """Images of the domain and of snapshots, and all that any of them reads from, by every account."""
    found = {str(disk.target) for disk in seen.record.config.disks} | seen.elsewhere
    found |= {disk.path for item in (*seen.snapshots, *seen.hidden) for disk in item.disks}
    for _ in range(10):
        found |= {item.backing for item in seen.record.overlays if item.path in found and item.backing}
        found |= {item.backing for path, item in seen.images.items() if path in found and item.backing}
    return found


def test_a_root_of_another_name_is_the_same_root(world: World) -> None:
    """The metadata names memory images as the root was called when they were made."""
    os.symlink(world.at("root"), world.at("link"))
    store = Store(StateRoot.at(world.at("link")))
    seen = asyncio.run(observe_for_check(world.host, store, world.record))
    assert set(seen.images) == {world.at(name) for name in ("a.img", "a.s1.qcow2", "a.s2.qcow2", "b.qcow2")}
    assert seen.stray_memory == {}
    assert check(seen) == []
