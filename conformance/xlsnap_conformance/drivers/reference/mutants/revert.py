# SPDX-License-Identifier: LGPL-2.1-or-later
"""Toolstacks whose revert is broken."""

from __future__ import annotations

from typing import Any

from xlsnap import performing, plan, steps
from xlsnap.errors import DomainStateError, UnknownSnapshotError
from xlsnap.qemu import images
from xlsnap.qemu.qcow2 import read_header
from xlsnap.steps import DiskImage, Plan, PlannedStep
from xlsnap.toolstack import Toolstack

from .catalogue import edit_steps, mutant, replace, wrap


@mutant("XLS-REVERT-003", bug="libvirt ec8be9ac: memory state read from the wrong disk")
def wrong_memory_after_revert() -> None:
    """The memory of the newest snapshot is loaded, whichever was chosen."""

    def revert(original: Any, domain: Any, snapshot: Any, **kwargs: Any) -> Plan:
        oldest_first = sorted(domain.snapshots.values(), key=lambda other: other.sort_key)
        newest = [other.memory for other in oldest_first if other.memory]
        chosen = replace(snapshot, memory=newest[-1]) if snapshot.memory else snapshot
        return original(domain, chosen, **kwargs)  # type: ignore[no-any-return]

    wrap(plan, "plan_revert", revert)


@mutant("XLS-REVERT-004", bug="LXD #10194: only the configuration was restored, not the block volume")
def one_disk_not_reverted() -> None:
    """The last of several disks stays as it is."""

    def choose(original: Any, domain: Any, snapshot: Any) -> Any:
        returns = original(domain, snapshot)
        present = domain.config.disk(snapshot.disks[-1].device) if len(snapshot.disks) > 1 else None
        if present is None:
            return returns
        kept = plan.Return("keep", DiskImage(str(present.vdev), str(present.target), present.format))
        return tuple(kept if item.image.vdev == kept.image.vdev else item for item in returns)

    wrap(plan, "choose_returns", choose)


@mutant("XLS-REVERT-008", bug="XAPI #7116: a disk that is not part of the snapshot is changed by revert")
def unselected_disk_reverted() -> None:
    """A disk that is not part of the snapshot goes back to the newest tag that it has."""

    async def apply(run: Any, step: steps.ApplyDiskSnapshots) -> None:
        await original(run, step)
        chosen = {disk.image.vdev for disk in step.disks}
        for disk in run.record.config.disks:
            image = DiskImage(str(disk.vdev), str(disk.target), disk.format)
            if disk.vdev not in chosen and disk.readwrite and disk.format == "qcow2":
                for tag in read_header(image).tags[-1:]:
                    await images.apply_tag(image, tag.id)

    original = performing.PERFORM[steps.ApplyDiskSnapshots]
    performing.PERFORM[steps.ApplyDiskSnapshots] = apply


@mutant("XLS-TERM-003", bug="qemu-img snapshot -a and loadvm look ids up before names")
def name_taken_for_id() -> None:
    """A snapshot named "1" is taken for the one whose internal id is 1."""

    def observe(original: Any, snapshot: Any, state: Any) -> Any:
        ids = {tag.id: tag.name for tag in state.tags}
        if snapshot.name in ids:
            snapshot = replace(snapshot, name=ids[snapshot.name])
        return original(snapshot, state)

    wrap(plan, "observe_disk", observe)


@mutant("XLS-REVERT-005", bug="QEMU's loadvm keeps the run state that the domain has")
def run_state_not_restored() -> None:
    """A domain that was paused when the snapshot was taken runs after the revert."""

    def revert(original: Any, domain: Any, snapshot: Any, **kwargs: Any) -> Plan:
        return original(domain, replace(snapshot, paused=False), **kwargs)  # type: ignore[no-any-return]

    wrap(plan, "plan_revert", revert)


@mutant("XLS-REVERT-006")
def not_left_paused() -> None:
    """The option to leave the domain paused is ignored."""

    def revert(original: Any, *args: Any, paused: bool = False, **kwargs: Any) -> Plan:
        return original(*args, **kwargs)  # type: ignore[no-any-return]

    wrap(plan, "plan_revert", revert)


