# SPDX-License-Identifier: LGPL-2.1-or-later
"""Toolstacks that break what holds for all operations, or whose domains and lists are wrong."""

from __future__ import annotations

import os
import uuid
from typing import Any

from xlsnap import errors, plan, steps, store
from xlsnap.domain import RunState
from xlsnap.qemu import QemuHost
from xlsnap.snapshot import DomainSnapshot, to_json
from xlsnap.steps import DiskImage, Plan, PlannedStep
from xlsnap.toolstack import Toolstack

from .... import protocol as p
from .. import server
from .catalogue import edit_steps, mutant, replace, wrap


@mutant(
    "XLS-TERM-005",
    bug="names in the storage backend are for all domains of a pool",
    test="test_domains.py::test_domains_do_not_touch_each_other",
)
def names_are_for_all_domains() -> None:
    """A name that a snapshot of another domain has is taken."""

    async def create(original: Any, self: Toolstack, ref: str, request: Any, **kwargs: Any) -> Any:
        for record in self.store.records():
            if request.name in self.store.snapshots(record.uuid):
                raise errors.NameTakenError(f"there is a snapshot {request.name!r}")
        return await original(self, ref, request, **kwargs)

    wrap(Toolstack, "snapshot_create", create)


@mutant("XLS-MODEL-001")
def unpause_is_a_reset() -> None:
    """A domain that is unpaused starts afresh."""

    async def unpause(original: Any, self: Toolstack, ref: str) -> None:
        await original(self, ref)
        config = self.resolve(ref).config
        await self.destroy(ref)
        await self.create(config)

    wrap(Toolstack, "unpause", unpause)


@mutant("XLS-MODEL-003", bug="libvirt leaves internal tags of its own for a while after an interrupted job")
def second_tag_of_its_own() -> None:
    """Each internal snapshot has a second tag, NAME.bak."""

    def twice(planned: list[PlannedStep]) -> list[PlannedStep]:
        backups = [
            PlannedStep(replace(step.do, name=f"{step.do.name}.bak", overlaid=()))
            for step in planned
            if isinstance(step.do, steps.TakeDiskSnapshots) and step.do.disks
        ]
        taken = [isinstance(step.do, steps.TakeDiskSnapshots) for step in planned]
        return (
            [*planned[: taken.index(True)], *backups, *planned[taken.index(True) :]] if backups else planned
        )

    edit_steps("plan_create", twice)


@mutant("XLS-MODEL-005")
def description_changed_by_revert() -> None:
    """A revert writes its time into the description of the snapshot."""

    async def revert(original: Any, self: Toolstack, ref: str, name: str, **kwargs: Any) -> Any:
        info = await original(self, ref, name, **kwargs)
        snapshot = self.store.snapshots(info.uuid)[name]
        content = to_json(replace(snapshot, description=f"{snapshot.description} (reverted to)"))
        self.store.write_metadata(self.root.domain(info.uuid), name, content)
        return info

    wrap(Toolstack, "snapshot_revert", revert)


# --- create -------------------------------------------------------------------------------------------------


@mutant("XLS-CREATE-008")
def snapshot_of_nothing_accepted() -> None:
    """A snapshot of neither memory nor any disk is made."""

    def made(original: Any, domain: Any, snapshot: DomainSnapshot, **kwargs: Any) -> Plan:
        if snapshot.memory is not None or snapshot.disks:
            return original(domain, snapshot, **kwargs)  # type: ignore[no-any-return]
        write = steps.WriteMetadata(name=snapshot.name, content=to_json(snapshot).decode())
        return Plan(operation="create", snapshot=snapshot.name, steps=(PlannedStep(write),))

    wrap(plan, "plan_create", made)


@mutant("XLS-CREATE-009", bug="libvirt makes the directory of a memory image that is missing")
def missing_directory_made() -> None:
    """The directory of a memory image is made where it is missing."""

    def problem(original: Any, path: str) -> Any:
        if os.path.isabs(path) and not os.path.lexists(os.path.dirname(path)):
            os.makedirs(os.path.dirname(path))
        return original(path)

    wrap(store, "new_file_problem", problem)


@mutant("XLS-CREATE-011", bug="QEMU's savevm overwrites a tag of the same name")
def foreign_tag_overwritten() -> None:
    """A tag of the snapshot's name that is in an image already is overwritten."""

    async def create(original: Any, self: Toolstack, ref: str, request: Any, **kwargs: Any) -> Any:
        record = self.resolve(ref)
        new = request.name and request.name not in self.store.snapshots(record.uuid)
        if new and self.host.is_active(record):
            disks = [DiskImage(str(disk.vdev), str(disk.target), disk.format) for disk in record.config.disks]
            async with self.operating(record.uuid) as run:
                qcow2 = [disk for disk in disks if disk.format == "qcow2"]
                await self.host.drop_disk_snapshots(run.record, request.name, qcow2)
        return await original(self, ref, request, **kwargs)

    wrap(Toolstack, "snapshot_create", create)


@mutant("XLS-CREATE-021", bug="virsh managedsave and a start, taken for a snapshot")
def guest_restarted_by_create() -> None:
    """After a create the guest starts afresh."""

    async def create(original: Any, self: Toolstack, ref: str, request: Any, **kwargs: Any) -> Any:
        made = await original(self, ref, request, **kwargs)
        config = self.resolve(ref).config
        await self.destroy(ref)
        await self.create(config)
        return made

    wrap(Toolstack, "snapshot_create", create)


