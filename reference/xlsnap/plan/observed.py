# SPDX-License-Identifier: LGPL-2.1-or-later
"""What plans are made from: the domain, its snapshots and their images as they were found."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ..chain import Images, Merge, Need
from ..domain import DomainConfig, DomainRecord, Overlay, RunState
from ..errors import SnapshotDamagedError, UnknownSnapshotError
from ..host import ImageState
from ..snapshot import CONFIG_KEY, DiskSnapshot, DomainSnapshot, SnapshotType
from ..steps import DiskImage


class SnapshotNeeds(msgspec.Struct, frozen=True):
    """The part of a snapshot's metadata that decisions about images and the tree need."""

    parent: str | None = None
    disks: tuple[Need, ...] = ()


class ObservedDomain(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan needs to know of the domain.

    ``run_state`` is None for a stopped one. ``snapshots`` are read as they are asked for; ``needs`` has the
    part of all that matters for images. Those whose metadata is damaged are ``unreadable``: nobody knows then
    which images are needed, so none is merged or removed.
    """

    uuid: str
    name: str
    run_state: RunState | None
    config: DomainConfig
    snapshots: Mapping[str, DomainSnapshot]
    needs: Mapping[str, SnapshotNeeds] = {}
    unreadable: tuple[str, ...] = ()
    overlays: tuple[Overlay, ...] = ()
    current: str | None = None

    def snapshot(self, name: str) -> DomainSnapshot:
        """Return the snapshot of this name."""
        return find_snapshot(self.name, self.snapshots, name)

    def images(
        self,
        *,
        config: DomainConfig | None = None,
        overlays: tuple[Overlay, ...] | None = None,
        without: str | None = None,
    ) -> Images:
        """Return the images as they are, or as they will be with other disks or `without` a snapshot."""
        needs = (need for name, item in self.needs.items() if name != without for need in item.disks)
        return Images.of(
            self.overlays if overlays is None else overlays, self.config if config is None else config, needs
        )

    def unused_after(self, after: Images) -> tuple[str, ...]:
        """Return the images that an operation leaves without use; those that had none before stay."""
        if self.unreadable:
            return ()
        before = set(self.images().unused)
        return tuple(path for path in after.unused if path not in before)


def without_snapshot(domain: ObservedDomain, name: str, record: DomainRecord) -> ObservedDomain:
    """Return the domain after the deletion of a snapshot, without reading all others again.

    Those that descend from it were deleted before it, or are not asked for their parents any more.
    """
    return msgspec.structs.replace(
        domain,
        needs={other: item for other, item in domain.needs.items() if other != name},
        config=record.config,
        overlays=record.overlays,
        current=record.current,
    )


def with_one_image_less(domain: ObservedDomain, merge: Merge, record: DomainRecord) -> ObservedDomain:
    """Return the domain after a merge, without reading all again: what was needed of `top` is in `base`."""

    def moved(need: Need) -> Need:
        return msgspec.structs.replace(need, path=merge.base.path) if need.path == merge.top.path else need

    needs = {
        name: SnapshotNeeds(item.parent, tuple(map(moved, item.disks))) for name, item in domain.needs.items()
    }
    return msgspec.structs.replace(
        domain, needs=needs, config=record.config, overlays=record.overlays, current=record.current
    )


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
    """A disk that a snapshot needs, with the id of its tag if it is internal, or what is wrong with it."""

    image: DiskImage
    tag_id: str = ""
    problem: str | None = None


def observe_disk(snapshot: DiskSnapshot, state: ImageState) -> ObservedDisk:
    """Find the tag of an internal disk snapshot in its image: by name, never by id."""
    if state.problem or snapshot.type is SnapshotType.EXTERNAL:
        return ObservedDisk(state.image, problem=state.problem)
    ids = [tag.id for tag in state.tags if tag.name == snapshot.name]
    if len(ids) == 1:
        return ObservedDisk(state.image, tag_id=ids[0])
    many = f"{len(ids)} snapshots are" if ids else "no snapshot is"
    return ObservedDisk(state.image, problem=f"{many} named {snapshot.name!r} in {state.image.path}")


def snapshot_config(domain: ObservedDomain, snapshot: DomainSnapshot) -> DomainConfig:
    """Return the domain's configuration at the time of the snapshot: its disk list comes back with it.

    Metadata of another toolstack lacks it: then the domain's present configuration has to do.

    :raise SnapshotDamagedError: if it cannot be understood.
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
    """Return the images that hold the snapshot's disk states, internal and external."""
    return tuple(DiskImage(disk.device, disk.path, disk.format) for disk in snapshot.disks)


def tagged_disks(snapshot: DomainSnapshot) -> tuple[DiskImage, ...]:
    """Return the images that hold the snapshot's internal disk snapshots."""
    return tuple(
        DiskImage(disk.device, disk.path, disk.format)
        for disk in snapshot.disks
        if disk.type is not SnapshotType.EXTERNAL
    )
