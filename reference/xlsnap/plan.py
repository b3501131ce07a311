# SPDX-License-Identifier: LGPL-2.1-or-later
"""Decisions: from a request and the observed state to a plan (pure, no I/O).

Each `plan_…` function refuses what the specification refuses, before anything is touched, and otherwise
returns the steps of the operation in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from . import steps as do
from .domain import DomainConfig, RunState
from .errors import (
    DiskChoiceError,
    DomainStateError,
    MemoryPathError,
    NameTakenError,
    SnapshotDamagedError,
    UnknownSnapshotError,
)
from .host import ImageState
from .names import check_name, default_name
from .request import SnapshotRequest
from .snapshot import CONFIG_KEY, ORDER_KEY, DiskSnapshot, DomainSnapshot, SnapshotType, to_json
from .steps import DiskImage, Plan, PlannedStep, TaggedImage

SNAPSHOT_STATES = frozenset({RunState.RUNNING, RunState.BLOCKED, RunState.PAUSED})
"""Run states in which a snapshot can be taken (XLS-CREATE)."""


class ObservedDomain(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan needs to know of the domain. ``run_state`` is None for a stopped one."""

    uuid: str
    name: str
    run_state: RunState | None
    config: DomainConfig
    snapshots: Mapping[str, DomainSnapshot]

    def snapshot(self, name: str) -> DomainSnapshot:
        """Return the snapshot of this name."""
        return find_snapshot(self.name, self.snapshots, name)


def find_snapshot(domain: str, snapshots: Mapping[str, DomainSnapshot], name: str) -> DomainSnapshot:
    """Return the snapshot of this name; a name that looks like a number is a name all the same.

    :raise UnknownSnapshotError: if there is none.
    """
    try:
        return snapshots[name]
    except KeyError:
        raise UnknownSnapshotError(
            f"domain {domain!r} has no snapshot {name!r}", hint="snapshot-list shows the names"
        ) from None


class ObservedDisk(msgspec.Struct, frozen=True):
    """A disk that a snapshot needs, with the id of its tag, or what is wrong with it."""

    image: DiskImage
    tag_id: str = ""
    problem: str | None = None


def observe_disk(snapshot: DiskSnapshot, state: ImageState) -> ObservedDisk:
    """Find the tag of a disk snapshot in its image: by name, never by id."""
    if state.problem:
        return ObservedDisk(state.image, problem=state.problem)
    ids = [tag.id for tag in state.tags if tag.name == snapshot.name]
    if len(ids) == 1:
        return ObservedDisk(state.image, tag_id=ids[0])
    many = f"{len(ids)} snapshots are" if ids else "no snapshot is"
    return ObservedDisk(state.image, problem=f"{many} named {snapshot.name!r} in {state.image.path}")


# --- create ---------------------------------------------------------------------------------------------


def choose_name(domain: ObservedDomain, request: SnapshotRequest, now: int) -> str:
    """Return the name that the new snapshot gets.

    :raise BadNameError: if the name breaks the rules.
    :raise NameTakenError: if the domain has a snapshot of this name.
    """
    if request.name is None:
        return default_name(domain.snapshots.keys(), now)
    check_name(request.name)
    if request.name in domain.snapshots:
        raise NameTakenError(
            f"domain {domain.name!r} already has a snapshot {request.name!r}",
            hint="choose another name, or delete that snapshot first",
        )
    return request.name


def check_can_snapshot(domain: ObservedDomain) -> None:
    """Refuse a domain that is not running, blocked or paused.

    :raise DomainStateError: naming the state that it is in.
    """
    if domain.run_state not in SNAPSHOT_STATES:
        state = domain.run_state.name.lower() if domain.run_state else "not running"
        raise DomainStateError(
            f"domain {domain.name!r} is {state}: a snapshot needs a running, blocked or paused domain"
        )


def choose_disks(domain: ObservedDomain, request: SnapshotRequest) -> tuple[DiskImage, ...]:
    """Return the disks to be snapshotted: those named, or all that are writable.

    :raise DiskChoiceError: if one is unknown, named twice, read-only, empty or of a format without snapshots.
    """
    if request.disks is None:
        chosen = [disk for disk in domain.config.disks if disk.readwrite and not disk.is_cdrom]
    else:
        chosen = []
        for wanted in request.disks:
            disk = domain.config.disk(wanted.vdev)
            if disk is None:
                known = ", ".join(str(disk.vdev) for disk in domain.config.disks) or "none"
                raise DiskChoiceError(
                    f"domain {domain.name!r} has no disk {wanted.vdev!r}", hint=f"disks: {known}"
                )
            if disk in chosen:
                raise DiskChoiceError(f"disk {wanted.vdev} is named twice", hint="name each disk once")
            if not disk.readwrite or disk.is_cdrom:
                raise DiskChoiceError(
                    f"disk {wanted.vdev} is read-only: there is nothing to snapshot", hint="leave it out"
                )
            if wanted.type == "external":
                raise DiskChoiceError(
                    f"disk {wanted.vdev}: external snapshots are not supported by this version",
                    hint="use an internal one: name only the vdev",
                )
            chosen.append(disk)
    for disk in chosen:
        if disk.format != "qcow2":
            raise DiskChoiceError(
                f"disk {disk.vdev} has format {disk.format}: only qcow2 holds internal snapshots",
                hint="leave it out by naming the other disks in the configuration file",
            )
    return tuple(DiskImage(str(disk.vdev), str(disk.target), disk.format) for disk in chosen)


