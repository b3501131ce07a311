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
from xlsnap_conformance.model import Place, World, apply
from xlsnap_conformance.oracles import (
    Aspect,
    Finding,
    chains,
    content,
    guest,
    images,
    leftovers,
    listing,
    metadata,
    qcow2,
)
from xlsnap_conformance.protocol import DiskChoice, DiskInUse, ListedDisk, ListedSnapshot
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


def beginning(*paths: Path) -> chains.Chains:
    """The chains of a domain without snapshots; each image is named by its vdev and format."""
    return chains.Chains.of({path.stem: Place(str(path), path.suffix[1:]) for path in paths})


@pytest.fixture
def disks(tmp_path: Path) -> dict[str, Path]:
    paths = {"hda": tmp_path / "hda.qcow2", "xvda": tmp_path / "xvda.qcow2"}
    for path in paths.values():
        qemu_img("create", "-q", "-f", "qcow2", path, "1M")
        for name in ("one", "two"):
            qemu_img("snapshot", "-q", "-c", name, path)
    return paths


TWO = (do.Create(name="one"), do.Create(name="two"))


def tags(world: World, disks: dict[str, Path], told: dict[chains.Key, str] | None = None) -> list[Finding]:
    known = chains.observe(beginning(*disks.values()), world, do.Check(), None, None)
    return list(images.check(world, known, chains.follow(known, world), told))


@needs_qemu_img
def test_images_that_are_right(disks: dict[str, Path]) -> None:
    known = chains.observe(beginning(*disks.values()), played(*TWO), do.Check(), None, None)
    assert not tags(played(*TWO), disks)
    assert not list(images.check_deeply(known, chains.follow(known, played(*TWO))))


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
    (finding,) = tags(played(*TWO), disks)
    assert (finding.aspect, finding.vdev) == (aspect, "xvda")
    assert finding.expected == ["one", "two"]


@needs_qemu_img
def test_tags_may_have_the_name_that_the_metadata_says(disks: dict[str, Path]) -> None:
    world = played(do.Create(name="first"), do.Create(name="second"))
    told = {(new, vdev): old for new, old in (("first", "one"), ("second", "two")) for vdev in disks}
    assert not tags(world, disks, told)


@needs_qemu_img
def test_a_foreign_tag_that_went_is_found(disks: dict[str, Path]) -> None:
    world = replace(played(do.Create(name="one")), foreign_tags=frozenset({("hda", "two"), ("xvda", "two")}))
    assert not tags(world, disks)
    qemu_img("snapshot", "-q", "-d", "two", disks["hda"])
    assert aspects(tags(world, disks)) == [Aspect.FOREIGN_TAG]


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
    known = chains.observe(beginning(*disks.values()), played(*TWO), do.Check(), None, None)
    graph = chains.follow(known, played(*TWO))
    assert aspects(images.check_deeply(known, graph)) == [Aspect.IMAGE_SOUND]
    disks["hda"].write_bytes(b"nothing")
    graph = chains.follow(known, played(*TWO))
    assert aspects(chains.check_graph(graph, known, played(*TWO))) == [Aspect.IMAGE_SOUND]


# --- chains ---------------------------------------------------------------------------------------------


