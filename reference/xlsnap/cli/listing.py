# SPDX-License-Identifier: LGPL-2.1-or-later
"""``xlsnap snapshot-list``: table, long form, JSON or tree. It loads nothing that only operations need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from ..errors import UnknownSnapshotError
from ..snapshot import DiskSnapshot, DomainSnapshot, to_json
from ..store import Store
from ..stored import Listing
from . import complete
from .settings import PROGRAM, Settings, pass_settings, warn
from .text import draws_boxes, json_text, local_time, shown, table


@click.command("snapshot-list", short_help="List the snapshots of a domain.")
@click.argument("domain", shell_complete=complete.domains)
@click.option("-n", "--name", metavar="NAME", shell_complete=complete.snapshots, help="Only this snapshot.")
@click.option("-l", "--long", "as_long", is_flag=True, help="Also show description, memory image and disks.")
@click.option("--tree", "as_tree", is_flag=True, help="Show which snapshot came from which.")
@click.option(
    "-o", "output", type=click.Choice(["table", "json"]), default="table", help="Form of the output."
)
@pass_settings
def list_snapshots(
    settings: Settings, domain: str, name: str | None, as_long: bool, as_tree: bool, output: str
) -> str:
    """List the snapshots of DOMAIN, which may be stopped, by creation time.

    In the tree, the state of the domain itself is shown as (now), and * marks the snapshot that it came from.
    A snapshot whose metadata is damaged is told of on standard error. It hides no other and leaves the exit
    status 0, unless -n asks for it.

    \b
    Examples:
      xlsnap snapshot-list vm
      xlsnap snapshot-list --tree vm
      xlsnap snapshot-list -l -n before vm
      xlsnap snapshot-list -o json vm | jq -r '.[] | select(.current).name'
    """
    if as_tree and (as_long or name is not None or output == "json"):
        raise click.UsageError("--tree has all snapshots in a form of its own: leave out -n, -l and -o")
    store = Store(settings.root)
    key = store.find_key(domain)
    listing = store.listing(key.uuid) if name is None else _only(store, key.uuid, domain, name)
    for damaged in listing.damaged:
        warn(f"snapshot {damaged.name!r} cannot be read: {damaged.error} (see {PROGRAM} help snapshot-check)")
    if as_tree:
        return _tree(listing, key.current)
    if output == "json":
        return json_text([{**plain(item), "current": item.name == key.current} for item in listing.snapshots])
    if as_long:
        return "\n\n".join(_long(item, item.name == key.current) for item in listing.snapshots)
    return _short(listing.snapshots)


def _only(store: Store, uuid: str, domain: str, name: str) -> Listing:
    """Return the list with this snapshot alone; damage of others does not matter then."""
    try:
        return Listing((store.snapshots(uuid)[name],))
    except KeyError:
        raise UnknownSnapshotError(f"domain {domain!r} has no snapshot {name!r}") from None


def plain(snapshot: DomainSnapshot) -> Any:
    """Return a snapshot as the values that its metadata file has."""
    import msgspec

    return msgspec.json.decode(to_json(snapshot))


def _short(snapshots: Sequence[DomainSnapshot]) -> str:
    rows = [
        (
            str(tag),
            snapshot.name,
            local_time(snapshot.creation_time),
            snapshot.state_letters,
            "yes" if snapshot.disk_only else "no",
        )
        for tag, snapshot in enumerate(snapshots, start=1)
    ]
    return table(("TAG", "NAME", "DATE", "STATE", "DISK ONLY"), rows)


def _long(snapshot: DomainSnapshot, current: bool) -> str:
    fields = {
        "name": snapshot.name,
        "description": snapshot.description,
        "creation time": local_time(snapshot.creation_time),
        "state": snapshot.state_letters,
        "disk only": "yes" if snapshot.disk_only else "no",
        "memory image": snapshot.memory or "-",
        "parent": snapshot.parent if snapshot.parent is not None else "-",
        "current": "yes" if current else "no",
    }
    lines = [f"{key + ':':<14} {shown(value)}".rstrip() for key, value in fields.items()]
    return "\n".join([*lines, "disks:", *(f"  {_disk(disk)}" for disk in snapshot.disks)])


def _disk(disk: DiskSnapshot) -> str:
    """Return the image that holds the state; of an external one also that with which the domain went on."""
    file = [] if disk.file is None else [f"file {shown(disk.file)}"]
    parts = [disk.type.value, shown(disk.format), shown(disk.path), *file]
    return f"{shown(disk.device)}: {', '.join(parts)}"


def _tree(listing: Listing, current: str | None) -> str:
    from .. import tree

    style = tree.BOXES if draws_boxes() else tree.ASCII
    parents = {snapshot.name: snapshot.parent for snapshot in listing.snapshots}
    damaged = [item.name for item in listing.damaged]
    lines = []
    for row in tree.rows(parents, current=current, damaged=damaged):
        name = tree.NOW if row.name is None else shown(row.name)
        mark = " *" if row.name is not None and row.name == current else ""
        note = f"  ({shown(row.note)})" if row.note else ""
        lines.append(f"{tree.draw(row, style)}{name}{mark}{note}")
    return "\n".join(lines)