@mutant("XLS-REVERT-009")
def revert_not_repeatable() -> None:
    """The memory image is used up by the revert."""

    def consume(planned: list[PlannedStep]) -> list[PlannedStep]:
        loads = [step.do for step in planned if isinstance(step.do, steps.LoadSuccessor)]
        return [*planned, *(PlannedStep(steps.RemoveMemory(path=load.memory_image)) for load in loads)]

    edit_steps("plan_revert", consume)


@mutant("XLS-REVERT-001", bug="xl, July 2014: reverting an unknown name prints errors and exits with 0")
def unknown_name_exits_ok() -> None:
    """Reverting to an unknown snapshot says that all is well."""

    async def revert(original: Any, self: Toolstack, *args: Any, **kwargs: Any) -> Any:
        try:
            return await original(self, *args, **kwargs)
        except UnknownSnapshotError:
            return None

    wrap(Toolstack, "snapshot_revert", revert)


@mutant("XLS-FAIL-001", "XLS-REVERT-001", bug="xl, July 2014: a revert destroys the domain, then fails")
def destroyed_by_failing_revert() -> None:
    """A revert destroys the domain before it looks whether there is such a snapshot."""

    async def revert(original: Any, self: Toolstack, ref: str, name: str, **kwargs: Any) -> Any:
        if name not in {snapshot.name for snapshot in self.snapshot_list(ref)}:
            await self.destroy(ref)
        return await original(self, ref, name, **kwargs)

    wrap(Toolstack, "snapshot_revert", revert)


@mutant("XLS-REVERT-010", bug="Incus #4029: a restore deletes what is newer")
def revert_deletes_newer() -> None:
    """Snapshots that are newer than the one reverted to are deleted."""

    async def revert(original: Any, self: Toolstack, ref: str, name: str, **kwargs: Any) -> Any:
        info = await original(self, ref, name, **kwargs)
        order = [snapshot.name for snapshot in self.snapshot_list(ref)]
        for newer in order[order.index(name) + 1 :]:
            await self.snapshot_delete(ref, newer)
        return info

    wrap(Toolstack, "snapshot_revert", revert)


@mutant("XLS-REVERT-002", bug="xl, July 2014: a revert destroys the domain, then looks for what it needs")
def destroyed_before_check() -> None:
    """A revert destroys the domain before it looks whether the snapshot is whole."""

    async def revert(original: Any, self: Toolstack, ref: str, name: str, **kwargs: Any) -> Any:
        known = name in {snapshot.name for snapshot in self.snapshot_list(ref)}
        if known and self.host.is_active(self.resolve(ref)):
            await self.destroy(ref)
        return await original(self, ref, name, **kwargs)

    wrap(Toolstack, "snapshot_revert", revert)


@mutant("XLS-REVERT-011")
def stopped_domain_not_reverted() -> None:
    """A stopped domain cannot be reverted."""

    async def revert(original: Any, self: Toolstack, ref: str, *args: Any, **kwargs: Any) -> Any:
        if not self.host.is_active(self.resolve(ref)):
            raise DomainStateError(f"domain {ref!r} is not running")
        return await original(self, ref, *args, **kwargs)

    wrap(Toolstack, "snapshot_revert", revert)


@mutant("XLS-REVERT-007")
def disk_only_revert_stays_paused() -> None:
    """After the revert to a disk-only snapshot the domain is left paused."""

    def revert(original: Any, domain: Any, snapshot: Any, **kwargs: Any) -> Plan:
        paused = kwargs.pop("paused", False) or snapshot.memory is None
        return original(domain, snapshot, paused=paused, **kwargs)  # type: ignore[no-any-return]

    wrap(plan, "plan_revert", revert)


@mutant("XLS-TERM-006")
def abbreviated_name_accepted() -> None:
    """The beginning of a name is enough, where it fits one snapshot only."""

    async def revert(original: Any, self: Toolstack, ref: str, name: str, **kwargs: Any) -> Any:
        names = [snapshot.name for snapshot in self.snapshot_list(ref)]
        fitting = [known for known in names if known.startswith(name)]
        return await original(self, ref, fitting[0] if len(fitting) == 1 else name, **kwargs)

    wrap(Toolstack, "snapshot_revert", revert)
