# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mutants: toolstacks that are broken in one way each, to prove that the suite can fail.

Each is a small patch over the reference's plan, executor, host or store, and names the clauses that it
breaks, and the bug of a real toolstack that it resembles. The driver's option ``--mutant NAME`` makes the
whole process that toolstack. The suite must catch each by a clause of its own, and pass the reference.

Add one by writing a function that patches, with the decorator `mutant`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from xlsnap import executor, names, plan, steps, store
from xlsnap.domain import RunState
from xlsnap.errors import DomainStateError, UnknownSnapshotError
from xlsnap.qemu import images
from xlsnap.steps import DiskImage, Plan, PlannedStep
from xlsnap.toolstack import Toolstack

replace = msgspec.structs.replace


@dataclass(frozen=True, slots=True)
class Mutant:
    """A broken toolstack. ``bug`` is a real one of this kind, or empty; ``break_it`` patches this process."""

    name: str
    clauses: tuple[str, ...]
    description: str
    bug: str
    break_it: Callable[[], None]


CATALOGUE: dict[str, Mutant] = {}
"""All mutants by name."""


def mutant(*clauses: str, bug: str = "") -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Enter a patch into the catalogue; its name and first line are those of the function."""

    def enter(break_it: Callable[[], None]) -> Callable[[], None]:
        name = break_it.__name__.replace("_", "-")
        description = (break_it.__doc__ or "").strip().splitlines()[0]
        CATALOGUE[name] = Mutant(name, clauses, description, bug, break_it)
        return break_it

    return enter


def wrap(owner: Any, name: str, replacement: Callable[..., Any]) -> None:
    """Replace a function or method by one that gets the original as its first argument."""
    original = getattr(owner, name)
    setattr(owner, name, lambda *args, **kwargs: replacement(original, *args, **kwargs))


def edit_steps(function: str, edit: Callable[[list[PlannedStep]], list[PlannedStep]]) -> None:
    """Change the steps that a function of `plan` returns."""

    def edited(original: Callable[..., Plan], *args: Any, **kwargs: Any) -> Plan:
        made = original(*args, **kwargs)
        return replace(made, steps=tuple(edit(list(made.steps))))

    wrap(plan, function, edited)


def without(*kinds: type[steps.Step]) -> Callable[[list[PlannedStep]], list[PlannedStep]]:
    """Return an edit that drops the steps of these kinds."""
    return lambda planned: [step for step in planned if not isinstance(step.do, kinds)]


# --- create -----------------------------------------------------------------------------------------------


@mutant("XLS-CREATE-002", bug="QEMU's savevm overwrites a snapshot of the same name")
def duplicate_name_accepted() -> None:
    """A second snapshot of the same name replaces the first."""

    async def create(original: Any, self: Toolstack, ref: str, request: Any, **kwargs: Any) -> Any:
        if request.name in {snapshot.name for snapshot in self.snapshot_list(ref)}:
            await self.snapshot_delete(ref, request.name)
        return await original(self, ref, request, **kwargs)

    wrap(Toolstack, "snapshot_create", create)


@mutant("XLS-CREATE-001", bug="xl, July 2014: no check for a shutting down domain")
def created_while_shutting_down() -> None:
    """A domain that has shut down is snapshotted as if it were paused."""

    def observe(original: Any, self: Toolstack, run: Any) -> Any:
        domain = original(self, run)
        return replace(domain, run_state=RunState.PAUSED) if domain.run_state is RunState.SHUTDOWN else domain

    wrap(Toolstack, "_observe", observe)


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


@mutant("XLS-CREATE-005")
def read_only_disk_accepted() -> None:
    """A read-only disk that is named is left out in silence."""

    def choose(original: Any, domain: Any, request: Any) -> Any:
        if request.disks is not None:
            read_only = {disk.vdev for disk in domain.config.disks if not disk.readwrite or disk.is_cdrom}
            request = replace(
                request, disks=tuple(disk for disk in request.disks if disk.vdev not in read_only)
            )
        return original(domain, request)

    wrap(plan, "choose_disks", choose)


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
    wrap(
        plan,
        "describe",
        lambda original, *args, **kwargs: replace(original(*args, **kwargs), description=""),
    )


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
    wrap(plan, "default_name", lambda original, taken, now: f"snapshot-{original(taken, now)}")


@mutant("XLS-TERM-002")
def leading_dash_accepted() -> None:
    """A name that looks like an option is accepted."""
    wrap(names, "name_problem", lambda original, name: original(name.lstrip("-") or name))


# --- metadata ---------------------------------------------------------------------------------------------


@mutant("XLS-META-003", bug="xl, July 2014: the path is blanked when it is stored")
def path_blanked() -> None:
    """Metadata does not tell which image holds a disk's snapshot."""

    def to_json(original: Any, snapshot: Any) -> Any:
        blank = tuple(replace(disk, path="") for disk in snapshot.disks)
        return original(replace(snapshot, disks=blank))

    wrap(plan, "to_json", to_json)


