# SPDX-License-Identifier: LGPL-2.1-or-later
"""The oracles: each finds what is planted, and nothing in what is right."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from xlsnap_conformance import trace as do
from xlsnap_conformance.model import World, apply
from xlsnap_conformance.oracles import Aspect, Finding, guest, images, leftovers, listing, metadata, qcow2
from xlsnap_conformance.protocol import ListedDisk, ListedSnapshot
from xlsnap_conformance.trace import SCRATCH, DiskOf, DomainOf

QEMU_IMG = shutil.which("qemu-img")
needs_qemu_img = pytest.mark.skipif(QEMU_IMG is None, reason="qemu-img is not installed")


def qemu_img(*arguments: str | Path) -> str:
    done = subprocess.run(["qemu-img", *map(str, arguments)], check=True, capture_output=True, text=True)
    return done.stdout


def aspects(findings: Iterable[Finding]) -> list[Aspect]:
    return [finding.aspect for finding in findings]


def played(*steps: do.Step) -> World:
    world = World(DomainOf(disks=(DiskOf(vdev="hda"), DiskOf(vdev="xvda"))))
    for step in steps:
        outcome = apply(world, step)
        assert outcome.refused is None
        world = outcome.after
    return world


# --- the qcow2 reader -----------------------------------------------------------------------------------


@needs_qemu_img
@pytest.mark.parametrize("compat", ["0.10", "1.1"])
@pytest.mark.parametrize("names", [[], ["1"], ["b", "2", "a b", "schnee-☃", "n" * 200, "c"]])
def test_reader_and_qemu_img_agree(compat: str, names: list[str], tmp_path: Path) -> None:
    base, path = tmp_path / "base.qcow2", tmp_path / "image.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", base, "1M")
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"compat={compat}", "-b", base, "-F", "qcow2", path, "3M")
    for name in names:
        qemu_img("snapshot", "-q", "-c", name, path)
    if len(names) > 2:
        qemu_img("snapshot", "-q", "-d", names[2], path)
    info = json.loads(qemu_img("info", "-f", "qcow2", "--output=json", path))
    image = qcow2.read(path)
    assert [(tag.id, tag.name) for tag in image.tags] == [
        (tag["id"], tag["name"]) for tag in info.get("snapshots", [])
    ]
    assert (image.size, image.backing_file, image.backing_format) == (3 << 20, str(base), "qcow2")
    assert (image.corrupt, image.dirty, image.version) == (False, False, 2 if compat == "0.10" else 3)


@needs_qemu_img
def test_reader_refuses_what_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "image"
    qemu_img("create", "-q", "-f", "qcow2", path, "1M")
    qemu_img("snapshot", "-q", "-c", "a", path)
    whole = path.read_bytes()
    for wrong, said in (
        (b"", "not a qcow2"),
        (b"\0" * 4096, "not a qcow2"),
        (whole[:4] + b"\0\0\0\x09" + whole[8:], "version 9"),
        (whole[:64] + (len(whole) - 4).to_bytes(8, "big") + whole[72:], "cut short"),
        (whole[:60] + b"\xff\xff\xff\xff" + whole[64:], "cut short"),
        (whole[:8] + (1 << 60).to_bytes(8, "big") + b"\0\0\0\x10" + whole[20:], "past the end|cut short"),
    ):
        path.write_bytes(wrong)
        with pytest.raises((qcow2.ImageError, OSError), match=f"{said}|Invalid argument|Value too large"):
            qcow2.read(path)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(OSError, match="link"):
        qcow2.read(link)


# --- images ---------------------------------------------------------------------------------------------


@pytest.fixture
def disks(tmp_path: Path) -> dict[str, Path]:
    paths = {"hda": tmp_path / "hda.qcow2", "xvda": tmp_path / "xvda.qcow2"}
    for path in paths.values():
        qemu_img("create", "-q", "-f", "qcow2", path, "1M")
        for name in ("one", "two"):
            qemu_img("snapshot", "-q", "-c", name, path)
    return paths


TWO = (do.Create(name="one"), do.Create(name="two"))


@needs_qemu_img
def test_images_that_are_right(disks: dict[str, Path]) -> None:
    assert not [*images.check(played(*TWO), disks), *images.check_deeply(played(*TWO), disks)]


@needs_qemu_img
@pytest.mark.parametrize(
    ("command", "aspect"),
    [
        (("-d", "one"), Aspect.TAG_MISSING),
        (("-c", "three"), Aspect.TAG_LEFT),
        (("-c", "two"), Aspect.TAG_TWICE),
    ],
)
def test_wrong_tags_are_found(command: tuple[str, str], aspect: Aspect, disks: dict[str, Path]) -> None:
    qemu_img("snapshot", "-q", *command, disks["xvda"])
    (finding,) = images.check(played(*TWO), disks)
    assert (finding.aspect, finding.vdev) == (aspect, "xvda")
    assert finding.expected == ["one", "two"]


@needs_qemu_img
def test_tags_may_have_the_name_that_the_metadata_says(disks: dict[str, Path]) -> None:
    world = played(do.Create(name="first"), do.Create(name="second"))
    tags = {(new, vdev): old for new, old in (("first", "one"), ("second", "two")) for vdev in disks}
    assert not list(images.check(world, disks, tags))


@needs_qemu_img
def test_a_foreign_tag_that_went_is_found(disks: dict[str, Path]) -> None:
    world = replace(played(do.Create(name="one")), foreign_tags=frozenset({("hda", "two"), ("xvda", "two")}))
    assert not list(images.check(world, disks))
    qemu_img("snapshot", "-q", "-d", "two", disks["hda"])
    assert aspects(images.check(world, disks)) == [Aspect.FOREIGN_TAG]


@needs_qemu_img
def test_a_damaged_image_is_found(disks: dict[str, Path]) -> None:
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", "write 0 64k", disks["hda"]], check=True, capture_output=True
    )
    data = bytearray(disks["hda"].read_bytes())
    l1 = int.from_bytes(data[40:48], "big")
    l2 = int.from_bytes(data[l1 : l1 + 8], "big") & ((1 << 56) - 512)
    entry = int.from_bytes(data[l2 : l2 + 8], "big")
    data[l2 : l2 + 8] = (entry + 512).to_bytes(8, "big")
    disks["hda"].write_bytes(data)
    assert aspects(images.check_deeply(played(*TWO), disks)) == [Aspect.IMAGE_SOUND]
    disks["hda"].unlink()
    assert aspects(images.check(played(*TWO), disks)) == [Aspect.IMAGE_SOUND]


# --- the list -------------------------------------------------------------------------------------------


def row(name: str, **changes: Any) -> ListedSnapshot:
    values: dict[str, Any] = {
        "creation_time": 100,
        "disk_only": False,
        "state": "r",
        "disks": (ListedDisk(vdev="hda"), ListedDisk(vdev="xvda")),
    }
    return ListedSnapshot(name=name, **(values | changes))


LISTED = (row("one"), row("two"))


def test_a_list_that_is_right() -> None:
    assert not list(listing.check(played(*TWO), LISTED, {"one": (99, 100)}))
    assert not list(listing.check(played(*TWO), (row("one", state="b"), LISTED[1]))), "idle is blocked"
    assert not list(listing.check(played(*TWO), LISTED[::-1])), "within a second any order is right"


@pytest.mark.parametrize(
    ("rows", "aspect"),
    [
        (LISTED[:1], Aspect.NOT_LISTED),
        ((), Aspect.NOT_LISTED),
        ((*LISTED, row("three")), Aspect.LISTED_TOO_MUCH),
        ((*LISTED, row("two")), Aspect.LISTED_TOO_MUCH),
        ((row("one", creation_time=101), row("two")), Aspect.LIST_ORDER),
        ((row("one", description="x"), LISTED[1]), Aspect.LIST_DESCRIPTION),
        ((row("one", disk_only=True), LISTED[1]), Aspect.LIST_FIELDS),
        ((row("one", state="p"), LISTED[1]), Aspect.LIST_FIELDS),
        ((row("one", state=""), LISTED[1]), Aspect.LIST_FIELDS),
        ((row("one", disks=()), LISTED[1]), Aspect.LIST_DISKS),
        ((row("one", creation_time=50), LISTED[1]), Aspect.LIST_TIME),
    ],
)
def test_a_wrong_list_is_found(rows: tuple[ListedSnapshot, ...], aspect: Aspect) -> None:
    assert aspect in aspects(listing.check(played(*TWO), rows, {"one": (99, 101)}))


# --- metadata -------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> tuple[World, Path, dict[str, Path]]:
    """Two snapshots, one with memory and one paused and disk-only, and what should be kept of them."""
    world = played(do.Create(name="one", description="d"), do.Pause(), do.Create(name="two", memory="no"))
    directory = tmp_path / "metadata"
    directory.mkdir(mode=0o700)
    paths = {"hda": tmp_path / "hda.qcow2", "xvda": tmp_path / "xvda.qcow2"}
    disks = [
        {"device": vdev, "name": "tag", "type": "internal", "format": "qcow2", "path": str(path)}
        for vdev, path in paths.items()
    ]
    for name, more in (
        ("one", {"description": "d", "running": True, "memory": str(directory / "one.save")}),
        ("two", {"paused": True}),
    ):
        text = json.dumps({"name": name, "creation_time": 100, "type": "internal", "disks": disks, **more})
        (directory / f"snapshotdata-d.{name}.libxl-json").write_text(text)
    (directory / "one.save").write_text("memory")
    for path in directory.iterdir():
        path.chmod(0o600)
    return world, directory, paths


Kept = tuple[World, Path, dict[str, Path]]


def look(kept: Kept, times: metadata.Times | None = None) -> list[Aspect]:
    world, directory, paths = kept
    return aspects(metadata.check(world, metadata.read(directory), paths, directory.parent, times))


def change(kept: Kept, name: str, edit: Callable[[dict[str, Any]], object]) -> None:
    path = kept[1] / f"snapshotdata-d.{name}.libxl-json"
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


def test_metadata_that_is_right(kept: Kept) -> None:
    assert look(kept, {"one": (100, 100), "two": (99, 101)}) == []
    assert metadata.read(kept[1]).tags()["one", "hda"] == "tag"
    change(kept, "one", lambda value: value.update(xlsnap_more=1, shutdown=False, dying=False))
    assert look(kept) == []


def test_no_directory_is_no_snapshot(tmp_path: Path) -> None:
    assert not list(metadata.check(played(), metadata.read(tmp_path / "none"), {}, tmp_path))
    found = aspects(metadata.check(played(*TWO), metadata.read(tmp_path / "none"), {}, tmp_path))
    assert found == [Aspect.METADATA_SET, Aspect.DEFAULT_MEMORY]


EDITS: dict[str, tuple[Callable[[dict[str, Any]], object], Aspect]] = {
    "name": (lambda value: value.update(name="two"), Aspect.METADATA_FIELDS),
    "no name": (lambda value: value.pop("name"), Aspect.METADATA_FIELDS),
    "description": (lambda value: value.pop("description"), Aspect.METADATA_FIELDS),
    "type": (lambda value: value.update(type="any"), Aspect.METADATA_FIELDS),
    "no memory": (lambda value: value.pop("memory"), Aspect.METADATA_MEMORY),
    "relative memory": (lambda value: value.update(memory="one.save"), Aspect.METADATA_MEMORY),
    "state": (lambda value: value.update(running=False, paused=True), Aspect.METADATA_STATE),
    "two states": (lambda value: value.update(paused=True), Aspect.METADATA_STATE),
    "no state": (lambda value: value.update(running=False), Aspect.METADATA_STATE),
    "no disks": (lambda value: value.pop("disks"), Aspect.METADATA_DISKS),
    "one disk less": (lambda value: value["disks"].pop(), Aspect.METADATA_DISKS),
    "blank path": (lambda value: value["disks"][0].update(path=""), Aspect.METADATA_DISKS),
    "format": (lambda value: value["disks"][0].update(format="raw"), Aspect.METADATA_DISKS),
    "disks of another form": (lambda value: value.update(disks={"hda": 1}), Aspect.METADATA_DISKS),
    "time of another form": (lambda value: value.update(creation_time="100"), Aspect.CREATION_TIME),
    "another time": (lambda value: value.update(creation_time=12), Aspect.CREATION_TIME),
}


@pytest.mark.parametrize("what", EDITS)
def test_wrong_metadata_is_found(what: str, kept: Kept) -> None:
    edit, aspect = EDITS[what]
    change(kept, "one", edit)
    assert look(kept, {"one": (99, 101)}) == [aspect]


def test_metadata_that_is_no_json_is_found(kept: Kept) -> None:
    (kept[1] / "snapshotdata-d.one.libxl-json").write_text('{"name": "one"')
    assert look(kept) == [Aspect.METADATA_FIELDS]
    (kept[1] / "snapshotdata-d.one.libxl-json").write_text("[]")
    assert look(kept) == [Aspect.METADATA_FIELDS]


def test_wrong_files_are_found(kept: Kept) -> None:
    _, directory, _ = kept
    for name, aspect in (
        ("gone.save", Aspect.MEMORY_LEFT),
        ("two.save", Aspect.MEMORY_LEFT),
        ("snapshotdata-n.one.libxl-json", Aspect.FILE_LEFT),
        ("snapshotdata-d.gone.libxl-json", Aspect.FILE_LEFT),
        (".tmp", Aspect.FILE_LEFT),
    ):
        path = directory / name
        path.touch(mode=0o600)
        assert look(kept) == [aspect], name
        path.unlink()
    (directory / "one.save").unlink()
    assert look(kept) == [Aspect.DEFAULT_MEMORY]


def test_wrong_modes_are_found(kept: Kept) -> None:
    _, directory, _ = kept
    for path, mode in ((directory, 0o755), (directory / "one.save", 0o640)):
        before = path.stat().st_mode
        path.chmod(mode)
        assert look(kept) == [Aspect.METADATA_MODE]
        path.chmod(before)


# --- leftovers and the guest ----------------------------------------------------------------------------


def test_leftovers(tmp_path: Path) -> None:
    path = f"{SCRATCH}/mine"
    world = played(do.PutFile(path=path, content="mine"), do.Create(name="one", memory=f"{SCRATCH}/memory"))
    paths = {"hda": tmp_path / "hda.qcow2"}
    for name, content in (("hda.qcow2", ""), ("mine", "mine"), ("memory", "")):
        (tmp_path / name).write_text(content)

    def look() -> list[Aspect]:
        return aspects(leftovers.check(world, paths, tmp_path, {"ignored"}))

    (tmp_path / "ignored").touch()
    assert look() == []
    (tmp_path / "mine").write_text("yours")
    assert look() == [Aspect.USER_FILE]
    (tmp_path / "mine").unlink()
    assert look() == [Aspect.USER_FILE]
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "more").touch()
    assert look() == [Aspect.MEMORY_LEFT]
    shutil.rmtree(tmp_path / "below")
    (tmp_path / "memory").unlink()
    assert look() == [Aspect.MEMORY_IMAGE]


class _Guest:
    """Answers what it was given."""

    def __init__(self, variables: dict[str, str], words: dict[tuple[int, int], str]) -> None:
        self.get = variables.get
        self.read = lambda disk, lba: words.get((disk, lba))


@pytest.mark.parametrize(
    ("variables", "words", "found"),
    [
        ({"a": "1"}, {(4, 7): "w"}, []),
        ({"a": "2"}, {(4, 7): "w"}, [Aspect.VARIABLES]),
        ({}, {(4, 7): "w"}, [Aspect.VARIABLES]),
        ({"a": "1", "b": "x"}, {(4, 7): "w"}, [Aspect.VARIABLES]),
        ({"a": "1"}, {}, [Aspect.SECTORS]),
        ({"a": "1"}, {(4, 7): "w", (0, 1): "x"}, [Aspect.SECTORS]),
    ],
)
def test_guest(variables: dict[str, str], words: dict[tuple[int, int], str], found: list[Aspect]) -> None:
    world = played(do.Set(key="a", value="1"), do.Write(vdev="xvda", lba=7, word="w"))
    probe: Any = _Guest(variables, words)
    sectors = [("hda", 1), ("xvda", 7)]
    assert aspects(guest.check(world, probe, {"hda": 0, "xvda": 4}, ["a", "b"], sectors)) == found
