# SPDX-License-Identifier: LGPL-2.1-or-later
"""What does not belong together in a domain's snapshots, and which of it can be repaired without loss (pure).

Each rule looks at the observations and yields findings. A repair never takes away what somebody could still
want: it removes only what is incomplete or unused, in our own directories or among the images that the
toolstack made. Everything else is explained and left to the user.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import msgspec

from .chain import OVERLAY_FORMAT, Images, Need, present_images
from .domain import DomainConfig, DomainRecord
from .findings import Finding, Kind
from .snapshot import CONFIG_KEY, PARENT_KEY, DiskSnapshot, DomainSnapshot, SnapshotType, to_json
from .steps import (
    AnyStep,
    DiskImage,
    DropDiskSnapshots,
    ForgetMetadata,
    HideMetadata,
    LayOver,
    RemoveImages,
    RemoveMemory,
    ReplaceMetadata,
    ShowMetadata,
    UpdateDomain,
)
from .tree import broken_parents

__all__ = ["Damaged", "Finding", "ImageFacts", "Kind", "MemoryFacts", "Observations", "check", "images_of"]


class ImageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An image as it was found.

    ``problem`` is why it cannot be read, ``damage`` what `qemu-img check` says of it. ``tags`` are the names
    of its internal snapshots; ``backing`` (absolute) and ``backing_format`` are what its header says it lies
    over.
    """

    image: DiskImage
    exists: bool = True
    problem: str | None = None
    damage: str | None = None
    tags: tuple[str, ...] = ()
    backing: str | None = None
    backing_format: str | None = None

    @property
    def readable(self) -> bool:
        """Whether the rest was found out."""
        return self.exists and self.problem is None


class MemoryFacts(msgspec.Struct, frozen=True):
    """A memory image: what is wrong with it, and whether the toolstack made the file."""

    problem: str | None = None
    ours: bool = True


class Damaged(msgspec.Struct, frozen=True):
    """Metadata that cannot be read; ``garbled`` if that is for what is in the file."""

    name: str
    problem: str
    garbled: bool = True


class Observations(msgspec.Struct, frozen=True, kw_only=True):
    """All that was found of a domain and its snapshots, while its lock was held.

    ``directory`` is the domain's snapshot directory. ``memory`` are the memory images that snapshots name,
    ``stray_memory`` those in the directory that none names, ``images`` disk images, all by path.
    ``elsewhere`` are the images of other domains.
    """

    record: DomainRecord
    directory: str
    active: bool = False
    interrupted: str | None = None
    snapshots: tuple[DomainSnapshot, ...] = ()
    damaged: tuple[Damaged, ...] = ()
    hidden: tuple[DomainSnapshot, ...] = ()
    hidden_damaged: tuple[Damaged, ...] = ()
    memory: Mapping[str, MemoryFacts] = {}
    stray_memory: Mapping[str, MemoryFacts] = {}
    images: Mapping[str, ImageFacts] = {}
    elsewhere: frozenset[str] = frozenset()

    @property
    def names(self) -> set[str]:
        """The names of all listed snapshots, readable or not."""
        return {snapshot.name for snapshot in self.snapshots} | {item.name for item in self.damaged}

    @property
    def hidden_names(self) -> list[str]:
        """The names of snapshots that are not complete or being deleted."""
        return [snapshot.name for snapshot in self.hidden] + [item.name for item in self.hidden_damaged]

    @property
    def graph(self) -> Images:
        """The images that the domain and its snapshots, also hidden ones, use by record and metadata."""
        return Images.of(
            self.record.overlays,
            self.record.config,
            (
                Need(disk.device, disk.path, disk.type)
                for snapshot in (*self.snapshots, *self.hidden)
                for disk in snapshot.disks
            ),
        )

    @property
    def in_use(self) -> set[str]:
        """Images from which anybody reads, by the record or by what the images' headers say."""
        backings = {path: {facts.backing} for path, facts in self.images.items()}
        for overlay in self.record.overlays:
            backings.setdefault(overlay.path, set()).add(overlay.backing)
        found: set[str] = set()
        unread = [*self.graph.needed, *self.elsewhere]
        while unread:
            path = unread.pop()
            if path not in found:
                found.add(path)
                unread += [backing for backing in backings.get(path, ()) if backing is not None]
        return found


def images_of(record: DomainRecord, snapshots: tuple[DomainSnapshot, ...]) -> tuple[DiskImage, ...]:
    """Return the images that have to be looked at, each once."""
    found = {image.path: image for image in present_images(record.config).values()}
    for snapshot in snapshots:
        for disk in snapshot.disks:
            found.setdefault(disk.path, DiskImage(disk.device, disk.path, disk.format))
    for overlay in record.overlays:
        found.setdefault(overlay.path, DiskImage("", overlay.path, OVERLAY_FORMAT))
    for overlay in record.overlays:
        if overlay.backing is not None:
            backing_format = overlay.backing_format or OVERLAY_FORMAT
            found.setdefault(overlay.backing, DiskImage("", overlay.backing, backing_format))
    return tuple(found.values())


