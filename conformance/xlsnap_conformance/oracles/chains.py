# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which images there are, and which lies over which: what the implementation tells, and what the images say.

::

    hda.img  <--  hda.s1.qcow2  <--  hda.s2.qcow2
    place of s1   place of s2        present image of hda

`Chains` is what is known after a step; `observe` brings it up to date, `Graph` follows the backing files.
Where a snapshot is, the suite has seen when it was made. Only a delete can move it, by merging images, and
then the metadata has to tell.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .. import trace as do
from ..model import Place, World
from ..protocol import DiskInUse
from ..trace import Step
from . import Aspect, Finding, qcow2

OVERLAY_FORMAT = "qcow2"

Key = tuple[str, str]
"""Snapshot and vdev."""


@dataclass(frozen=True, slots=True)
class Chains:
    """The images of a domain.

    ``first`` are those that were made for it and ``present`` those that it uses now, by vdev; also of disks
    that it does not have at the moment. ``places`` are the images that hold a disk's state in a snapshot, or
    its tag, and ``overlays`` the paths of those that the domain went on with, as far as that is known.
    ``set_aside`` are those of disks that were detached and came back with another image: their user may still
    want what they hold. ``unknown`` are those of the places where a snapshot only was: images were merged
    since, and no metadata tells where it is now.
    """

    first: Mapping[str, Place]
    present: Mapping[str, Place]
    places: Mapping[Key, Place] = field(default_factory=dict)
    overlays: Mapping[Key, str] = field(default_factory=dict)
    set_aside: frozenset[str] = frozenset()
    unknown: frozenset[Key] = frozenset()

    @classmethod
    def of(cls, first: Mapping[str, Place]) -> Chains:
        """Return the chains of a domain without snapshots."""
        return cls(first, first)

    def format_of(self, path: str) -> str:
        """Return the format that an image must be opened in: all but the first ones are qcow2."""
        return next((image.format for image in self.first.values() if image.path == path), OVERLAY_FORMAT)


def observe(
    known: Chains,
    world: World,
    step: Step,
    disks: Sequence[DiskInUse] | None,
    told: Mapping[Key, Place] | None,
    *,
    attached: Collection[str] | None = None,
) -> Chains:
    """Return what is known after a step.

    :param world: the domain as it must be after the step.
    :param attached: the vdevs that it had before the step, None for all.
    :param disks: the images that it uses, None if that was not asked.
    :param told: where the metadata says that snapshots are, None where there is none: then what a delete has
        merged, and where the snapshots around it are now, is not known.
    """
    present = dict(known.present)
    if disks is None and not world.snapshots:
        present = dict(known.first)  # the domain is forgotten: only the user's configuration is left
    for disk in disks or ():
        present[disk.vdev] = Place(os.path.realpath(disk.path), disk.format)
    detached = known.present.keys() - (known.present.keys() if attached is None else attached)
    aside = {known.present[vdev].path for vdev in detached if present[vdev] != known.present[vdev]}
    places = {}
    overlays = {}
    merged = isinstance(step, do.Delete) and step.refused is None and told is None
    unknown: set[Key] = set()
    for snapshot in world.snapshots:
        for vdev in snapshot.disks:
            key = snapshot.name, vdev
            if key not in known.places:
                places[key] = known.present[vdev]
                overlays[key] = present[vdev].path
                continue
            moved = (told or {}).get(key) if isinstance(step, do.Delete) else None
            places[key] = moved or known.places[key]
            if key in known.unknown or (merged and vdev in world.overlaid):
                unknown.add(key)
            if key in known.overlays and not isinstance(step, do.Delete):
                overlays[key] = known.overlays[key]
    return Chains(known.first, present, places, overlays, known.set_aside | aside, frozenset(unknown))


# --- the graph ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Node:
    """An image as it was found. ``image`` is its header if it must be qcow2, ``problem`` why it has none."""

    path: str
    format: str
    image: qcow2.Image | None = None
    problem: str | None = None

    @property
    def backing(self) -> str | None:
        """The path of its backing file."""
        if self.image is None or self.image.backing_file is None:
            return None
        return os.path.realpath(os.path.join(os.path.dirname(self.path), _filename(self.image.backing_file)))


