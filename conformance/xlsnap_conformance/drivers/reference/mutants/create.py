# SPDX-License-Identifier: LGPL-2.1-or-later
"""Toolstacks whose create is broken."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from xlsnap import executor, names, plan, steps, store
from xlsnap.chain import present_images
from xlsnap.domain import RunState
from xlsnap.errors import DiskChoiceError, NameTakenError
from xlsnap.qemu import QemuHost
from xlsnap.steps import Plan, PlannedStep
from xlsnap.toolstack import Toolstack

from .catalogue import edit_description, edit_steps, mutant, replace, without, wrap


@mutant("XLS-CREATE-002", bug="QEMU's savevm overwrites a snapshot of the same name")
def duplicate_name_accepted() -> None:
    """A second snapshot of the same name replaces the first."""

    async def create(original: Any, self: Toolstack, ref: str, request: Any, **kwargs: Any) -> Any:
        if request.name in {snapshot.name for snapshot in self.snapshot_list(ref)}:
            await self.snapshot_delete(ref, request.name)
        return await original(self, ref, request, **kwargs)

    wrap(Toolstack, "snapshot_create", create)


@mutant(
    "XLS-FAIL-001",
    bug="Incus #3188: what should prevent an operation is looked at after it was committed",
    test="duplicate-name",
)
def refused_too_late() -> None:
    """A name that is taken is refused when the disks have been snapshotted already."""

    async def create(original: Any, self: Toolstack, ref: str, request: Any, **kwargs: Any) -> Any:
        try:
            return await original(self, ref, request, **kwargs)
        except NameTakenError:
            async with self.operating(self.resolve(ref).uuid) as run:
                images = present_images(run.record.config).values()
                qcow2 = tuple(image for image in images if image.format == "qcow2")
                await run.perform(steps.TakeDiskSnapshots(name=f"{request.name}-again", disks=qcow2))
            raise

    wrap(Toolstack, "snapshot_create", create)


@mutant("XLS-CREATE-001", bug="xl, July 2014: no check for a shutting down domain")
def created_while_shutting_down() -> None:
    """A domain that has shut down is snapshotted as if it were paused."""

    def observe(original: Any, self: Toolstack, run: Any, **kwargs: Any) -> Any:
        domain = original(self, run, **kwargs)
        return replace(domain, run_state=RunState.PAUSED) if domain.run_state is RunState.SHUTDOWN else domain

    wrap(Toolstack, "observe", observe)


@mutant("XLS-CREATE-023", bug="OpenNebula #5920: failed create leaves the VM on an empty overlay")
def partial_create_left_behind() -> None:
    """What a failing create has done so far is not taken back."""

    async def undo(self: Any, plan: Plan, taken: int, error: BaseException) -> bool:
        if plan.operation == "create":
            resume = [step for step in plan.steps[:taken] if isinstance(step.undo, steps.ResumeDomain)]
            return bool(await original(self, replace(plan, steps=tuple(resume)), len(resume), error))
        return bool(await original(self, plan, taken, error))

    original = executor.Executor._undo
    executor.Executor._undo = undo  # type: ignore[method-assign]


@mutant("XLS-LIST-003", bug="XenServer sm f4049e6: a new leaf is visible before it is valid")
def incomplete_listed() -> None:
    """Metadata is written first and stays when the create fails."""

    def metadata_first(planned: list[PlannedStep]) -> list[PlannedStep]:
        metadata = [PlannedStep(step.do) for step in planned if isinstance(step.do, steps.WriteMetadata)]
        return [*metadata, *without(steps.WriteMetadata)(planned)]

    edit_steps("plan_create", metadata_first)


@mutant("XLS-CREATE-007")
def memory_path_overwritten() -> None:
    """A file that is where the memory image should go is overwritten."""

    def problem(original: Any, path: str) -> Any:
        if os.path.isfile(path):
            os.unlink(path)
        return original(path)

    wrap(store, "new_file_problem", problem)


def _leave_out(wrong: Callable[[Any, Any], bool]) -> None:
    """Leave out the disks that are named wrongly, in silence."""

    def choose(original: Any, domain: Any, request: Any) -> Any:
        if request.disks is not None:
            good = tuple(disk for disk in request.disks if not wrong(domain, disk))
            request = replace(request, disks=good)
        return original(domain, request)

    wrap(plan, "choose_disks", choose)


def _cannot_be_written(domain: Any, disk: Any) -> bool:
    found = domain.config.disk(disk.vdev)
    return found is not None and (not found.readwrite or found.is_cdrom)


@mutant("XLS-CREATE-005")
def read_only_disk_accepted() -> None:
    """A read-only disk that is named is left out in silence."""
    _leave_out(_cannot_be_written)


@mutant("XLS-CREATE-015", bug="QEMU's savevm always takes all disks")
def disk_selection_ignored() -> None:
    """All writable disks are snapshotted, whichever were named."""

    def choose(original: Any, domain: Any, request: Any) -> Any:
        original(domain, request)
        return original(domain, replace(request, disks=None))

    wrap(plan, "choose_disks", choose)


@mutant("XLS-CREATE-013")
def description_lost() -> None:
    """The description is not stored."""
    edit_description(lambda snapshot: replace(snapshot, description=""))


@mutant("XLS-CREATE-020", bug="XAPI #2684: a failing checkpoint leaves the VM suspended")
def left_paused_by_create() -> None:
    """A running domain stays paused after a create."""
    edit_steps("plan_create", without(steps.ResumeDomain))


@mutant("XLS-CREATE-020")
def unpaused_by_create() -> None:
    """A paused domain runs after a create."""

    def run_on(planned: list[PlannedStep]) -> list[PlannedStep]:
        return [
            PlannedStep(replace(step.do, paused=False))
            if isinstance(step.do, steps.PromoteSuccessor)
            else step
            for step in planned
        ]

    edit_steps("plan_create", run_on)


@mutant("XLS-CREATE-024")
def dry_run_creates() -> None:
    """A dry run is a real one."""

    async def create(original: Any, self: Toolstack, ref: str, request: Any, **kwargs: Any) -> Any:
        return await original(self, ref, request)

    wrap(Toolstack, "snapshot_create", create)


@mutant("XLS-CREATE-012")
def default_name_of_its_own() -> None:
    """A snapshot without a name gets another default name than the epoch seconds."""
    wrap(plan.create, "default_name", lambda original, taken, now: f"snapshot-{original(taken, now)}")


@mutant("XLS-TERM-002")
def leading_dash_accepted() -> None:
    """A name that looks like an option is accepted."""
    wrap(names, "name_problem", lambda original, name: original(name.lstrip("-") or name))


@mutant("XLS-CREATE-003")
def unknown_disk_ignored() -> None:
    """A disk that the domain does not have is left out in silence."""
    _leave_out(lambda domain, disk: domain.config.disk(disk.vdev) is None)


@mutant("XLS-CREATE-004")
def disk_named_twice() -> None:
    """A disk that is named twice is taken once."""

    def choose(original: Any, domain: Any, request: Any) -> Any:
        disks = None if request.disks is None else tuple({disk.vdev: disk for disk in request.disks}.values())
        return original(domain, replace(request, disks=disks))

    wrap(plan, "choose_disks", choose)


@mutant("XLS-CREATE-006", bug="virsh leaves out what it cannot snapshot, depending on the version")
def raw_disk_left_out() -> None:
    """A raw disk is left out in silence."""

    def choose(original: Any, domain: Any, request: Any) -> Any:
        good = tuple(disk for disk in domain.config.disks if disk.format != "raw" or disk.is_cdrom)
        return original(
            replace(domain, config=replace(domain.config, disks=good)), replace(request, disks=None)
        )

    wrap(plan, "choose_disks", choose)


@mutant("XLS-CREATE-016")
def memory_path_ignored() -> None:
    """The memory image goes to the default place, whatever was asked for."""

    async def create(original: Any, self: Toolstack, ref: str, request: Any, **kwargs: Any) -> Any:
        return await original(self, ref, replace(request, memory_path=None), **kwargs)

    wrap(Toolstack, "snapshot_create", create)


@mutant("XLS-CREATE-017")
def memory_always_written() -> None:
    """A disk-only snapshot has memory all the same."""

    async def create(original: Any, self: Toolstack, ref: str, request: Any, **kwargs: Any) -> Any:
        return await original(self, ref, replace(request, memory=True), **kwargs)

    wrap(Toolstack, "snapshot_create", create)


@mutant("XLS-CREATE-022", test="test_domains.py::test_memory_and_disk_are_of_one_instant")
def guest_runs_between() -> None:
    """The guest runs on for 50 ms between the snapshots of its disks and the save of its memory."""

    def resume_early(planned: list[PlannedStep]) -> list[PlannedStep]:
        taken = [isinstance(step.do, steps.TakeDiskSnapshots) for step in planned]
        if not any(taken) or not any(isinstance(step.do, steps.PauseDomain) for step in planned):
            return planned
        after = taken.index(True) + 1
        return [*planned[:after], PlannedStep(steps.ResumeDomain()), *planned[after:]]

    async def save_late(original: Any, *args: Any, **kwargs: Any) -> None:
        await asyncio.sleep(0.05)
        await original(*args, **kwargs)

    edit_steps("plan_create", resume_early)
    wrap(QemuHost, "save_memory", save_late)


@mutant("XLS-TERM-001")
def long_name_refused() -> None:
    """A name of more than 100 bytes is refused."""
    names.MAX_NAME_BYTES = 100


@mutant("XLS-TERM-004", bug="a file system that does not tell upper from lower case")
def case_ignored() -> None:
    """A name is taken if another one differs only in case."""

    def choose(original: Any, domain: Any, request: Any, now: int) -> Any:
        known = {name.casefold(): name for name in domain.snapshots}
        same = known.get(request.name.casefold()) if request.name else None
        return original(domain, replace(request, name=same) if same else request, now)

    wrap(plan, "choose_name", choose)


@mutant("XLS-CREATE-019")
def disks_are_needed() -> None:
    """A domain without writable disks cannot be snapshotted."""

    def choose(original: Any, domain: Any, request: Any) -> Any:
        disks = original(domain, request)
        if not disks:
            raise DiskChoiceError(f"domain {domain.name!r} has no disk to snapshot")
        return disks

    wrap(plan, "choose_disks", choose)


@mutant("XLS-CREATE-014")
def read_only_disk_prevents() -> None:
    """A domain with a read-only disk cannot be snapshotted without a choice of disks."""

    def choose(original: Any, domain: Any, request: Any) -> Any:
        if request.disks is None and not all(disk.readwrite for disk in domain.config.disks):
            raise DiskChoiceError(f"domain {domain.name!r} has a read-only disk")
        return original(domain, request)

    wrap(plan, "choose_disks", choose)
