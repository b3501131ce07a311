# SPDX-License-Identifier: LGPL-2.1-or-later
"""The implementation's own list of snapshots, compared with the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..model import Snapshot, World
from ..protocol import ListedSnapshot
from . import Aspect, Finding

_STATE_LETTERS = {"running": ("r", "b"), "paused": ("p",)}
"""Letters of `xl list` for the state at the time of the snapshot; an idle running domain is blocked."""


def check(
    world: World, listed: Sequence[ListedSnapshot], times: Mapping[str, tuple[int, int]] | None = None
) -> Iterator[Finding]:
    """Compare names, order and what is told of each snapshot.

    :param times: name to the seconds since the epoch between which the snapshot was made.
    """
    expected = [snapshot.name for snapshot in world.snapshots]
    observed = [snapshot.name for snapshot in listed]
    if sorted(expected) != sorted(observed):
        missing = [name for name in expected if name not in observed]
        more = [name for name in observed if name not in expected or observed.count(name) > 1]
        what = f"lacks {missing}" if missing else f"shows {more} too many"
        yield Finding(Aspect.LIST_NAMES, f"the list {what}", expected, observed)
        return
    created = {snapshot.name: snapshot.creation_time for snapshot in listed}
    if list(created.values()) != sorted(created.values()):  # within one second any order is right
        yield Finding(Aspect.LIST_ORDER, "the list is not sorted by creation time", expected, created)
    for snapshot in world.snapshots:
        row = next(row for row in listed if row.name == snapshot.name)
        yield from _compare(snapshot, row)
        first, last = (times or {}).get(snapshot.name, (created[snapshot.name],) * 2)
        if not first <= created[snapshot.name] <= last:
            summary = f"the list tells another creation time of {snapshot.name!r}"
            yield Finding(Aspect.CREATION_TIME, summary, f"{first} to {last}", created[snapshot.name])


def _compare(snapshot: Snapshot, row: ListedSnapshot) -> Iterator[Finding]:
    letters = _STATE_LETTERS[snapshot.state]
    wanted: dict[str, Any] = {
        "description": snapshot.description,
        "disk_only": not snapshot.has_memory,
        "state": row.state if row.state in letters else letters[0],
        "disks": sorted(snapshot.disks),
    }
    found: dict[str, Any] = {
        "description": row.description,
        "disk_only": row.disk_only,
        "state": row.state,
        "disks": sorted(disk.vdev for disk in row.disks),
    }
    for key, value in wanted.items():
        if found[key] != value:
            yield Finding(
                Aspect.LIST_FIELDS, f"the list tells another {key} of {snapshot.name!r}", value, found[key]
            )
