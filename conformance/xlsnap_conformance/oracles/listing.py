# SPDX-License-Identifier: LGPL-2.1-or-later
"""The implementation's own list of snapshots, compared with the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..model import Snapshot, World
from ..protocol import ListedSnapshot
from . import Aspect, Finding

_STATE_LETTERS = {"running": ("r", "b"), "paused": ("p",)}
"""Letters of `xl list` for the state at the time of the snapshot; an idle running domain is blocked."""


def check(
    world: World,
    listed: Sequence[ListedSnapshot],
    times: Mapping[str, tuple[int, int]] | None = None,
    *,
    current: str | None = None,
    ordered: bool = True,
) -> Iterator[Finding]:
    """Compare names, order and what is told of each snapshot.

    :param times: name to the seconds since the epoch between which the snapshot was made.
    :param current: the snapshot that the domain's state comes from, if the list tells it.
    :param ordered: whether the list claims to be in order of creation.
    """
    expected = [snapshot.name for snapshot in world.snapshots]
    observed = [snapshot.name for snapshot in listed]
    missing = [name for name in expected if name not in observed]
    more = [name for name in observed if name not in expected or observed.count(name) > 1]
    if missing:
        yield Finding(Aspect.NOT_LISTED, f"the list lacks {missing}", expected, observed)
    if more:
        yield Finding(Aspect.LISTED_TOO_MUCH, f"the list shows {more} too many", expected, observed)
    if missing or more:
        return
    created = {snapshot.name: snapshot.creation_time for snapshot in listed}
    if ordered and list(created.values()) != sorted(created.values()):  # within one second any order is right
        yield Finding(Aspect.LIST_ORDER, "the list is not sorted by creation time", expected, created)
    for snapshot in world.snapshots:
        row = next(row for row in listed if row.name == snapshot.name)
        yield from _compare(snapshot, row)
        first, last = (times or {}).get(snapshot.name, (created[snapshot.name],) * 2)
        if not first <= created[snapshot.name] <= last:
            summary = f"the list tells another creation time of {snapshot.name!r}"
            yield Finding(Aspect.LIST_TIME, summary, f"{first} to {last}", created[snapshot.name])

    if current is not None and current != (world.current or ""):
        yield Finding(Aspect.LIST_TREE, "the list tells another current snapshot", world.current, current)


def _compare(snapshot: Snapshot, row: ListedSnapshot) -> Iterator[Finding]:
    letters = _STATE_LETTERS[snapshot.state]
    parent = snapshot.parent or ""
    types = {vdev: "external" if vdev in snapshot.external else "internal" for vdev in snapshot.disks}
    for aspect, what, wanted, found in (
        (Aspect.LIST_DESCRIPTION, "description", snapshot.description, row.description),
        (Aspect.LIST_FIELDS, "disk_only", not snapshot.has_memory, row.disk_only),
        (Aspect.LIST_FIELDS, "state", row.state if row.state in letters else letters[0], row.state),
        (Aspect.LIST_DISKS, "disks", types, {disk.vdev: disk.type for disk in row.disks}),
        (Aspect.LIST_TREE, "parent", parent, parent if row.parent is None else row.parent),
    ):
        if wanted != found:
            yield Finding(aspect, f"the list tells other {what} of {snapshot.name!r}", wanted, found)
