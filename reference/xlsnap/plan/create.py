# SPDX-License-Identifier: LGPL-2.1-or-later
"""The plan of a snapshot: which name, which disks, which steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

import msgspec

from .. import steps as do
from ..chain import OVERLAY_FORMAT, Images, present_images, with_images
from ..domain import Overlay, RunState
from ..errors import DiskChoiceError, DomainStateError, HostError, MemoryPathError, NameTakenError
from ..names import check_name, default_name
from ..request import SnapshotRequest
from ..snapshot import (
    CONFIG_KEY,
    ORDER_KEY,
    PARENT_KEY,
    DiskSnapshot,
    DomainSnapshot,
    SnapshotType,
    to_json,
)
from ..steps import DiskImage, OverlaidDisk, Plan, PlannedStep
from .lifecycle import PAUSE, let_run, then_stay_paused
from .observed import ObservedDomain, tagged_disks

SNAPSHOT_STATES = frozenset({RunState.RUNNING, RunState.BLOCKED, RunState.PAUSED})
"""Run states in which a snapshot can be taken (XLS-CREATE-001)."""

INTERNAL_FORMAT = "qcow2"
"""The only image format that holds internal snapshots (XLS-CREATE-006)."""

MAX_FILE_NAME_BYTES = 255


class ChosenDisk(msgspec.Struct, frozen=True):
    """A disk to be snapshotted. ``overlay`` is the path of the new image; None for an internal snapshot.

    An empty path means that the toolstack is to choose one.
    """

    image: DiskImage
    overlay: str | None = None


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
    """Refuse a domain that is not running, blocked or paused, or that writes to what a snapshot needs.

    :raise DomainStateError: naming the state that it is in, or the image.
    """
    if domain.run_state not in SNAPSHOT_STATES:
        state = domain.run_state.name.lower() if domain.run_state else "not running"
        raise DomainStateError(
            f"domain {domain.name!r} is {state}: a snapshot needs a running, blocked or paused domain"
        )
    images = domain.images()
    for image in present_images(domain.config).values():
        if images.is_frozen(image.path):  # somebody has begun the domain on it with other tools than ours
            raise DomainStateError(
                f"disk {image.vdev} writes to {image.path}, which a snapshot needs",
                hint="destroy the domain and start it with xlsnap create, which knows the right image",
            )


def choose_disks(domain: ObservedDomain, request: SnapshotRequest) -> tuple[ChosenDisk, ...]:
    """Return the disks to be snapshotted: those named, or all that are writable.

    :raise DiskChoiceError: if one is unknown, named twice, read-only, or of a format without snapshots; or if
        two external ones have the same target.
    """
    images = present_images(domain.config)
    if request.disks is None:
        writable = [disk for disk in domain.config.disks if disk.readwrite and not disk.is_cdrom]
        overlay = "" if request.type == "external" else None
        chosen = [ChosenDisk(images[str(d.vdev)], overlay) for d in writable if str(d.vdev) in images]
    else:
        chosen = []
        for wanted in request.disks:
            disk = domain.config.disk(wanted.vdev)
            if disk is None:
                known = ", ".join(str(disk.vdev) for disk in domain.config.disks) or "none"
                raise DiskChoiceError(
                    f"domain {domain.name!r} has no disk {wanted.vdev!r}", hint=f"disks: {known}"
                )
            if any(other.image.vdev == wanted.vdev for other in chosen):
                raise DiskChoiceError(f"disk {wanted.vdev} is named twice", hint="name each disk once")
            if not disk.readwrite or disk.is_cdrom or wanted.vdev not in images:
                raise DiskChoiceError(
                    f"disk {wanted.vdev} is read-only: there is nothing to snapshot", hint="leave it out"
                )
            external = wanted.type == "external"
            if external and wanted.format not in (None, OVERLAY_FORMAT):
                raise DiskChoiceError(
                    f"disk {wanted.vdev}: an overlay of format {wanted.format} is not possible",
                    hint=f"use format={OVERLAY_FORMAT}",
                )
            chosen.append(ChosenDisk(images[wanted.vdev], (wanted.target or "") if external else None))
    for choice in chosen:
        if choice.overlay is None and choice.image.format != INTERNAL_FORMAT:
            raise DiskChoiceError(
                f"disk {choice.image.vdev} has format {choice.image.format}: "
                "only qcow2 holds internal snapshots",
                hint="make its snapshot external, or name the other disks in the configuration file",
            )
    targets = [choice.overlay for choice in chosen if choice.overlay]
    for target in targets:
        if targets.count(target) > 1:
            raise DiskChoiceError(f"two disks have the target {target}", hint="give each its own")
    return tuple(chosen)


def overlay_candidates(images: Images, image: DiskImage, name: str) -> Iterator[str]:
    """Yield paths for a new overlay over `image`, in order of preference.

    ``/srv/disk.NAME.qcow2`` beside the first image of the chain, ``/srv/disk.img``; with a number if that is
    taken, and with a shortened name where a file name would be too long.
    """
    first = PurePosixPath(images.first(image.path))
    number = 1
    while True:
        suffix = f".{OVERLAY_FORMAT}" if number == 1 else f".{number}.{OVERLAY_FORMAT}"
        room = MAX_FILE_NAME_BYTES - len(suffix.encode())
        stem = f"{first.stem}.{name}".encode()[:room].decode(errors="ignore")
        yield str(first.with_name(f"{stem}{suffix}"))
        number += 1


def describe(
    domain: ObservedDomain,
    request: SnapshotRequest,
    *,
    name: str,
    memory_path: str | None,
    disks: tuple[ChosenDisk, ...],
    now_ns: int,
) -> DomainSnapshot:
    """Return the metadata of the snapshot that is about to be made; all overlays have a path by now."""
    state = domain.run_state
    snapshots = tuple(
        DiskSnapshot(
            device=disk.image.vdev,
            name=name,
            path=disk.image.path,
            format=disk.image.format,
            file=disk.overlay,
            type=SnapshotType.INTERNAL if disk.overlay is None else SnapshotType.EXTERNAL,
        )
        for disk in disks
    )
    types = {disk.type for disk in snapshots} or {SnapshotType.INTERNAL}
    parent = {} if domain.current is None else {PARENT_KEY: domain.current}
    return DomainSnapshot(
        name=name,
        description=request.description,
        creation_time=now_ns // 1_000_000_000,
        memory=memory_path,
        type=types.pop() if len(types) == 1 else SnapshotType.ANY,
        running=state is RunState.RUNNING,
        blocked=state is RunState.BLOCKED,
        paused=state is RunState.PAUSED,
        disks=snapshots,
        extra={CONFIG_KEY: msgspec.to_builtins(domain.config), ORDER_KEY: now_ns, **parent},
    )


def plan_create(
    domain: ObservedDomain,
    snapshot: DomainSnapshot,
    *,
    memory_problem: str | None = None,
    overlay_problems: Mapping[str, str] = {},
    disk_problems: Mapping[str, str] = {},
    live_problem: str | None = None,
    live: bool = False,
    memory_first: bool = False,
) -> Plan:
    """Plan the making of `snapshot`: all of it or nothing.

    The guest is paused from the disk snapshots until its memory is written, so that both are of one instant;
    with `live` only until the state of its devices is. Where it takes part in saving its memory that comes
    first (`memory_first`, see `Host`). Metadata comes last, so that an incomplete snapshot is never listed.

    :raise MemoryPathError: if the memory image cannot be put where it should go (`memory_problem`).
    :raise DiskChoiceError: if there is nothing to snapshot, an overlay cannot be made (by path), or the host
        cannot take a snapshot of a disk (by vdev).
    :raise HostError: if a live snapshot is not possible here.
    """
    if snapshot.memory is None and not snapshot.disks:
        raise DiskChoiceError(f"domain {domain.name!r} has no writable disk and no memory was asked for")
    if memory_problem:
        raise MemoryPathError(f"memory image {snapshot.memory}: {memory_problem}", hint="choose another path")
    for path, problem in overlay_problems.items():
        raise DiskChoiceError(f"overlay {path}: {problem}", hint="choose another target")
    for disk in snapshot.disks:
        if disk.device in disk_problems:
            raise DiskChoiceError(
                f"disk {disk.device}: {disk_problems[disk.device]}", hint="choose other disks"
            )
    runs = domain.run_state is not RunState.PAUSED
    live = live and runs
    if live and live_problem:
        raise HostError(f"no live snapshot on this host: {live_problem}", hint="leave out --live")
    config = with_images(domain.config, _images_after(snapshot))
    steps = [
        *_make_overlays(snapshot),
        *_take(snapshot, runs=runs, live=live, memory_first=memory_first),
        *([PlannedStep(do.ResumeDomain())] if runs else []),
        *([] if snapshot.memory is None else [PlannedStep(do.SyncFile(path=snapshot.memory), beside=runs)]),
        PlannedStep(
            do.UpdateDomain(config=config, current=snapshot.name),
            do.UpdateDomain(config=domain.config, current=domain.current),
            beside=runs,
        ),
        PlannedStep(
            do.WriteMetadata(name=snapshot.name, content=to_json(snapshot).decode()),
            do.ForgetMetadata(name=snapshot.name),
        ),
    ]
    if not runs and snapshot.memory is not None and not memory_first:
        return then_stay_paused("create", snapshot.name, steps, config, snapshot.memory)
    return Plan(operation="create", snapshot=snapshot.name, steps=tuple(steps))


def plan_disk_snapshots(domain: ObservedDomain, snapshot: DomainSnapshot) -> Plan:
    """Plan the snapshots of disks alone, for those who store the metadata themselves."""
    config = with_images(domain.config, _images_after(snapshot))
    steps = (
        *_make_overlays(snapshot),
        *_take_disk_snapshots(snapshot),
        PlannedStep(
            do.UpdateDomain(config=config, current=domain.current),
            do.UpdateDomain(config=domain.config, current=domain.current),
        ),
    )
    return Plan(operation="disk-snapshot-create", snapshot=snapshot.name, steps=steps)


def _overlaid(snapshot: DomainSnapshot) -> tuple[OverlaidDisk, ...]:
    return tuple(
        OverlaidDisk(DiskImage(disk.device, disk.path, disk.format), disk.file)
        for disk in snapshot.disks
        if disk.type is SnapshotType.EXTERNAL and disk.file is not None
    )


def _images_after(snapshot: DomainSnapshot) -> dict[str, DiskImage]:
    return {
        disk.base.vdev: DiskImage(disk.base.vdev, disk.overlay, OVERLAY_FORMAT)
        for disk in _overlaid(snapshot)
    }


def _make_overlays(snapshot: DomainSnapshot) -> Iterator[PlannedStep]:
    overlays = tuple(Overlay(disk.overlay, disk.base.path, disk.base.format) for disk in _overlaid(snapshot))
    if overlays:
        paths = tuple(overlay.path for overlay in overlays)
        yield PlannedStep(do.CreateOverlays(overlays=overlays), do.RemoveImages(paths=paths))


def _take(snapshot: DomainSnapshot, *, runs: bool, live: bool, memory_first: bool) -> Iterator[PlannedStep]:
    """What makes the snapshot; the domain is paused afterwards, but for a live one."""
    if memory_first and snapshot.memory is not None:
        yield let_run(runs=runs)
        yield from _save_memory(snapshot, live=live)
        yield from _take_disk_snapshots(snapshot)
        return
    if live and snapshot.memory is not None:
        path, overlaid = snapshot.memory, _overlaid(snapshot)
        prepare = do.PrepareLive(path=path, overlaid=overlaid)
        yield PlannedStep(prepare, do.DropPreparations(path=path, overlaid=overlaid))
    elif snapshot.memory is not None:
        path = snapshot.memory
        yield PlannedStep(do.PrepareMemory(path=path), do.DropPreparations(path=path))
    if runs:
        yield msgspec.structs.replace(PAUSE, beside=snapshot.memory is not None and not live)
    # QEMU carries commands out in their order: none of these need wait for the answer to the one before.
    behind = not live and (runs or snapshot.memory is not None)
    for step in _take_disk_snapshots(snapshot):
        yield msgspec.structs.replace(step, beside=behind)
    yield from _save_memory(snapshot, live=live)


def _take_disk_snapshots(snapshot: DomainSnapshot) -> Iterator[PlannedStep]:
    name, disks, overlaid = snapshot.name, tagged_disks(snapshot), _overlaid(snapshot)
    if disks or overlaid:
        since_ns = snapshot.sort_key[1]
        yield PlannedStep(
            do.TakeDiskSnapshots(name=name, disks=disks, overlaid=overlaid),
            do.TakeBackDiskSnapshots(name=name, disks=disks, overlaid=overlaid, since_ns=since_ns),
        )


def _save_memory(snapshot: DomainSnapshot, *, live: bool) -> Iterator[PlannedStep]:
    if snapshot.memory is not None:
        path = snapshot.memory
        yield PlannedStep(do.SaveMemory(path=path, live=live), do.RemoveMemory(path=path))
