# SPDX-License-Identifier: LGPL-2.1-or-later
"""The images of a domain as a forest: which lies over which, which are needed, what can be merged (pure).

::

    hda.img  <--  hda.S1.qcow2  <--  hda.S2.qcow2      (the disk's present image)
    state of S1   state of S2        guest writes

All of it is known from the domain's record and the snapshots' metadata: no image is asked what it lies over.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from .domain import DomainConfig, DomainRecord, Overlay
from .snapshot import SnapshotType
from .steps import DiskImage

OVERLAY_FORMAT = "qcow2"


class Need(msgspec.Struct, frozen=True):
    """An image that a snapshot needs: its content (external) or an internal snapshot in it."""

    device: str
    path: str
    type: SnapshotType = SnapshotType.INTERNAL


class Merge(msgspec.Struct, frozen=True):
    """Two images that can become one: `top` is the only one over `base`, whose state nobody needs."""

    top: DiskImage
    base: DiskImage
    active: bool


class Images(msgspec.Struct, frozen=True, kw_only=True):
    """The images that a domain and its snapshots use.

    ``overlays`` are by path. ``present`` are the images of the domain's disks, ``states`` those whose content
    a snapshot needs (external), ``tagged`` those that hold an internal snapshot, each with the vdev.
    """

    overlays: Mapping[str, Overlay]
    present: Mapping[str, str]
    states: Mapping[str, str]
    tagged: Mapping[str, str]

    @classmethod
    def of(cls, overlays: Iterable[Overlay], config: DomainConfig, needs: Iterable[Need]) -> Images:
        """Gather them from a domain's overlays, its present configuration and what its snapshots need."""
        needs = tuple(needs)
        return cls(
            overlays={overlay.path: overlay for overlay in overlays},
            present={image.path: vdev for vdev, image in present_images(config).items()},
            states={need.path: need.device for need in needs if need.type is SnapshotType.EXTERNAL},
            tagged={need.path: need.device for need in needs if need.type is not SnapshotType.EXTERNAL},
        )

    @property
    def needed(self) -> Mapping[str, str]:
        """The images that the domain or a snapshot names itself, each with the vdev."""
        return {**self.tagged, **self.states, **self.present}

    def below(self, path: str) -> Iterator[str]:
        """Yield the images that one reads from, the nearest first; it does not come itself.

        A record whose overlays form a circle, which only damage can do, ends where it would begin again.
        """
        seen = {path}
        overlay = self.overlays.get(path)
        while overlay is not None and overlay.backing is not None and overlay.backing not in seen:
            yield overlay.backing
            seen.add(overlay.backing)
            overlay = self.overlays.get(overlay.backing)

    def first(self, path: str) -> str:
        """Return the image that the disk had before its first external snapshot: the user's."""
        lowest = [path, *self.below(path)][-1]
        overlay = self.overlays.get(lowest)
        return overlay.copy_of if overlay is not None and overlay.copy_of is not None else lowest

    def above(self, path: str) -> list[str]:
        """Return the images that lie directly over one."""
        return [overlay.path for overlay in self.overlays.values() if overlay.backing == path]

    @property
    def in_use(self) -> Mapping[str, str]:
        """Images from which the domain or a snapshot reads, each with the vdev."""
        return {**self._below_all(self.needed), **self.needed}

    @property
    def unused(self) -> tuple[str, ...]:
        """Images that the toolstack made and nobody reads from any more, the upper ones first."""
        in_use = self.in_use
        unused = [path for path in self.overlays if path not in in_use]
        return tuple(sorted(unused, key=self._depth, reverse=True))

    def is_frozen(self, path: str, *, without: str | None = None) -> bool:
        """Say whether an image's content must not change: a snapshot needs it, or an image over it is needed.

        `without` is a disk's present image that does not count, because it is about to be given up.
        """
        present = {image: vdev for image, vdev in self.present.items() if image != without}
        return path in self.states or path in self._below_all({**self.states, **self.tagged, **present})

    def merges(self) -> Iterator[Merge]:
        """Yield the pairs that can become one image, lower ones first. After one merge, ask again."""
        in_use = self.in_use
        readers = Counter(overlay.backing for path, overlay in self.overlays.items() if path in in_use)
        tops = [
            overlay
            for path, overlay in self.overlays.items()
            if path in in_use
            and path not in self.tagged
            and overlay.backing is not None
            and overlay.backing not in self.states
            and overlay.backing not in self.present
            and readers[overlay.backing] == 1
        ]
        for overlay in sorted(tops, key=lambda item: self._depth(item.path)):
            vdev = in_use[overlay.path]
            yield Merge(
                top=DiskImage(vdev, overlay.path, OVERLAY_FORMAT),
                base=DiskImage(vdev, str(overlay.backing), overlay.backing_format or OVERLAY_FORMAT),
                active=overlay.path in self.present,
            )

    def _below_all(self, paths: Mapping[str, str]) -> dict[str, str]:
        """Return what lies below any of some images, looking at each image once."""
        found: dict[str, str] = {}
        for path, vdev in paths.items():
            for lower in self.below(path):
                if lower in found:
                    break
                found[lower] = vdev
        return found

    def _depth(self, path: str) -> int:
        return sum(1 for _ in self.below(path))


def present_images(config: DomainConfig) -> dict[str, DiskImage]:
    """Return the images of a configuration's disks by vdev; drives without a medium have none."""
    return {
        str(disk.vdev): DiskImage(str(disk.vdev), disk.target, disk.format)
        for disk in config.disks
        if disk.target
    }


def chain(record: DomainRecord, image: DiskImage) -> tuple[DiskImage, ...]:
    """Return an image and what it reads from as far as the toolstack made it, the upper first.

    The last is an image of the user; what that lies over is the user's matter.
    """
    images = Images.of(record.overlays, record.config, ())
    found = [image]
    for path in images.below(image.path):
        above = images.overlays[found[-1].path]
        found.append(DiskImage(image.vdev, path, above.backing_format or OVERLAY_FORMAT))
    return tuple(found)


def with_images(config: DomainConfig, images: Mapping[str, DiskImage]) -> DomainConfig:
    """Return the configuration with other images for some disks, given by vdev."""
    disks = tuple(
        dataclasses.replace(disk, target=image.path, format=image.format)
        if (image := images.get(str(disk.vdev))) is not None
        else disk
        for disk in config.disks
    )
    return msgspec.structs.replace(config, disks=disks)