def check(seen: Observations) -> list[Finding]:
    """Return everything that does not belong together, in the order in which it should be mended."""
    return [finding for rule in _RULES for finding in rule(seen)]


# --- metadata -------------------------------------------------------------------------------------------


def _interrupted(seen: Observations) -> Iterator[Finding]:
    if seen.interrupted is not None:
        yield Finding.of(Kind.INTERRUPTED, seen.interrupted)


def _metadata(seen: Observations) -> Iterator[Finding]:
    for item in seen.damaged:
        yield Finding.of(Kind.METADATA_DAMAGED, f"snapshot {item.name!r}: {item.problem}")
    for snapshot in seen.snapshots:
        try:
            if CONFIG_KEY in snapshot.extra:
                msgspec.convert(snapshot.extra[CONFIG_KEY], DomainConfig)
        except msgspec.ValidationError as error:
            yield Finding.of(Kind.CONFIG_DAMAGED, f"snapshot {snapshot.name!r}: {CONFIG_KEY}: {error}")


def _hidden(seen: Observations) -> Iterator[Finding]:
    for name in [name for name in seen.hidden_names if name in seen.names]:
        good = any(snapshot.name == name for snapshot in seen.snapshots)
        # What is hidden is replaced by what is listed, which then gets its name back.
        repair: tuple[AnyStep, ...] = (HideMetadata(name=name), ShowMetadata(name=name))
        yield Finding.of(Kind.METADATA_COPY, f"snapshot {name!r}", repair if good else None)
    for snapshot in seen.hidden:
        if snapshot.name not in seen.names:
            yield _hidden_snapshot(seen, snapshot)
    for item in seen.hidden_damaged:
        if item.name in seen.names:
            continue
        what = f"snapshot {item.name!r}: {item.problem}"
        if item.garbled:
            yield Finding.of(Kind.SNAPSHOT_INCOMPLETE, what, (ForgetMetadata(name=item.name),))
        else:
            yield Finding.of(Kind.SNAPSHOT_UNCERTAIN, what)


def _hidden_snapshot(seen: Observations, snapshot: DomainSnapshot) -> Finding:
    what = f"snapshot {snapshot.name!r}"
    facts = [(disk, seen.images.get(disk.path)) for disk in snapshot.disks]
    if any(found is None or not found.readable for _, found in facts):
        return Finding.of(Kind.SNAPSHOT_UNCERTAIN, what)  # the images may come back
    tags = [_tag_problem(disk, found) for disk, found in facts if found is not None]
    missing = [problem for problem in (_memory_problem(seen, snapshot), *tags) if problem]
    if not missing:
        return Finding.of(Kind.SNAPSHOT_HIDDEN, what, (ShowMetadata(name=snapshot.name),))
    return Finding.of(
        Kind.SNAPSHOT_INCOMPLETE,
        f"{what}: {missing[0]}",
        (*_leftovers(seen, snapshot), ForgetMetadata(name=snapshot.name)),
    )


def _leftovers(seen: Observations, snapshot: DomainSnapshot) -> Iterator[AnyStep]:
    """Yield what removes the parts of a hidden snapshot; a memory image elsewhere is the user's."""
    listed = {(disk.path, disk.name) for item in seen.snapshots for disk in item.disks}
    for disk in snapshot.disks:
        tags = facts.tags if (facts := seen.images.get(disk.path)) else ()
        if disk.name in tags and (disk.path, disk.name) not in listed:
            image = DiskImage(disk.device, disk.path, disk.format)
            yield DropDiskSnapshots(name=disk.name, disks=(image,))
    memory = snapshot.memory
    if memory is None or any(item.memory == memory for item in seen.snapshots) or seen.damaged:
        return
    if os.path.dirname(memory) == seen.directory:
        yield RemoveMemory(path=memory)


# --- memory images --------------------------------------------------------------------------------------


def _memory_problem(seen: Observations, snapshot: DomainSnapshot) -> str | None:
    if snapshot.memory is None:
        return None
    return seen.memory.get(snapshot.memory, MemoryFacts("its memory image is missing")).problem


def _memory(seen: Observations) -> Iterator[Finding]:
    for snapshot in seen.snapshots:
        if problem := _memory_problem(seen, snapshot):
            yield Finding.of(Kind.MEMORY_MISSING, f"snapshot {snapshot.name!r}: {problem}")
    for path, facts in seen.stray_memory.items():
        if facts.ours and facts.problem and not seen.damaged:
            yield Finding.of(Kind.MEMORY_INCOMPLETE, facts.problem, (RemoveMemory(path=path),))
        else:
            yield Finding.of(Kind.MEMORY_UNUSED, facts.problem or path)


# --- images ---------------------------------------------------------------------------------------------


def _images(seen: Observations) -> Iterator[Finding]:
    in_use, ours = seen.in_use, {overlay.path for overlay in seen.record.overlays}
    for path, facts in seen.images.items():
        what = f"{path}{_users(seen, path)}"
        if not facts.exists:
            if path in in_use or path not in ours:
                yield Finding.of(Kind.IMAGE_MISSING, what)
            else:
                yield Finding.of(Kind.OVERLAY_MISSING, path, (RemoveImages(paths=(path,)),))
        elif facts.problem is not None:
            yield Finding.of(Kind.IMAGE_UNREADABLE, f"{what}: {facts.problem}")
        elif facts.damage is not None:
            yield Finding.of(Kind.IMAGE_DAMAGED, f"{what}: {facts.damage}")


