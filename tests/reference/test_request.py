# SPDX-License-Identifier: LGPL-2.1-or-later
"""A configuration file and options made one request, or refused (xl man page, snapshot-create)."""

from __future__ import annotations

from typing import Any

import pytest
from xlsnap.errors import ConfigConflictError
from xlsnap.request import SnapshotRequest, combine
from xlsnap_grammars import SnapshotDisk, parse_snapshot_config

MEMORY = 'memory = "yes"\n'
EXTERNAL = 'type = "external"\n'
ONE_DISK = "disk = [ 'vdev=hda' ]\n"


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        (None, {}, SnapshotRequest()),
        (None, {"name": "n"}, SnapshotRequest(name="n")),
        (None, {"disk_only": True}, SnapshotRequest(memory=False)),
        (None, {"live": True}, SnapshotRequest(live=True)),
        ("", {}, SnapshotRequest(memory=False)),
        ("", {"disk_only": True}, SnapshotRequest(memory=False)),
        (MEMORY, {"live": True}, SnapshotRequest(live=True)),
        (MEMORY + "live = 1\n", {}, SnapshotRequest(live=True)),
        (MEMORY + "live = 1\n", {"live": True}, SnapshotRequest(live=True)),
        (MEMORY + "live = 0\n", {}, SnapshotRequest()),
        ('memory = "/m"\n', {}, SnapshotRequest(memory_path="/m")),
        (EXTERNAL, {}, SnapshotRequest(memory=False, type="external")),
        (MEMORY + EXTERNAL, {"live": True}, SnapshotRequest(type="external", live=True)),
        ('type = "internal"\n', {"disk_only": True}, SnapshotRequest(memory=False, type="internal")),
        (
            EXTERNAL + ONE_DISK,
            {},
            SnapshotRequest(
                memory=False,
                type="external",
                disks=(SnapshotDisk("hda", "external", None, "qcow2"),),
            ),
        ),
        (
            EXTERNAL + "disk = [ 'vdev=hda,target=null' ]\n",
            {"disk_only": True},
            SnapshotRequest(memory=False, type="external", disks=(SnapshotDisk("hda", "internal"),)),
        ),
    ],
)
def test_what_is_asked_for(text: str | None, options: dict[str, Any], expected: SnapshotRequest) -> None:
    config = None if text is None else parse_snapshot_config(text)
    assert combine(config, **options) == expected


@pytest.mark.parametrize(
    ("text", "options", "complaint"),
    [
        (None, {"disk_only": True, "live": True}, "option -D asks for disks only, --live"),
        (MEMORY, {"disk_only": True, "live": True}, "option -D asks for disks only, --live"),
        ("name = 'a'\n", {"name": "b"}, "names the snapshot 'a', option -n 'b'"),
        (MEMORY, {"disk_only": True}, "memory='yes', option -D"),
        (EXTERNAL, {"disk_only": True}, "internal snapshots, the configuration file has type='external'"),
        (EXTERNAL + ONE_DISK, {"disk_only": True}, "an external one of hda"),
        (MEMORY + "live = 0\n", {"live": True}, "live=0, option --live"),
        ("", {"live": True}, "--live saves the memory of a running guest"),
    ],
)
def test_contradictions(text: str | None, options: dict[str, Any], complaint: str) -> None:
    config = None if text is None else parse_snapshot_config(text)
    with pytest.raises(ConfigConflictError, match=complaint) as caught:
        combine(config, **options)
    assert caught.value.hint


def test_a_live_snapshot_has_memory_in_python_too() -> None:
    with pytest.raises(ConfigConflictError, match="a live snapshot needs memory"):
        SnapshotRequest(live=True, memory=False)