class Chained:
    """Images as a toolstack would have them after steps, made with qemu-img; each name is a file here."""

    def __init__(self, directory: Path, *disks: DiskOf) -> None:
        self.directory = directory
        self.world = World(DomainOf(disks=disks or (DiskOf(vdev="hda"), DiskOf(vdev="hdb", format="raw"))))
        first = [directory / f"{disk.vdev}.{disk.format}" for disk in self.world.domain.disks]
        for path in first:
            qemu_img("create", "-q", "-f", path.suffix[1:], path, "1M")
        self.known = beginning(*first)
        self.numbers = {"hda": 0, "hdb": 1}

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def overlay(self, name: str, base: str, format: str | None = None) -> str:
        format = format or ("raw" if base.endswith(".raw") else "qcow2")
        qemu_img("create", "-q", "-f", "qcow2", "-b", self.path(base), "-F", format, self.path(name))
        return self.path(name)

    def uses(self, **images: str) -> list[DiskInUse]:
        present = {vdev: image.path for vdev, image in self.known.present.items()}
        present |= {vdev: self.path(name) for vdev, name in images.items()}
        return [
            DiskInUse(vdev=vdev, path=path, format="raw" if path.endswith(".raw") else "qcow2")
            for vdev, path in present.items()
        ]

    def after(
        self, step: do.Step, disks: list[DiskInUse], told: dict[chains.Key, Place] | None = None
    ) -> list[Aspect]:
        """Take a step that left the domain with these disks; return what is wrong with that."""
        before = self.known
        self.world = apply(self.world, step).after
        self.known = chains.observe(before, self.world, step, disks, told)
        return aspects(
            [
                *chains.check_present(self.world, disks),
                *chains.check_change(before, self.known, self.world, step),
                *chains.check_graph(self.graph(), self.known, self.world),
            ]
        )

    def graph(self) -> chains.Graph:
        return chains.follow(self.known, self.world)

    def contents(self) -> list[Finding]:
        return list(content.Contents(self.numbers).check(self.world, self.known, self.graph()))

    def write(self, image: str, vdev: str, lba: int, word: str) -> None:
        """Let the guest write to an image, and the model to the disk."""
        self.world = apply(self.world, do.Write(vdev=vdev, lba=lba, word=word)).after
        self.plant(image, content.sector(self.numbers[vdev], lba, word), lba)

    def plant(self, image: str, data: bytes, lba: int) -> None:
        source = self.directory / "sector"
        source.write_bytes(data)
        format = "raw" if image.endswith(".raw") else "qcow2"
        command = ["qemu-io", "-f", format, "-c", f"write -s {source} {lba * 512} 512", self.path(image)]
        subprocess.run(command, check=True, capture_output=True)
        source.unlink()


@pytest.fixture
def chained(tmp_path: Path) -> Chained:
    return Chained(tmp_path)


def external(name: str, **targets: str | None) -> do.Create:
    disks = tuple(DiskChoice(vdev=v, type="external", target=target) for v, target in targets.items())
    return do.Create(name=name, disks=disks)


@needs_qemu_img
def test_chains_that_are_right(chained: Chained) -> None:
    chained.overlay("a", "hda.qcow2")
    chained.overlay("b", "hdb.raw")
    step = external("s", hda=chained.path("a"), hdb=None)
    assert chained.after(step, chained.uses(hda="a", hdb="b")) == []
    chained.overlay("c", "a")
    assert chained.after(external("t", hda=None), chained.uses(hda="c")) == []
    assert chained.known.places["t", "hda"] == Place(chained.path("a"), "qcow2")
    assert chained.known.places["s", "hdb"].format == "raw"
    chained.overlay("d", "hda.qcow2")
    chained.overlay("e", "hdb.raw")
    assert chained.after(do.Revert(name="s"), chained.uses(hda="d", hdb="e")) == []
    assert chained.graph().below(chained.path("a")) == [chained.path("hda.qcow2")]


@needs_qemu_img
@pytest.mark.parametrize(
    ("make", "base", "format", "aspect"),
    [
        ("hda.qcow2", None, None, Aspect.DISK_IMAGE),
        ("elsewhere", "hda.qcow2", None, Aspect.OVERLAY_PLACE),
        ("a", "hdb.raw", None, Aspect.OVERLAY),
        ("a", "hda.qcow2", "raw", Aspect.OVERLAY),
    ],
)
def test_a_wrong_overlay_is_found(
    make: str, base: str | None, format: str | None, aspect: Aspect, chained: Chained
) -> None:
    if base is not None:
        chained.overlay(make, base, format)
    found = chained.after(external("s", hda=chained.path("a")), chained.uses(hda=make))
    assert found[0] == aspect


@needs_qemu_img
def test_an_overlay_that_names_no_format_is_found(chained: Chained) -> None:
    path = chained.overlay("a", "hda.qcow2")
    data = Path(path).read_bytes()
    at = data.index((0xE2792ACA).to_bytes(4, "big"))
    Path(path).write_bytes(data[:at] + bytes(4) + data[at + 4 :])
    found = chained.after(external("s", hda=None), chained.uses(hda="a"))
    assert found == [Aspect.OVERLAY, Aspect.BACKING]