def _filename(text: str) -> str:
    """Return the path in what a qcow2 header names as backing file: a path, ``file:…`` or ``json:…``."""
    if text.startswith("json:"):
        try:
            options = json.loads(text[5:])
            return str(options.get("file.filename") or options["file"]["filename"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return text
    return text.removeprefix("file:")


@dataclass(frozen=True, slots=True)
class Graph:
    """All images that the domain or a snapshot needs, by path, with those that they read from.

    ``needed`` are those that are named by the domain or by a snapshot, each with the vdev; ``frozen`` those
    of them whose content a snapshot needs, with the names of snapshots.
    """

    nodes: Mapping[str, Node]
    needed: Mapping[str, str]
    frozen: Mapping[str, list[str]]

    def below(self, path: str) -> list[str]:
        """Return the images that one reads from, the nearest first; none twice."""
        found: list[str] = []
        node = self.nodes.get(path)
        while node is not None and (backing := node.backing) is not None and backing not in (path, *found):
            found.append(backing)
            node = self.nodes.get(backing)
        return found


def follow(chains: Chains, world: World) -> Graph:
    """Read the headers of all images in use."""
    needed = {image.path: vdev for vdev, image in chains.present.items()}
    frozen: dict[str, list[str]] = {}
    for snapshot in world.snapshots:
        for vdev in snapshot.disks:
            if vdev in snapshot.lost and vdev in snapshot.external:
                continue
            if (snapshot.name, vdev) in chains.unknown:
                continue
            path = chains.places[snapshot.name, vdev].path
            needed.setdefault(path, vdev)
            if vdev in snapshot.external:
                frozen.setdefault(path, []).append(snapshot.name)
    nodes: dict[str, Node] = {}
    waiting = [*needed]
    while waiting:
        path = waiting.pop()
        if path not in nodes:
            nodes[path] = look(path, chains.format_of(path))
            if (backing := nodes[path].backing) is not None:
                waiting.append(backing)
    return Graph(nodes, needed, frozen)


def look(path: str, format: str) -> Node:
    """Read what an image says of itself; a raw one says nothing."""
    try:
        if format == "qcow2":
            return Node(path, format, qcow2.read(path))
        os.stat(path)
        return Node(path, format)
    except (qcow2.ImageError, OSError) as error:
        return Node(path, format, None, getattr(error, "strerror", None) or str(error))


# --- what is wrong ------------------------------------------------------------------------------------------


def check_present(world: World, disks: Iterable[DiskInUse]) -> Iterator[Finding]:
    """Compare the disks of the domain with those that it should have."""
    expected = sorted(disk.vdev for disk in world.disks)
    observed = sorted(disk.vdev for disk in disks)
    if observed != expected:
        yield Finding(Aspect.DISKS, "the domain has other disks", expected, observed)


def check_change(before: Chains, after: Chains, world: World, step: Step) -> Iterator[Finding]:
    """Compare the present images with those before the step, where it says what becomes of them."""
    if isinstance(step, do.Revert | do.Delete) and step.refused is None:
        return
    external = _external(world, step)
    for disk in world.disks:
        old, new = before.present[disk.vdev], after.present[disk.vdev]
        if disk.vdev not in external:
            if new != old:
                yield Finding(
                    Aspect.DISK_IMAGE, f"{disk.vdev} has another image", old.path, new.path, disk.vdev
                )
            continue
        target = external[disk.vdev]
        if new.path == old.path:
            yield Finding(
                Aspect.DISK_IMAGE, f"{disk.vdev} has no overlay", target or "a new image", new.path, disk.vdev
            )
            continue
        if target is not None and new.path != os.path.realpath(target):
            yield Finding(
                Aspect.OVERLAY_PLACE, f"overlay of {disk.vdev} is elsewhere", target, new.path, disk.vdev
            )
        overlay = look(new.path, OVERLAY_FORMAT)
        named = overlay.image.backing_format if overlay.image else None
        yield from _compare_overlay(disk.vdev, old, new, overlay.backing, named)


def _external(world: World, step: Step) -> dict[str, str | None]:
    """Return the vdevs that a step has made external, with the targets that were asked for."""
    if not isinstance(step, do.Create) or step.refused is not None or step.dry_run:
        return {}
    snapshot = world.snapshots[-1]
    targets = {choice.vdev: choice.target for choice in step.disks or ()}
    return {vdev: targets.get(vdev) for vdev in snapshot.external}


def _compare_overlay(
    vdev: str, old: Place, new: Place, backing: str | None, backing_format: str | None
) -> Iterator[Finding]:
    expected = {"format": OVERLAY_FORMAT, "backing file": old.path, "backing format": old.format}
    observed = {"format": new.format, "backing file": backing, "backing format": backing_format}
    if observed != expected:
        wrong = next(key for key, value in expected.items() if observed[key] != value)
        yield Finding(Aspect.OVERLAY, f"overlay of {vdev} has another {wrong}", expected, observed, vdev)


def check_graph(graph: Graph, chains: Chains, world: World) -> Iterator[Finding]:
    """Every image is there and names what it lies over; the guest writes to none that another reads from."""
    vdev_of = {lower: vdev for path, vdev in graph.needed.items() for lower in (*graph.below(path), path)}
    for vdev, image in chains.first.items():
        if not os.path.lexists(image.path):
            yield Finding(Aspect.FIRST_IMAGE, f"first image of {vdev} is gone", image.path, None, vdev)
    for path, node in graph.nodes.items():
        vdev = vdev_of.get(path, "")
        if node.problem is not None:
            gone = not os.path.lexists(path)
            aspect = Aspect.IMAGE_GONE if gone else Aspect.IMAGE_SOUND
            users = graph.frozen.get(path) or [vdev]
            yield Finding(aspect, f"image for {users[0]!r} cannot be read", path, node.problem, vdev)
        elif (backing := node.backing) is not None:
            named = node.image.backing_format if node.image else None
            expected = chains.format_of(backing)
            if named != expected:
                summary = f"an overlay of {vdev} names another format of its backing file"
                yield Finding(Aspect.BACKING, summary, expected, named, vdev)
            if path in (backing, *graph.below(backing)):
                yield Finding(Aspect.BACKING, f"an overlay of {vdev} lies over itself", None, path, vdev)
    yield from _writes(graph, chains, world)


def _writes(graph: Graph, chains: Chains, world: World) -> Iterator[Finding]:
    for disk in world.disks:
        if not disk.writable:
            continue
        image = chains.present[disk.vdev]
        if image.format != chains.format_of(image.path):
            summary = f"image of {disk.vdev} is opened in another format"
            yield Finding(Aspect.DISK_FORMAT, summary, chains.format_of(image.path), image.format, disk.vdev)
        if image.path in graph.frozen:
            summary = f"{disk.vdev} writes to the image of snapshot {graph.frozen[image.path][0]!r}"
            yield Finding(Aspect.WRITES_BELOW, summary, "an overlay over it", image.path, disk.vdev)
        for path in graph.needed:
            if image.path in graph.below(path):
                summary = f"{disk.vdev} writes to an image that another one lies over"
                yield Finding(Aspect.WRITES_BELOW, summary, "an overlay over it", path, disk.vdev)
