# SPDX-License-Identifier: LGPL-2.1-or-later
"""libxl's snapshot API of proposal v4, in Python.

The proposal leaves policy to the toolstack above: these functions store and load metadata, and snapshot,
delete and revert disks, each on its own. `Toolstack` is the policy; use this when you bring your own.
Functions have libxl's names without their prefix; a domain is named by its domid, as there, or by uuid
where it may be stopped. Errors are exceptions of `xlsnap.errors` instead of negative numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from . import plan as planning
from .domain import DomainRecord
from .errors import DiskChoiceError, DomainStateError, InputError, SnapshotDamagedError
from .executor import Executor
from .layout import StateRoot
from .names import check_name
from .snapshot import DiskSnapshot, DomainSnapshot, SnapshotType, to_json
from .steps import ApplyDiskSnapshots, DiskImage, DropDiskSnapshots, TaggedImage, TakeDiskSnapshots
from .toolstack import Toolstack

__all__ = ["Context", "DiskSnapshot", "DomainSnapshot", "SnapshotType"]


class Context:
    """A `libxl_ctx`: the state root and the connections to domains. Close it when done."""

    def __init__(self, root: StateRoot | None = None, *, accelerator: str = "auto") -> None:
        self._toolstack = Toolstack(root or StateRoot.default(), accelerator=accelerator)

    async def __aenter__(self) -> Context:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._toolstack.close()

    # --- metadata ---------------------------------------------------------------------------------------

    def load_dom_snapshot(self, domain: int | str, name: str) -> DomainSnapshot:
        """Return the stored metadata of a snapshot.

        :raise UnknownSnapshotError: if there is none of this name.
        """
        record = self._record(domain)
        return planning.find_snapshot(record.name, self._toolstack.store.snapshots(record.uuid), name)

    def store_dom_snapshot(self, domain: int | str, snapshot: DomainSnapshot) -> None:
        """Store metadata, replacing what was stored under this name; unknown keys of it are kept."""
        record = self._record(domain)
        check_name(snapshot.name)
        paths = self._toolstack.root.domain(record.uuid)
        self._toolstack.store.write_metadata(paths, snapshot.name, to_json(snapshot))

    def delete_dom_snapshot(self, domain: int | str, name: str) -> None:
        """Remove metadata only: disk snapshots and memory image stay."""
        record = self._record(domain)
        self.load_dom_snapshot(domain, name)
        self._toolstack.store.forget_metadata(self._toolstack.root.domain(record.uuid), name)

    def list_dom_snapshot(self, domain: int | str) -> list[DomainSnapshot]:
        """Return the metadata of all snapshots of a domain, by creation time."""
        return self._toolstack.store.list_snapshots(self._record(domain).uuid)

    # --- disks ------------------------------------------------------------------------------------------

    async def disk_snapshot_create(self, domain: int | str, snapshots: Sequence[DiskSnapshot]) -> None:
        """Take internal snapshots of disks in one QMP transaction. The domain must be active."""
        async with self._operating(domain) as run:
            if not self._toolstack.host.is_active(run.record):
                raise DomainStateError(f"domain {run.record.name!r} is not running")
            name, disks = _one_name(run.record, snapshots)
            await run.perform(TakeDiskSnapshots(name=name, disks=disks))

    async def disk_snapshot_delete(self, domain: int | str, snapshots: Sequence[DiskSnapshot]) -> None:
        """Delete internal snapshots of disks; the domain may be stopped."""
        async with self._operating(domain) as run:
            name, disks = _one_name(run.record, snapshots)
            await run.perform(DropDiskSnapshots(name=name, disks=disks))

    async def disk_snapshot_revert(self, domain: int | str, snapshots: Sequence[DiskSnapshot]) -> None:
        """Make the state of internal snapshots the disks' current one. The domain must be stopped."""
        async with self._operating(domain) as run:
            if self._toolstack.host.is_active(run.record):
                raise DomainStateError(f"domain {run.record.name!r} is active", hint="destroy it first")
            _, disks = _one_name(run.record, snapshots)
            states = await self._toolstack.host.inspect(run.record, disks)
            found = [
                planning.observe_disk(wanted, state) for wanted, state in zip(snapshots, states, strict=True)
            ]
            problems = [f"disk {disk.image.vdev}: {disk.problem}" for disk in found if disk.problem]
            if problems:
                raise SnapshotDamagedError("; ".join(problems))
            tagged = tuple(TaggedImage(disk.image, disk.tag_id) for disk in found)
            await run.perform(ApplyDiskSnapshots(disks=tagged))

    # --- domains ----------------------------------------------------------------------------------------

    def _record(self, domain: int | str) -> DomainRecord:
        return self._toolstack.resolve(str(domain))

    @contextlib.asynccontextmanager
    async def _operating(self, domain: int | str) -> AsyncIterator[Executor]:
        async with self._toolstack.operating(self._record(domain).uuid) as run:
            yield run


def _one_name(record: DomainRecord, snapshots: Sequence[DiskSnapshot]) -> tuple[str, tuple[DiskImage, ...]]:
    """Check disk snapshots that are to be handled together and return their common name and their images.

    An empty ``path`` or ``format`` is taken from the domain, as the 2014 code did.
    """
    names = {snapshot.name for snapshot in snapshots}
    if len(names) != 1:
        raise InputError(f"disk snapshots of one call must have one name, not {len(names)}")
    disks = []
    for snapshot in snapshots:
        if snapshot.type is SnapshotType.EXTERNAL:
            raise DiskChoiceError(
                f"disk {snapshot.device}: external snapshots are not supported by this version"
            )
        disk = record.config.disk(snapshot.device)
        if disk is None:
            raise DiskChoiceError(f"domain {record.name!r} has no disk {snapshot.device!r}")
        path = snapshot.path or str(disk.target)
        disks.append(DiskImage(snapshot.device, path, snapshot.format or disk.format))
    return check_name(names.pop()), tuple(disks)