@needs_qemu_img
def test_a_disk_that_went_elsewhere_is_found(chained: Chained) -> None:
    chained.overlay("a", "hda.qcow2")
    assert chained.after(do.PowerCycle(), chained.uses(hda="a")) == [Aspect.DISK_IMAGE]
    assert Aspect.DISKS in chained.after(do.Check(), chained.uses()[:1])


@needs_qemu_img
def test_an_image_that_lies_over_itself_is_found(chained: Chained) -> None:
    chained.overlay("a", "hda.qcow2")
    chained.after(external("s", hda=None), chained.uses(hda="a"))
    chained.overlay("b", "a")
    chained.after(external("t", hda=None), chained.uses(hda="b"))
    qemu_img("rebase", "-u", "-f", "qcow2", "-b", chained.path("b"), "-F", "qcow2", chained.path("a"))
    found = aspects(chains.check_graph(chained.graph(), chained.known, chained.world))
    assert Aspect.BACKING in found
    assert aspects(chained.contents())[-1] == Aspect.IMAGE_SOUND


@needs_qemu_img
def test_an_image_that_is_gone_is_found(chained: Chained) -> None:
    chained.overlay("a", "hda.qcow2")
    chained.after(external("s", hda=None), chained.uses(hda="a"))
    chained.overlay("b", "a")
    chained.after(external("t", hda=None), chained.uses(hda="b"))
    Path(chained.path("a")).unlink()
    assert chained.after(do.Delete(name="s"), chained.uses()) == [Aspect.IMAGE_GONE]
    Path(chained.path("hda.qcow2")).unlink()
    assert Aspect.FIRST_IMAGE in chained.after(do.Check(), chained.uses())


@needs_qemu_img
def test_a_guest_that_writes_below_others_is_found(chained: Chained) -> None:
    chained.overlay("a", "hda.qcow2")
    chained.after(external("s", hda=None), chained.uses(hda="a"))
    assert chained.after(do.Revert(name="s"), chained.uses(hda="hda.qcow2")) == [Aspect.WRITES_BELOW]
    chained.overlay("b", "a")
    assert chained.after(do.Revert(name="s"), chained.uses(hda="b")) == []
    assert chained.after(external("t", hda=None), chained.uses(hda="c")) != []


@needs_qemu_img
def test_after_a_delete_the_metadata_tells_where_snapshots_are(chained: Chained) -> None:
    chained.overlay("a", "hda.qcow2")
    chained.after(external("s", hda=None), chained.uses(hda="a"))
    chained.overlay("b", "a")
    chained.after(external("t", hda=None), chained.uses(hda="b"))
    qemu_img("rebase", "-u", "-f", "qcow2", "-b", chained.path("hda.qcow2"), "-F", "qcow2", chained.path("b"))
    Path(chained.path("a")).unlink()
    told = {("t", "hda"): Place(chained.path("hda.qcow2"), "qcow2")}
    assert chained.after(do.Delete(name="s"), chained.uses(), told) == []
    elsewhere = {("t", "hda"): Place(chained.path("b"), "qcow2")}
    assert chained.after(do.Check(), chained.uses(), elsewhere) == []
    assert chained.known.places["t", "hda"].path == chained.path("hda.qcow2"), (
        "only a delete moves a snapshot"
    )


# --- what images hold -----------------------------------------------------------------------------------


@needs_qemu_img
@pytest.mark.parametrize("base", ["hda.qcow2", "hdb.raw"])
def test_contents_that_are_right_and_those_that_are_not(base: str, chained: Chained) -> None:
    vdev = base[:3]
    chained.write(base, vdev, 1, "one")
    chained.write(base, vdev, 2047, "last")
    chained.overlay("a", base)
    chained.after(external("s", **{vdev: None}), chained.uses(**{vdev: "a"}))
    chained.write("a", vdev, 1, "two")
    chained.overlay("b", "a")
    chained.after(external("t", **{vdev: None}), chained.uses(**{vdev: "b"}))
    chained.write("b", vdev, 7, "three")
    assert chained.contents() == []
    chained.plant("a", bytes(512), 2047)
    (finding,) = chained.contents()
    assert (finding.aspect, finding.expected, finding.observed) == (Aspect.STATE_CHANGED, "last", None)
    chained.plant(base, content.sector(chained.numbers[vdev], 9, "nine"), 9)
    found = chained.contents()
    assert [(f.summary[-8:], f.observed) for f in found] == [("sector 9", "nine"), ("tor 2047", None)]