def describe(
    domain: ObservedDomain,
    request: SnapshotRequest,
    *,
    name: str,
    memory_path: str | None,
    disks: tuple[DiskImage, ...],
    now_ns: int,
) -> DomainSnapshot:
    """Return the metadata of the snapshot that is about to be made."""
    state = domain.run_state
    return DomainSnapshot(
        name=name,
        description=request.description,
        creation_time=now_ns // 1_000_000_000,
        memory=memory_path,
        type=SnapshotType.INTERNAL,
        running=state is RunState.RUNNING,
        blocked=state is RunState.BLOCKED,
        paused=state is RunState.PAUSED,
        disks=tuple(
            DiskSnapshot(device=disk.vdev, name=name, path=disk.path, format=disk.format) for disk in disks
        ),
        extra={CONFIG_KEY: msgspec.to_builtins(domain.config), ORDER_KEY: now_ns},
    )


_PAUSE = PlannedStep(do.PauseDomain(), do.ResumeDomain(if_active=True))


def plan_create(
    domain: ObservedDomain, snapshot: DomainSnapshot, *, memory_problem: str | None = None
) -> Plan:
    """Plan the making of `snapshot`: all of it or nothing.

    The guest is paused from the first disk snapshot until its memory is written, so that both are of one
    instant; metadata comes last, so that an incomplete snapshot is never listed.

    :raise MemoryPathError: if the memory image cannot be put where it should go (`memory_problem`).
    :raise DiskChoiceError: if there is nothing to snapshot.
    """
    disks = snapshot_disks(snapshot)
    if snapshot.memory is None and not disks:
        raise DiskChoiceError(f"domain {domain.name!r} has no writable disk and no memory was asked for")
    if memory_problem:
        raise MemoryPathError(f"memory image {snapshot.memory}: {memory_problem}", hint="choose another path")
    runs = domain.run_state is not RunState.PAUSED
    steps: list[PlannedStep] = []
    if runs:
        steps.append(_PAUSE)
    if disks:
        name = snapshot.name
        steps.append(
            PlannedStep(
                do.TakeDiskSnapshots(name=name, disks=disks),
                do.DropDiskSnapshots(name=name, disks=disks, since_ns=snapshot.sort_key[1]),
            )
        )
    if snapshot.memory is not None:
        steps.append(PlannedStep(do.SaveMemory(path=snapshot.memory), do.RemoveMemory(path=snapshot.memory)))
    if runs:
        steps.append(PlannedStep(do.ResumeDomain()))
    if snapshot.memory is not None:
        steps.append(PlannedStep(do.SyncFile(path=snapshot.memory)))
    metadata = to_json(snapshot).decode()
    steps.append(
        PlannedStep(
            do.WriteMetadata(name=snapshot.name, content=metadata), do.ForgetMetadata(name=snapshot.name)
        )
    )
    if not runs and snapshot.memory is not None:
        return _then_stay_paused("create", snapshot.name, steps, domain.config, snapshot.memory)
    return Plan(operation="create", snapshot=snapshot.name, steps=tuple(steps))


def _then_stay_paused(
    operation: str, name: str, begun: list[PlannedStep], config: DomainConfig, memory_image: str
) -> Plan:
    """Let a domain whose memory was saved go on paused.

    QEMU gives its disks up once it has saved its memory and takes them back only by running, so the domain
    goes on in a new process that is loaded from what was just written.
    """
    again = do.LoadSuccessor(config=config, memory_image=memory_image)
    promote = do.PromoteSuccessor(config=config, memory_image=memory_image, paused=True, keep_domid=True)
    steps = [
        *begun,
        PlannedStep(again, do.DiscardSuccessor()),
        PlannedStep(do.StopDomain()),
        PlannedStep(promote),
    ]
    return Plan(operation=operation, snapshot=name, steps=tuple(steps), irrevocable_after=len(begun) + 2)


# --- start, save and restore ------------------------------------------------------------------------------


def plan_start(config: DomainConfig, *, paused: bool) -> Plan:
    """Plan the start of a domain afresh, as `xl create` does."""
    start = do.StartDomain(config=config, paused=paused)
    return Plan(
        operation="create-domain", snapshot="", steps=(PlannedStep(do.DiscardSuccessor()), PlannedStep(start))
    )