@mutant("XLS-META-007")
def metadata_for_all_to_read() -> None:
    """Metadata files have mode 0644."""

    def write(original: Any, self: Any, paths: Any, name: str, content: bytes) -> None:
        original(self, paths, name, content)
        paths.metadata(name).chmod(0o644)

    wrap(store.Store, "write_metadata", write)


# --- list -------------------------------------------------------------------------------------------------


@mutant("XLS-LIST-002")
def newest_first() -> None:
    """The list begins with the newest."""
    wrap(Toolstack, "snapshot_list", lambda original, self, ref: list(reversed(original(self, ref))))


@mutant("XLS-LIST-006")
def not_listed_when_stopped() -> None:
    """The snapshots of a stopped domain are not listed."""

    def listed(original: Any, self: Toolstack, ref: str) -> Any:
        if not self.host.is_active(self.resolve(ref)):
            raise DomainStateError(f"domain {ref!r} is not running")
        return original(self, ref)

    wrap(Toolstack, "snapshot_list", listed)


# --- revert -----------------------------------------------------------------------------------------------


@mutant("XLS-REVERT-003", bug="libvirt ec8be9ac: memory state read from the wrong disk")
def wrong_memory_after_revert() -> None:
    """The memory of the newest snapshot is loaded, whichever was chosen."""

    def revert(original: Any, domain: Any, snapshot: Any, **kwargs: Any) -> Plan:
        newest = [other.memory for other in domain.snapshots.values() if other.memory]
        chosen = replace(snapshot, memory=newest[-1]) if snapshot.memory else snapshot
        return original(domain, chosen, **kwargs)  # type: ignore[no-any-return]

    wrap(plan, "plan_revert", revert)


@mutant("XLS-REVERT-004", bug="LXD #10194: only the configuration was restored, not the block volume")
def one_disk_not_reverted() -> None:
    """The last of several disks stays as it is."""

    def revert(original: Any, *args: Any, disks: Any, **kwargs: Any) -> Plan:
        return original(*args, disks=disks[: max(1, len(disks) - 1)], **kwargs)  # type: ignore[no-any-return]

    wrap(plan, "plan_revert", revert)


@mutant("XLS-REVERT-008", bug="XAPI #7116: a disk that is not part of the snapshot is changed by revert")
def unselected_disk_reverted() -> None:
    """A disk that is not part of the snapshot goes back to the newest tag that it has."""

    async def apply(run: Any, step: steps.ApplyDiskSnapshots) -> None:
        await original(run, step)
        chosen = {disk.image.vdev for disk in step.disks}
        for disk in run.record.config.disks:
            image = DiskImage(str(disk.vdev), str(disk.target), disk.format)
            if disk.vdev not in chosen and disk.readwrite and disk.format == "qcow2":
                for tag in (await images.read_tags(image))[-1:]:
                    await images.apply_tag(image, tag.id)

    original = executor._PERFORM[steps.ApplyDiskSnapshots]
    executor._PERFORM[steps.ApplyDiskSnapshots] = apply


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


# --- delete -----------------------------------------------------------------------------------------------


@mutant("XLS-DELETE-002", bug="libvirt 565bcb5d: partial delete over several disks")
def tag_left_after_delete() -> None:
    """The internal snapshot of the last disk stays in the image."""

    def keep_last(planned: list[PlannedStep]) -> list[PlannedStep]:
        drops = [step for step in planned if isinstance(step.do, steps.DropDiskSnapshots)]
        return [step for step in planned if step not in drops[-1:]]

    edit_steps("plan_delete", keep_last)


@mutant("XLS-DELETE-003")
def memory_left_after_delete() -> None:
    """The memory image stays."""
    edit_steps("plan_delete", without(steps.RemoveMemory))


@mutant("XLS-DELETE-006", bug="CloudStack #9446: deleting the newest snapshot erases its parents")
def delete_removes_another() -> None:
    """Deleting a snapshot deletes the one before it as well."""

    async def delete(original: Any, self: Toolstack, ref: str, name: str) -> None:
        order = [snapshot.name for snapshot in self.snapshot_list(ref)]
        await original(self, ref, name)
        if order.index(name) > 0:
            await original(self, ref, order[order.index(name) - 1])

    wrap(Toolstack, "snapshot_delete", delete)


@mutant("XLS-DELETE-004", bug="ovirt-engine #524: merged, but the metadata stayed")
def metadata_left_after_delete() -> None:
    """The metadata stays, so that the snapshot is still listed."""
    edit_steps("plan_delete", without(steps.HideMetadata, steps.ForgetMetadata))


@mutant("XLS-DELETE-001", bug="QEMU's delvm succeeds for a snapshot that is not there")
def unknown_delete_exits_ok() -> None:
    """Deleting an unknown snapshot says that all is well."""

    async def delete(original: Any, self: Toolstack, *args: Any) -> None:
        with contextlib.suppress(UnknownSnapshotError):
            await original(self, *args)

    wrap(Toolstack, "snapshot_delete", delete)