@needs_qemu_img
def test_files_that_did_not_change_are_not_read_again(chained: Chained) -> None:
    chained.write("hda.qcow2", "hda", 1, "one")
    chained.overlay("a", "hda.qcow2")
    chained.after(external("s", hda=None), chained.uses(hda="a"))
    contents = content.Contents(chained.numbers)

    def look(**how: bool) -> list[Finding]:
        return list(contents.check(chained.world, chained.known, chained.graph(), **how))

    assert look() == []
    (snapshot,) = chained.world.snapshots
    wrong = replace(snapshot, sectors={"hda": {1: "another"}})
    chained.world = replace(chained.world, snapshots=(wrong,))
    assert look() == [], "passed over"
    assert aspects(look(thorough=True)) == [Aspect.STATE_CHANGED]


@needs_qemu_img
@pytest.mark.parametrize("options", ["compat=0.10", "compat=1.1", "cluster_size=512", "cluster_size=2M"])
@pytest.mark.parametrize("compressed", [False, True])
def test_content_and_qemu_img_agree(options: str, compressed: bool, tmp_path: Path) -> None:
    """Data, zeros over data, holes, and clusters that are compressed or not."""
    base, top = tmp_path / "base", tmp_path / "top"
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, base, "3M")
    write = "write -c" if compressed else "write"
    size = "2M" if options.endswith("2M") else "64k"
    for path, commands in (
        (base, [f"{write} -P 17 0 {size}", "write -P 18 2M 200k"]),
        (top, [f"{write} -P 33 {size} 64k", "write -P 34 2560k 1k", "write -z 2100k 1k"]),
    ):
        if path == top:
            qemu_img("create", "-q", "-f", "qcow2", "-o", options, "-b", base, "-F", "qcow2", top)
        words = [word for command in commands for word in ("-c", command)]
        subprocess.run(["qemu-io", "-f", "qcow2", *words, path], check=False, capture_output=True)
    qemu_img("convert", "-f", "qcow2", "-O", "raw", top, tmp_path / "raw")
    nodes = {str(path): chains.look(str(path), "qcow2") for path in (base, top)}
    assert content.read(str(top), nodes) == (tmp_path / "raw").read_bytes()


@needs_qemu_img
def test_content_of_an_image_that_the_reader_does_not_know_is_told(tmp_path: Path) -> None:
    path = tmp_path / "image"
    qemu_img("create", "-q", "-f", "qcow2", "-o", "extended_l2=on,cluster_size=64k", path, "1M")
    with pytest.raises(qcow2.ImageError, match="features"):
        content.read(str(path), {str(path): chains.look(str(path), "qcow2")})


def test_a_sector_is_as_the_guest_writes_it() -> None:
    """As guest/README.md describes it."""
    data = content.sector(4, 7, "word")
    assert (len(data), data[:16]) == (512, b"PRB2" + bytes([4, 0, 0, 0, 7, 0, 0, 0]) + b"word")
    assert content.expected(4, {7: "word"}, 4096)[3584:] == data
    assert not content.expected(4, {7: "word"}, 4096)[:3584].strip(b"\0")


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
EXTERNAL = (ListedDisk(vdev="hda", type="external"), ListedDisk(vdev="xvda"))


def test_a_list_that_is_right() -> None:
    assert not list(listing.check(played(*TWO), LISTED, {"one": (99, 100)}))
    assert not list(listing.check(played(*TWO), (row("one", state="b"), LISTED[1]))), "idle is blocked"
    assert not list(listing.check(played(*TWO), LISTED[::-1])), "within a second any order is right"
    tree = (row("one", parent=""), row("two", parent="one"))
    assert not list(listing.check(played(*TWO), tree, current="two"))
    assert aspects(listing.check(played(*TWO), tree, current="one")) == [Aspect.LIST_TREE]
    world = played(external("one", hda=None))
    assert not list(listing.check(world, (row("one", disks=EXTERNAL[:1]),)))


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
        ((row("one", disks=EXTERNAL), LISTED[1]), Aspect.LIST_DISKS),
        ((LISTED[0], row("two", parent="")), Aspect.LIST_TREE),
        ((row("one", parent="two"), LISTED[1]), Aspect.LIST_TREE),
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
    known = chains.observe(beginning(*paths.values()), world, do.Check(), None, None)
    return aspects(metadata.check(world, metadata.read(directory), known, directory.parent, times))


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
    known = beginning()
    assert not list(metadata.check(played(), metadata.read(tmp_path / "none"), known, tmp_path))
    found = aspects(metadata.check(played(*TWO), metadata.read(tmp_path / "none"), known, tmp_path))
    assert found == [Aspect.METADATA_SET, Aspect.DEFAULT_MEMORY]


