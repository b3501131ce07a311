# SPDX-License-Identifier: LGPL-2.1-or-later
"""libxl's snapshot API of proposal v4, in Python.

The proposal leaves policy to the toolstack above: these functions store and load metadata, and snapshot,
delete and revert disks, each on its own. `Toolstack` is the policy; use this when you bring your own.
Functions have libxl's names without their prefix; a domain is named by its domid, as there, or by uuid
where it may be stopped. Errors are exceptions of `xlsnap.errors` instead of negative numbers.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Literal

import msgspec
from xlsnap_grammars import SnapshotDisk

from . import plan as planning
from .domain import DomainRecord
from .errors import DiskChoiceError, DomainStateError, InputError
from .executor import Executor
from .layout import StateRoot
from .names import check_name
from .request import SnapshotRequest
from .snapshot import DiskSnapshot, DomainSnapshot, SnapshotType, to_json
from .steps import DiskImage, DropDiskSnapshots
from .toolstack import Toolstack, with_overlay_paths, with_paths

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

    async def disk_snapshot_create(
        self, domain: int | str, snapshots: Sequence[DiskSnapshot]
    ) -> tuple[DiskSnapshot, ...]:
        """Take snapshots of disks in one QMP transaction, all or none; return them with all that is known.

        The domain must be active. It goes on with the new overlay ``file`` of an external one; without
        ``file`` one is chosen. Store metadata with what is returned: an image that no metadata names may be
        merged when a `Toolstack` deletes a snapshot.

        :raise DiskChoiceError: if a disk is unknown or cannot be snapshotted so, or an overlay be made.
        """
        async with self._operating(domain) as run:
            if not self._toolstack.host.is_active(run.record):
                raise DomainStateError(f"domain {run.record.name!r} is not running")
            name, disks = _one_name(run.record, snapshots)
            observed = self._toolstack.observe(run)
            request = SnapshotRequest(name=name, memory=False, disks=tuple(map(_wanted, disks)))
            chosen = tuple(with_overlay_paths(observed, planning.choose_disks(observed, request), name))
            for path, problem in self._toolstack.overlay_problems(chosen).items():
                raise DiskChoiceError(f"overlay {path}: {problem}", hint="choose another file")
            snapshot = planning.describe(
                observed, request, name=name, memory_path=None, disks=chosen, now_ns=time.time_ns()
            )
            await run.execute(planning.plan_disk_snapshots(observed, snapshot))
            return snapshot.disks

    async def disk_snapshot_delete(self, domain: int | str, snapshots: Sequence[DiskSnapshot]) -> None:
        """Delete internal snapshots of disks; the domain may be stopped.

        :raise DiskChoiceError: for an external one. Which images can be merged takes the metadata of all
            snapshots: that is `Toolstack.snapshot_delete`.
        """
        async with self._operating(domain) as run:
            name, disks = _one_name(run.record, snapshots)
            for disk in disks:
                if disk.type is SnapshotType.EXTERNAL:
                    raise DiskChoiceError(
                        f"disk {disk.device}: {disk.path} may be needed by other snapshots",
                        hint="Toolstack.snapshot_delete merges the images of external snapshots",
                    )
            await run.perform(DropDiskSnapshots(name=name, disks=_images(disks)))

    async def disk_snapshot_revert(self, domain: int | str, snapshots: Sequence[DiskSnapshot]) -> None:
        """Make the state of snapshots the disks' current one. The domain must be stopped.

        An internal snapshot is applied, or copied where another image needs that one; over the image of an
        external one a new overlay is laid. What the disks had before is lost (internal), or stays in its
        image (external).

        :raise SnapshotDamagedError: if an image or a snapshot in it is missing.
        """
        async with self._operating(domain) as run:
            if self._toolstack.host.is_active(run.record):
                raise DomainStateError(f"domain {run.record.name!r} is active", hint="destroy it first")
            name, disks = _one_name(run.record, snapshots)
            observed = self._toolstack.observe(run)
            states = await self._toolstack.host.inspect(run.record, _images(disks))
            found = [
                planning.observe_disk(wanted, state) for wanted, state in zip(disks, states, strict=True)
            ]
            returns = planning.choose_returns(observed, DomainSnapshot(name=name, disks=disks))
            located = tuple(with_paths(observed, returns, name))
            await run.execute(planning.plan_disk_revert(observed, name, disks=found, returns=located))

    # --- domains ----------------------------------------------------------------------------------------

    def _record(self, domain: int | str) -> DomainRecord:
        return self._toolstack.resolve(str(domain))

    @contextlib.asynccontextmanager
    async def _operating(self, domain: int | str) -> AsyncIterator[Executor]:
        async with self._toolstack.operating(self._record(domain).uuid) as run:
            yield run


def _wanted(disk: DiskSnapshot) -> SnapshotDisk:
    external = disk.type is SnapshotType.EXTERNAL
    kind: Literal["internal", "external"] = "external" if external else "internal"
    return SnapshotDisk(vdev=disk.device, type=kind, target=disk.file if external else None, format=None)


def _images(disks: Sequence[DiskSnapshot]) -> tuple[DiskImage, ...]:
    return tuple(DiskImage(disk.device, disk.path, disk.format) for disk in disks)


def _one_name(
    record: DomainRecord, snapshots: Sequence[DiskSnapshot]
) -> tuple[str, tuple[DiskSnapshot, ...]]:
    """Check disk snapshots that are to be handled together; return their common name, and them whole.

    An empty ``path`` or ``format`` is taken from the domain, as the 2014 code did.
    """
    names = {snapshot.name for snapshot in snapshots}
    if len(names) != 1:
        raise InputError(f"disk snapshots of one call must have one name, not {len(names)}")
    disks = []
    for snapshot in snapshots:
        disk = record.config.disk(snapshot.device)
        if disk is None:
            raise DiskChoiceError(f"domain {record.name!r} has no disk {snapshot.device!r}")
        path = snapshot.path or str(disk.target)
        disks.append(msgspec.structs.replace(snapshot, path=path, format=snapshot.format or disk.format))
    return check_name(names.pop()), tuple(disks)
