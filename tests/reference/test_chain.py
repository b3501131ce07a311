# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which images lie over which, which are needed, and which pairs can become one."""

from xlsnap.chain import Images, Merge, Need, chain, with_images
from xlsnap.domain import DomainConfig, DomainRecord, Overlay
from xlsnap.snapshot import SnapshotType
from xlsnap.steps import DiskImage
from xlsnap_grammars import DiskSpec

INTERNAL, EXTERNAL = SnapshotType.INTERNAL, SnapshotType.EXTERNAL

# a.img <- 1 <- 2 <- 3 (present)
#            <- 4
OVERLAYS = (
    Overlay("/1", "/a.img", "raw"),
    Overlay("/2", "/1", "qcow2"),
    Overlay("/3", "/2", "qcow2"),
    Overlay("/4", "/1", "qcow2"),
)
CONFIG = DomainConfig(name="d", disks=(DiskSpec(target="/3", format="qcow2", vdev="hda"),))


def images(*needs: tuple[str, SnapshotType]) -> Images:
    return Images.of(OVERLAYS, CONFIG, [Need("hda", path, kind) for path, kind in needs])


def image(path: str, image_format: str = "qcow2") -> DiskImage:
    return DiskImage("hda", path, image_format)


def test_what_lies_below_and_above() -> None:
    found = images()
    assert list(found.below("/3")) == ["/2", "/1", "/a.img"]
    assert found.above("/1") == ["/2", "/4"]
    assert found.first("/3") == "/a.img"
    assert found.first("/other.img") == "/other.img"


def test_a_copy_comes_from_the_first_image_of_its_disk() -> None:
    copied = Images.of([Overlay("/c", copy_of="/a.img"), Overlay("/d", "/c", "qcow2")], CONFIG, [])
    assert copied.first("/d") == "/a.img"


def test_images_that_nobody_reads_from_are_unused_the_upper_ones_first() -> None:
    assert images(("/1", EXTERNAL)).unused == ("/4",)
    without_disk = Images.of(OVERLAYS, DomainConfig(name="d"), [Need("hda", "/1", EXTERNAL)])
    assert without_disk.unused[0] == "/3"
    assert set(without_disk.unused) == {"/2", "/3", "/4"}


def test_content_is_frozen_by_an_external_snapshot_and_by_whatever_lies_over_it() -> None:
    assert images(("/2", EXTERNAL)).is_frozen("/2")
    assert images(("/2", EXTERNAL)).is_frozen("/1")
    assert images(("/4", INTERNAL)).is_frozen("/1"), "the tag in /4 reads from /1"
    assert not images(("/3", INTERNAL)).is_frozen("/3"), "a tag keeps its own content"
    assert images().is_frozen("/2")
    assert not images().is_frozen("/2", without="/3")


def test_a_pair_can_be_merged_if_nobody_needs_the_lower_one() -> None:
    found = images(("/1", EXTERNAL), ("/a.img", EXTERNAL))
    assert list(found.merges()) == [Merge(image("/3"), image("/2"), active=True)]


def test_lower_pairs_come_first_and_keep_the_format_of_the_base() -> None:
    first = next(images().merges())
    assert first == Merge(image("/1"), image("/a.img", "raw"), active=False)


def test_no_merge_into_what_another_branch_reads_from() -> None:
    found = images(("/4", EXTERNAL), ("/a.img", EXTERNAL))
    assert [merge.base.path for merge in found.merges()] == ["/2"]


def test_no_merge_of_an_image_that_holds_an_internal_snapshot() -> None:
    needed = (("/a.img", EXTERNAL), ("/1", EXTERNAL))
    assert list(images(*needed, ("/3", INTERNAL)).merges()) == []
    assert len(list(images(*needed, ("/2", INTERNAL)).merges())) == 1, "into it is no harm"


def test_the_chain_of_a_disk_ends_with_the_users_image() -> None:
    record = DomainRecord(uuid="u", name="d", config=CONFIG, overlays=OVERLAYS)
    assert chain(record, image("/3")) == (image("/3"), image("/2"), image("/1"), image("/a.img", "raw"))
    assert chain(record, image("/a.img", "raw")) == (image("/a.img", "raw"),)


def test_other_images_for_some_disks() -> None:
    assert with_images(CONFIG, {"hda": image("/x", "raw")}).disks[0] == DiskSpec(
        target="/x", format="raw", vdev="hda"
    )
    assert with_images(CONFIG, {"hdb": image("/x")}) == CONFIG
