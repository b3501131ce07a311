# SPDX-License-Identifier: LGPL-2.1-or-later
"""The plan of a revert: each disk in its own way, all of them or none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from .. import steps as do
from ..chain import OVERLAY_FORMAT, Images, present_images, with_images
from ..domain import DomainConfig, Overlay
from ..errors import SnapshotDamagedError
from ..snapshot import DomainSnapshot, SnapshotType
from ..steps import DiskImage, Plan, PlannedStep, TaggedImage
from .observed import ObservedDisk, ObservedDomain, snapshot_config


class Return(msgspec.Struct, frozen=True):
    """How a disk comes back to its state in the snapshot.

    ``overlay``: with a new overlay over ``image``. ``apply``: the internal snapshot is applied in place.
    ``copy``: it is copied to a new image, because others need what its image has now. ``keep``: the disk is
    not in the snapshot and goes on with ``image``. ``path`` is the new image.
    """

    how: Literal["overlay", "apply", "copy", "keep"]
    image: DiskImage
    path: str | None = None

    @property
    def needs_path(self) -> bool:
        """Whether a new image is made."""
        return self.how in ("overlay", "copy")

    @property
    def result(self) -> DiskImage:
        """The disk's image after the revert."""
        if self.path is None:
            return self.image
        return DiskImage(self.image.vdev, self.path, OVERLAY_FORMAT)


def choose_returns(domain: ObservedDomain, snapshot: DomainSnapshot) -> tuple[Return, ...]:
    """Decide how each disk comes back, in the order of the snapshot's disk list.

    Disks that the domain has lost since then come back with the image that they had; those that it has got
    since then go, unless they are part of the list.
    """
    images = domain.images()
    present = present_images(domain.config)
    taken = {disk.device: disk for disk in snapshot.disks}
    returns = []
    for vdev, image in present_images(snapshot_config(domain, snapshot)).items():
        disk = taken.get(vdev)
        if disk is None:
            kept = present.get(vdev, image)
            frozen = vdev not in present and images.is_frozen(kept.path)
            returns.append(Return("overlay" if frozen else "keep", kept))
            continue
        image = DiskImage(vdev, disk.path, disk.format)
        if disk.type is SnapshotType.EXTERNAL:
            returns.append(Return("overlay", image))
            continue
        working = present.get(vdev)
        frozen = images.is_frozen(image.path, without=working.path if working else None)
        unsure = bool(domain.unreadable and domain.overlays)
        returns.append(Return("copy" if frozen or unsure else "apply", image))
    return tuple(returns)


def plan_revert(
    domain: ObservedDomain,
    snapshot: DomainSnapshot,
    *,
    disks: Sequence[ObservedDisk],
    returns: Sequence[Return],
    memory_problem: str | None = None,
    paused: bool = False,
) -> Plan:
    """Plan the return to `snapshot`; all of `returns` that need a new image have a path by now.

    Everything that can fail for lack of something is checked or done before the running domain is touched:
    the disks' tags here, new images, the memory image by loading it into a successor. A disk-only snapshot of
    an active domain is a power cycle; a stopped domain is started.

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
    config = with_images(
        snapshot_config(domain, snapshot), {item.image.vdev: item.result for item in returns}
    )
    tags = {disk.image.vdev: disk.tag_id for disk in disks}
    new = _new_overlays(domain.images(), returns)
    prepare = [*_make_images(new, returns, tags), *_load(snapshot, config)]
    applied = tuple(TaggedImage(item.image, tags[item.image.vdev]) for item in returns if item.how == "apply")
    unused = domain.unused_after(domain.images(config=config, overlays=(*domain.overlays, *new)))
    steps = [
        *prepare,
        PlannedStep(do.StopDomain()),
        *([PlannedStep(do.ApplyDiskSnapshots(disks=applied))] if applied else []),
        PlannedStep(_begin(snapshot, config, paused=paused)),
        PlannedStep(do.UpdateDomain(config=config, current=snapshot.name)),
        *([PlannedStep(do.RemoveImages(paths=unused))] if unused else []),
    ]
    return Plan(
        operation="revert",
        snapshot=snapshot.name,
        steps=tuple(steps),
        irrevocable_after=len(prepare) + 1,
    )


def plan_disk_revert(
    domain: ObservedDomain, name: str, *, disks: Sequence[ObservedDisk], returns: Sequence[Return]
) -> Plan:
    """Plan the return of the disks of a stopped domain alone, for those who start it themselves.

    No image is removed: whoever keeps the metadata knows whether a snapshot needs it.

    :raise SnapshotDamagedError: if something that the snapshots need is missing.
    """
    problems = [f"disk {disk.image.vdev}: {disk.problem}" for disk in disks if disk.problem]
    if problems:
        raise SnapshotDamagedError("; ".join(problems))
    config = with_images(domain.config, {item.image.vdev: item.result for item in returns})
    tags = {disk.image.vdev: disk.tag_id for disk in disks}
    made = tuple(_make_images(_new_overlays(domain.images(), returns), returns, tags))
    applied = tuple(TaggedImage(item.image, tags[item.image.vdev]) for item in returns if item.how == "apply")
    steps = [
        *made,
        PlannedStep(do.StopDomain()),  # it is stopped: from here on the only way is forward
        *([PlannedStep(do.ApplyDiskSnapshots(disks=applied))] if applied else []),
        PlannedStep(do.UpdateDomain(config=config, current=domain.current)),
    ]
    return Plan(
        operation="disk-snapshot-revert", snapshot=name, steps=tuple(steps), irrevocable_after=len(made) + 1
    )


def _new_overlays(images: Images, returns: Sequence[Return]) -> tuple[Overlay, ...]:
    """The new images; a copy lies over nothing."""
    return tuple(
        Overlay(item.path, item.image.path, item.image.format)
        if item.how == "overlay"
        else Overlay(item.path, copy_of=images.first(item.image.path))
        for item in returns
        if item.path is not None
    )


def _make_images(
    new: Sequence[Overlay], returns: Sequence[Return], tags: dict[str, str]
) -> Iterator[PlannedStep]:
    overlays = tuple(overlay for overlay in new if overlay.backing is not None)
    if overlays:
        undo = do.RemoveImages(paths=tuple(overlay.path for overlay in overlays))
        yield PlannedStep(do.CreateOverlays(overlays=overlays), undo)
    sources = {item.path: TaggedImage(item.image, tags[item.image.vdev]) for item in returns if item.path}
    for copy in new:
        if copy.backing is None:
            step = do.CopySnapshot(source=sources[copy.path], copy=copy)
            yield PlannedStep(step, do.RemoveImages(paths=(copy.path,)))


def _load(snapshot: DomainSnapshot, config: DomainConfig) -> Iterator[PlannedStep]:
    if snapshot.memory is not None:
        load = do.LoadSuccessor(config=config, memory_image=snapshot.memory)
        yield PlannedStep(load, do.DiscardSuccessor())


def _begin(
    snapshot: DomainSnapshot, config: DomainConfig, *, paused: bool
) -> do.StartDomain | do.PromoteSuccessor:
    if snapshot.memory is None:
        return do.StartDomain(config=config, paused=paused)
    paused = paused or snapshot.paused
    return do.PromoteSuccessor(config=config, memory_image=snapshot.memory, paused=paused)
