# SPDX-License-Identifier: LGPL-2.1-or-later
"""Metadata files: libxl's JSON, read and written without loss."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xlsnap.errors import SnapshotDamagedError
from xlsnap.snapshot import DiskSnapshot, DomainSnapshot, SnapshotType, from_json, to_json

EXAMPLE = DomainSnapshot(
    name="before update",
    description='with "quotes" and ü',
    creation_time=1403510400,
    memory="/var/lib/xen/snapshots/u/before update.save",
    type=SnapshotType.INTERNAL,
    running=True,
    disks=(DiskSnapshot(device="hda", name="before update", path="/img/a.qcow2", format="qcow2"),),
    extra={"xlsnap_order": 7},
)


def test_field_names_are_those_of_libxl() -> None:
    data = json.loads(to_json(EXAMPLE))
    assert list(data) == [
        *("name", "description", "creation_time", "memory", "type"),
        *("running", "blocked", "paused", "shutdown", "dying", "disks", "xlsnap_order"),
    ]
    assert data["type"] == "internal"
    assert data["disks"] == [
        {
            "device": "hda",
            "name": "before update",
            "format": "qcow2",
            "path": "/img/a.qcow2",
            "type": "internal",
        }
    ]


def test_disk_only_has_no_memory_key() -> None:
    data = json.loads(to_json(DomainSnapshot(name="x")))
    assert "memory" not in data
    assert from_json(to_json(DomainSnapshot(name="x")), where="x").disk_only


def test_what_libxl_leaves_out_gets_its_default() -> None:
    snapshot = from_json(b'{"name": "x", "creation_time": 5}', where="x")
    assert snapshot == DomainSnapshot(name="x", creation_time=5)


names = st.text(min_size=1, max_size=20)
extras = st.dictionaries(
    st.text(max_size=9).map(lambda key: "k_" + key), st.integers() | st.text() | st.none(), max_size=3
)
disks = st.builds(
    DiskSnapshot,
    device=names,
    name=names,
    path=names,
    format=names,
    type=st.sampled_from(SnapshotType),
    file=st.none() | names,
    extra=extras,
)
snapshots = st.builds(
    DomainSnapshot,
    name=names,
    description=st.text(),
    creation_time=st.integers(0, 2**63 - 1),
    memory=st.none() | names,
    type=st.sampled_from(SnapshotType),
    running=st.booleans(),
    paused=st.booleans(),
    disks=st.lists(disks, max_size=3).map(tuple),
    extra=extras,
)


@given(snapshots)
def test_nothing_is_lost_in_a_round_trip(snapshot: DomainSnapshot) -> None:
    assert from_json(to_json(snapshot), where="x") == snapshot


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"null",
        b'{"name": 5}',
        b'{"name": "x", "disks": [5]}',
        b'{"disks": {}}',
        b"\xff",
    ],
)
def test_damaged_metadata_is_named(data: bytes) -> None:
    with pytest.raises(SnapshotDamagedError, match="somewhere: not snapshot metadata"):
        from_json(data, where="somewhere")


def test_state_letters_are_those_of_xl_list() -> None:
    assert DomainSnapshot(name="x", running=True).state_letters == "r-----"
    assert DomainSnapshot(name="x", paused=True).state_letters == "--p---"
    assert DomainSnapshot(name="x").state_letters == "------"


def test_order_is_by_creation_time_then_by_our_finer_key_then_by_name() -> None:
    first = DomainSnapshot(name="z", creation_time=1)
    second = DomainSnapshot(name="y", creation_time=2, extra={"xlsnap_order": 5})
    third = DomainSnapshot(name="a", creation_time=2, extra={"xlsnap_order": 6})
    fourth = DomainSnapshot(name="b", creation_time=2, extra={"xlsnap_order": 6})
    assert sorted([fourth, third, second, first], key=lambda item: item.sort_key) == [
        first,
        second,
        third,
        fourth,
    ]