EDITS: dict[str, tuple[Callable[[dict[str, Any]], object], Aspect]] = {
    "name": (lambda value: value.update(name="two"), Aspect.METADATA_FIELDS),
    "no name": (lambda value: value.pop("name"), Aspect.METADATA_FIELDS),
    "description": (lambda value: value.pop("description"), Aspect.METADATA_FIELDS),
    "type": (lambda value: value.update(type="any"), Aspect.METADATA_TYPE),
    "type of a disk": (lambda value: value["disks"][0].update(type="external"), Aspect.METADATA_DISKS),
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


EXTERNAL_EDITS: dict[str, tuple[Callable[[dict[str, Any]], object], Aspect]] = {
    "type": (lambda value: value.update(type="external"), Aspect.METADATA_TYPE),
    "type of a disk": (lambda value: value["disks"][0].update(type="internal"), Aspect.METADATA_EXTERNAL),
    "overlay as path": (lambda value: value["disks"][0].update(path="/new"), Aspect.METADATA_EXTERNAL),
    "no file": (lambda value: value["disks"][0].pop("file"), Aspect.METADATA_EXTERNAL),
    "another file": (lambda value: value["disks"][0].update(file="/other"), Aspect.METADATA_EXTERNAL),
    "format": (lambda value: value["disks"][0].update(format="raw"), Aspect.METADATA_EXTERNAL),
    "nothing": (lambda value: None, Aspect.ACCEPTED),
}


@pytest.mark.parametrize("what", EXTERNAL_EDITS)
def test_metadata_of_external_disks(what: str, tmp_path: Path) -> None:
    edit, aspect = EXTERNAL_EDITS[what]
    disks = (DiskChoice(vdev="hda", type="external"), DiskChoice(vdev="xvda"))
    world = played(do.Create(name="one", memory="no", disks=disks))
    base, inner, overlay = (str(tmp_path / name) for name in ("hda.qcow2", "xvda.qcow2", "new.qcow2"))
    common = {"device": "hda", "name": "one", "format": "qcow2"}
    value = {"name": "one", "creation_time": 100, "type": "any", "running": True}
    value["disks"] = [
        {**common, "type": "external", "path": base, "file": overlay},
        {**common, "type": "internal", "path": inner, "device": "xvda"},
    ]
    edit(value)
    directory = tmp_path / "metadata"
    directory.mkdir(mode=0o700)
    path = directory / "snapshotdata-d.one.libxl-json"
    path.write_text(json.dumps(value))
    path.chmod(0o600)
    known = chains.Chains.of({"hda": Place(base, "qcow2"), "xvda": Place(inner, "qcow2")})
    uses = [
        DiskInUse(vdev="hda", path=overlay, format="qcow2"),
        DiskInUse(vdev="xvda", path=inner, format="qcow2"),
    ]
    known = chains.observe(known, world, do.Check(), uses, None)
    found = aspects(metadata.check(world, metadata.read(directory), known, tmp_path))
    assert found == ([] if aspect is Aspect.ACCEPTED else [aspect])


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
    for name, text in (("hda.qcow2", ""), ("mine", "mine"), ("memory", "")):
        (tmp_path / name).write_text(text)

    def look(*, sure: bool = True) -> list[Aspect]:
        used = {str(tmp_path / "hda.qcow2")}
        return aspects(leftovers.check(world, used, tmp_path, {"ignored"}, sure=sure))

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
    (tmp_path / "below" / "more").write_bytes(qcow2.MAGIC)
    assert look() == [Aspect.OVERLAY_LEFT]
    assert look(sure=False) == []
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