# --- list ---------------------------------------------------------------------------------------------------


@mutant("XLS-LIST-001")
def only_the_newest_listed() -> None:
    """The list has at most two snapshots, the newest."""
    wrap(Toolstack, "snapshot_list", lambda original, self, ref: original(self, ref)[-2:])


@mutant("XLS-LIST-005")
def description_not_listed() -> None:
    """The list tells no description, though it is stored."""

    def listed(original: Any, self: Toolstack, ref: str) -> Any:
        return [replace(snapshot, description="") for snapshot in original(self, ref)]

    wrap(Toolstack, "snapshot_list", listed)


@mutant("XLS-LIST-008")
def list_unpauses() -> None:
    """A paused domain runs after its snapshots were listed."""

    async def listed(driver: server.ReferenceDriver, request: p.SnapshotList) -> p.SnapshotListResult:
        told = await original(driver, request)
        if (await driver.toolstack.domains(request.domain))[0].run_state is RunState.PAUSED:
            await driver.toolstack.unpause(request.domain)
        return told  # type: ignore[no-any-return]

    original: Any = server._HANDLERS[p.SnapshotList]
    server._HANDLERS[p.SnapshotList] = listed


# --- domains ------------------------------------------------------------------------------------------------


def _after_a_revert(change: Any) -> None:
    """Change the rows in which domains are listed after a revert."""
    reverted: set[str] = set()

    async def revert(original: Any, self: Toolstack, ref: str, name: str, **kwargs: Any) -> Any:
        info = await original(self, ref, name, **kwargs)
        reverted.add(info.uuid)
        return info

    async def domains(original: Any, self: Toolstack, ref: str | None = None) -> Any:
        rows = await original(self, ref)
        changed = [change(row) if row.uuid in reverted and ref is None else [row] for row in rows]
        return [row for rows in changed for row in rows]

    wrap(Toolstack, "snapshot_revert", revert)
    wrap(Toolstack, "domains", domains)


@mutant("XLS-REVERT-012", bug="a restore that makes a new domain gives it a new uuid")
def new_uuid_after_revert() -> None:
    """After a revert the domain is listed with another uuid."""
    _after_a_revert(lambda row: [replace(row, uuid=str(uuid.uuid5(uuid.NAMESPACE_OID, row.uuid)))])


@mutant("XLS-REVERT-014", test="test_domains.py::test_a_domain_is_named_by_name_and_uuid_after_a_revert")
def listed_twice_after_revert() -> None:
    """After a revert the old domain is listed beside the new one."""
    _after_a_revert(lambda row: [row, replace(row, domid=(row.domid or 0) + 1)])


@mutant("XLS-DELETE-010", bug="ZFS and libvirt's external snapshots: one with children cannot be deleted")
def parent_cannot_be_deleted() -> None:
    """A snapshot from which others came cannot be deleted."""

    async def delete(original: Any, self: Toolstack, ref: str, name: str, **kwargs: Any) -> Any:
        if not any(kwargs.values()) and name in {snapshot.parent for snapshot in self.snapshot_list(ref)}:
            raise errors.DomainStateError(f"snapshot {name!r} has children")
        return await original(self, ref, name, **kwargs)

    wrap(Toolstack, "snapshot_delete", delete)


# --- failure ------------------------------------------------------------------------------------------------


@mutant("XLS-FAIL-002", bug="xl, July 2014: exits with 0 after a failure")
def failure_of_the_host_not_told() -> None:
    """A create that fails because of the host says that all is well."""

    async def create(original: Any, self: Toolstack, ref: str, request: Any, **kwargs: Any) -> Any:
        try:
            return await original(self, ref, request, **kwargs)
        except errors.HostError:
            return DomainSnapshot(name=request.name or "0")

    wrap(Toolstack, "snapshot_create", create)


@mutant("XLS-FAIL-008", test="test_refusals.py::test_unknown_domain[destroy]")
def unknown_domain_destroyed() -> None:
    """To destroy a domain that does not exist is no error."""

    async def destroy(original: Any, self: Toolstack, ref: str) -> None:
        try:
            await original(self, ref)
        except errors.UnknownDomainError:
            return

    wrap(Toolstack, "destroy", destroy)


@mutant("XLS-EDITION-001", test="test_domains.py::test_edition_is_told")
def unknown_capability_claimed() -> None:
    """The implementation claims a capability that nobody knows."""

    async def hello(driver: server.ReferenceDriver, request: p.Hello) -> p.HelloResult:
        told = await original(driver, request)
        changed: p.HelloResult = replace(told, capabilities=(*told.capabilities, "time-travel"))
        return changed

    original: Any = server._HANDLERS[p.Hello]
    server._HANDLERS[p.Hello] = hello


@mutant("XLS-LIVE-003", test="test_live.py::test_live_that_is_not_possible")
def live_is_not_live_where_it_cannot_be() -> None:
    """On a host that cannot do it a live snapshot is taken with the guest paused."""
    wrap(QemuHost, "live_problem", lambda original, self: None)
    wrap(plan, "plan_create", lambda original, *args, **more: original(*args, **{**more, "live": False}))