def plan_save(domain: ObservedDomain, path: str, *, leave: Literal["destroy", "running", "paused"]) -> Plan:
    """Plan the writing of a domain's memory to a file, as `xl save` does."""
    steps = [] if domain.run_state is RunState.PAUSED else [_PAUSE]
    steps.append(PlannedStep(do.SaveMemory(path=path), do.RemoveMemory(path=path)))
    if leave == "paused":
        steps.append(PlannedStep(do.SyncFile(path=path)))
        return _then_stay_paused("save", path, steps, domain.config, path)
    if leave == "running":
        steps.append(PlannedStep(do.ResumeDomain()))
    steps.append(PlannedStep(do.SyncFile(path=path)))
    if leave == "destroy":
        steps.append(PlannedStep(do.StopDomain()))
    return Plan(operation="save", snapshot=path, steps=tuple(steps))


def plan_restore(config: DomainConfig, *, path: str, paused: bool) -> Plan:
    """Plan the start of a domain from a save file, as `xl restore` does."""
    load = do.LoadSuccessor(config=config, memory_image=path)
    promote = do.PromoteSuccessor(config=config, memory_image=path, paused=paused)
    return Plan(
        operation="restore",
        snapshot=path,
        steps=(PlannedStep(load, do.DiscardSuccessor()), PlannedStep(promote, do.StopDomain())),
    )


# --- revert ---------------------------------------------------------------------------------------------


def snapshot_config(domain: ObservedDomain, snapshot: DomainSnapshot) -> DomainConfig:
    """Return the domain's configuration at the time of the snapshot: its disk list comes back with it.

    Metadata of another toolstack lacks it: then the domain's present configuration has to do.
    """
    stored = snapshot.extra.get(CONFIG_KEY)
    if stored is None:
        return domain.config
    try:
        config = msgspec.convert(stored, DomainConfig)
    except msgspec.ValidationError as error:
        raise SnapshotDamagedError(f"snapshot {snapshot.name!r}: bad {CONFIG_KEY}: {error}") from error
    return msgspec.structs.replace(config, name=domain.config.name, uuid=domain.config.uuid)


def snapshot_disks(snapshot: DomainSnapshot) -> tuple[DiskImage, ...]:
    """Return the images that hold the snapshot's internal disk snapshots."""
    return tuple(DiskImage(disk.device, disk.path, disk.format) for disk in snapshot.disks)


def plan_revert(
    domain: ObservedDomain,
    snapshot: DomainSnapshot,
    *,
    disks: tuple[ObservedDisk, ...],
    memory_problem: str | None = None,
    paused: bool = False,
) -> Plan:
    """Plan the return to `snapshot`.

    Everything that can fail for lack of something is checked or done before the running domain is
    touched: the disks' tags here, the memory image by loading it into a successor. A disk-only snapshot
    of an active domain is a power cycle; a stopped domain is started.

    :raise SnapshotDamagedError: if something that the snapshot needs is missing.
    """
    problems = [f"disk {disk.image.vdev}: {disk.problem}" for disk in disks if disk.problem]
    if memory_problem:
        problems.insert(0, f"memory image: {memory_problem}")
    if problems:
        raise SnapshotDamagedError(
            f"cannot revert domain {domain.name!r} to snapshot {snapshot.name!r}: {'; '.join(problems)}",
            hint="the domain was left as it is",
        )
    config = snapshot_config(domain, snapshot)
    images = tuple(TaggedImage(disk.image, disk.tag_id) for disk in disks)
    disks_back = [
        PlannedStep(do.StopDomain()),
        *([PlannedStep(do.ApplyDiskSnapshots(disks=images))] if images else []),
    ]
    if snapshot.memory is None:
        start = do.StartDomain(config=config, paused=paused)
        steps = [*disks_back, PlannedStep(start)]
        irrevocable_after = 1
    else:
        load = do.LoadSuccessor(config=config, memory_image=snapshot.memory)
        promote = do.PromoteSuccessor(
            config=config, memory_image=snapshot.memory, paused=paused or snapshot.paused
        )
        steps = [PlannedStep(load, do.DiscardSuccessor()), *disks_back, PlannedStep(promote)]
        irrevocable_after = 2
    return Plan(
        operation="revert", snapshot=snapshot.name, steps=tuple(steps), irrevocable_after=irrevocable_after
    )


# --- delete ---------------------------------------------------------------------------------------------


def plan_delete(snapshot: DomainSnapshot) -> Plan:
    """Plan the removal of `snapshot`: disk snapshots, memory image, metadata.

    It leaves the list first, so that nothing half deleted is ever shown. One step a disk, so that a failure
    at the first one can still be taken back.
    """
    steps = [PlannedStep(do.HideMetadata(name=snapshot.name), do.ShowMetadata(name=snapshot.name))]
    steps += [
        PlannedStep(do.DropDiskSnapshots(name=disk.name, disks=(image,)))
        for disk, image in zip(snapshot.disks, snapshot_disks(snapshot), strict=True)
    ]
    if snapshot.memory is not None:
        steps.append(PlannedStep(do.RemoveMemory(path=snapshot.memory)))
    steps.append(PlannedStep(do.ForgetMetadata(name=snapshot.name)))
    return Plan(operation="delete", snapshot=snapshot.name, steps=tuple(steps), irrevocable_after=2)