def _users(seen: Observations, path: str) -> str:
    """Say which disks of the domain and of snapshots have an image, or that others lie over it."""
    disks = [
        f"disk {disk.device} of snapshot {snapshot.name!r}"
        for snapshot in seen.snapshots
        for disk in snapshot.disks
        if disk.path == path
    ]
    if (vdev := seen.graph.present.get(path)) is not None:
        disks.insert(0, f"disk {vdev} of the domain")
    if not disks:
        disks = [f"below {above}" for above in seen.graph.above(path)]
    return f" ({', '.join(disks)})" if disks else ""


def _tag_problem(disk: DiskSnapshot, facts: ImageFacts) -> str | None:
    if disk.type is SnapshotType.EXTERNAL:
        return None
    count = facts.tags.count(disk.name)
    if count == 1:
        return None
    many = f"{count} snapshots are" if count else "no snapshot is"
    return f"{many} named {disk.name!r} in {disk.path}"


def _tags(seen: Observations) -> Iterator[Finding]:
    known = {(disk.path, disk.name) for item in (*seen.snapshots, *seen.hidden) for disk in item.disks}
    unread = {item.name for item in (*seen.damaged, *seen.hidden_damaged)}
    for snapshot in seen.snapshots:
        for disk in snapshot.disks:
            facts = seen.images.get(disk.path)
            if facts is not None and facts.readable and (problem := _tag_problem(disk, facts)):
                yield Finding.of(Kind.TAG_MISSING, f"snapshot {snapshot.name!r}: {problem}")
    for path, facts in seen.images.items():
        for tag in dict.fromkeys(facts.tags):
            if (path, tag) not in known and tag not in unread:
                yield Finding.of(Kind.TAG_UNKNOWN, f"{tag!r} in {path}")


def _overlays(seen: Observations) -> Iterator[Finding]:
    in_use = seen.in_use
    for overlay in seen.record.overlays:
        facts = seen.images.get(overlay.path)
        if facts is None or not facts.exists or overlay.path in in_use:
            continue
        # Damaged metadata may need the image: nobody knows.
        repair = None if seen.damaged else (RemoveImages(paths=(overlay.path,)),)
        yield Finding.of(Kind.OVERLAY_UNUSED, overlay.path, repair)


def _links(seen: Observations) -> Iterator[Finding]:
    for overlay in seen.record.overlays:
        facts = seen.images.get(overlay.path)
        if facts is None or not facts.readable:
            continue
        if facts.backing != _normal(overlay.backing):
            found, noted = facts.backing or "nothing", overlay.backing or "nothing"
            yield Finding.of(
                Kind.LINK_DIFFERS, f"{overlay.path} says that it lies over {found}, the record says {noted}"
            )
        elif overlay.backing is not None and facts.backing_format != overlay.backing_format:
            base = DiskImage(facts.image.vdev, overlay.backing, overlay.backing_format or OVERLAY_FORMAT)
            yield Finding.of(
                Kind.LINK_FORMAT,
                f"{overlay.path} says that {overlay.backing} is {facts.backing_format or 'of any format'}",
                None if seen.active else (LayOver(overlay=overlay.path, base=base),),
            )


def _normal(path: str | None) -> str | None:
    return None if path is None else os.path.normpath(path)


def _disks(seen: Observations) -> Iterator[Finding]:
    graph = seen.graph
    for disk in seen.record.config.disks:
        if disk.target and disk.readwrite and graph.is_frozen(disk.target):
            yield Finding.of(Kind.DISK_IS_NEEDED, f"disk {disk.vdev}: {disk.target}")


# --- tree -----------------------------------------------------------------------------------------------


def _tree(seen: Observations) -> Iterator[Finding]:
    parents = {snapshot.name: snapshot.parent for snapshot in seen.snapshots}
    for name in (*seen.names, *seen.hidden_names):
        parents.setdefault(name, None)
    broken = broken_parents(parents)
    for snapshot in seen.snapshots:
        if reason := broken.get(snapshot.name):
            extra = {key: value for key, value in snapshot.extra.items() if key != PARENT_KEY}
            content = to_json(msgspec.structs.replace(snapshot, extra=extra)).decode()
            repair: tuple[AnyStep, ...] = (ReplaceMetadata(name=snapshot.name, content=content),)
            yield Finding.of(Kind.PARENT_WRONG, f"snapshot {snapshot.name!r}: {reason}", repair)
    current = seen.record.current
    if current is not None and current not in parents:
        step = UpdateDomain(config=seen.record.config, current=None)
        yield Finding.of(Kind.CURRENT_WRONG, f"snapshot {current!r}", (step,))


_RULES = (_interrupted, _metadata, _hidden, _memory, _images, _tags, _overlays, _links, _disks, _tree)
