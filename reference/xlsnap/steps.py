# SPDX-License-Identifier: LGPL-2.1-or-later
"""The steps that plans are made of: plain data that can be journalled and read back.

A step says what to do to the host or the store, never how. Each can be done again after an interruption:
a step that finds its work done already succeeds.
"""

from __future__ import annotations

import msgspec

from .domain import DomainConfig, Overlay


class Step(msgspec.Struct, frozen=True, kw_only=True, tag_field="step"):
    """Base of all steps."""


class DiskImage(msgspec.Struct, frozen=True):
    """One disk of a domain as steps name it: vdev, absolute path of the image, its format."""

    vdev: str
    path: str
    format: str


class TaggedImage(msgspec.Struct, frozen=True):
    """An image and the id of one of its internal snapshots: QEMU's tools take a name for an id."""

    image: DiskImage
    tag_id: str


class PauseDomain(Step, frozen=True, tag="pause-domain"):
    """Stop the virtual CPUs; with `if_active` a domain that has ended is no error."""

    if_active: bool = False


class ResumeDomain(Step, frozen=True, tag="resume-domain"):
    """Let the virtual CPUs run again; with `if_active` a domain that has ended or shut down is no error."""

    if_active: bool = False


class StopDomain(Step, frozen=True, tag="stop-domain"):
    """End the domain at once, as pulling the plug does."""


class StartDomain(Step, frozen=True, tag="start-domain"):
    """Start the domain afresh on the disks of `config`."""

    config: DomainConfig
    paused: bool = False


class LoadSuccessor(Step, frozen=True, tag="load-successor"):
    """Start a second process that loads the memory image and waits, disks untouched.

    The domain goes on meanwhile; if the image turns out to be bad, nothing has happened to it.
    """

    config: DomainConfig
    memory_image: str


class DiscardSuccessor(Step, frozen=True, tag="discard-successor"):
    """End the waiting process."""


class PromoteSuccessor(Step, frozen=True, tag="promote-successor"):
    """Give the waiting process the disks: it is the domain from now on."""

    config: DomainConfig
    memory_image: str
    paused: bool
    keep_domid: bool = False


class OverlaidDisk(msgspec.Struct, frozen=True):
    """A disk whose image becomes the backing file of a new overlay, at the absolute path ``overlay``."""

    base: DiskImage
    overlay: str


class CreateOverlays(Step, frozen=True, tag="create-overlays"):
    """Make new, empty qcow2 images over backing files that stay untouched, and note them as the domain's."""

    overlays: tuple[Overlay, ...]


class CopySnapshot(Step, frozen=True, tag="copy-snapshot"):
    """Make a new image with the state of an internal snapshot, and note it as the domain's.

    For an image whose present state others need: there the snapshot cannot be applied in place.
    """

    source: TaggedImage
    copy: Overlay


class RemoveImages(Step, frozen=True, tag="remove-images"):
    """Remove images that the toolstack made; one that is gone already is no error."""

    paths: tuple[str, ...]


class TakeDiskSnapshots(Step, frozen=True, tag="take-disk-snapshots"):
    """Take the snapshots of all disks in one transaction.

    ``disks`` get an internal snapshot; ``overlaid`` go on with their overlays, which exist and are empty.
    """

    name: str
    disks: tuple[DiskImage, ...]
    overlaid: tuple[OverlaidDisk, ...] = ()


class TakeBackDiskSnapshots(Step, frozen=True, tag="take-back-disk-snapshots"):
    """Undo `TakeDiskSnapshots`, which may have taken effect in part.

    Internal snapshots older than `since_ns` (nanoseconds since the epoch) stay: they were there before.
    What was written to an overlay goes to its base, and the domain goes on with the base.
    """

    name: str
    disks: tuple[DiskImage, ...]
    since_ns: int
    overlaid: tuple[OverlaidDisk, ...] = ()


class DropDiskSnapshots(Step, frozen=True, tag="drop-disk-snapshots"):
    """Delete the internal snapshots of that name from `disks`; one that is gone already is no error."""

    name: str
    disks: tuple[DiskImage, ...]


class ApplyDiskSnapshots(Step, frozen=True, tag="apply-disk-snapshots"):
    """Make the state of the internal snapshots the images' current state. The domain is stopped."""

    disks: tuple[TaggedImage, ...]


class CopyDown(Step, frozen=True, tag="copy-down"):
    """Write what `top` has into its backing file `base`, until both read the same.

    ``active``: `top` is the disk's present image. It stays so; what the guest writes meanwhile reaches both,
    as long as the domain runs. Otherwise whatever lies over `top` in the running domain lies over `base` when
    this is done; images of other branches do not.
    """

    top: DiskImage
    base: DiskImage
    active: bool


class StopCopyingDown(Step, frozen=True, tag="stop-copying-down"):
    """End a `CopyDown` that has not come to its end; `top` reads as ever."""

    top: DiskImage
    base: DiskImage
    active: bool


class SwitchDown(Step, frozen=True, tag="switch-down"):
    """Let the paused or stopped domain go on with `base` as its disk, after an active `CopyDown`.

    Done already if `top` is gone.
    """

    top: DiskImage
    base: DiskImage


class LayOver(Step, frozen=True, tag="lay-over"):
    """Let an overlay name `base` as its backing file, which reads the same as the one that it named."""

    overlay: str
    base: DiskImage


class SaveMemory(Step, frozen=True, tag="save-memory"):
    """Write the memory of the domain to a new file.

    The domain is paused. With `live` it runs again as soon as the state of its devices is written; the memory
    is that of the instant before all the same.
    """

    path: str
    live: bool = False


class PrepareLive(Step, frozen=True, tag="prepare-live"):
    """Do what a live snapshot needs and what can be done while the guest runs, so that it waits for less.

    The file for its memory is there afterwards, and the overlays of `overlaid` disks are open.
    """

    path: str
    overlaid: tuple[OverlaidDisk, ...] = ()


class PrepareMemory(Step, frozen=True, tag="prepare-memory"):
    """Make the file that `SaveMemory` writes, and let QEMU have it, which it does beside other things."""

    path: str


class DropPreparations(Step, frozen=True, tag="drop-preparations"):
    """Undo `PrepareLive` or `PrepareMemory`; what is in use already stays."""

    path: str
    overlaid: tuple[OverlaidDisk, ...] = ()


class SyncFile(Step, frozen=True, tag="sync-file"):
    """Make a file and its name durable."""

    path: str


class RemoveMemory(Step, frozen=True, tag="remove-memory"):
    """Remove a memory image; one that is gone already is no error, a file that is not ours stays."""

    path: str


class WriteMetadata(Step, frozen=True, tag="write-metadata"):
    """Store the metadata under its final name: from now on the snapshot exists."""

    name: str
    content: str


class ReplaceMetadata(Step, frozen=True, tag="replace-metadata"):
    """Store other metadata of a snapshot that exists, such as another parent or path."""

    name: str
    content: str


class HideMetadata(Step, frozen=True, tag="hide-metadata"):
    """Take the snapshot out of the list, keeping its metadata."""

    name: str


class ShowMetadata(Step, frozen=True, tag="show-metadata"):
    """Put a hidden snapshot back into the list."""

    name: str


class ForgetMetadata(Step, frozen=True, tag="forget-metadata"):
    """Remove the metadata, hidden or not."""

    name: str


class UpdateDomain(Step, frozen=True, tag="update-domain"):
    """Note what the domain is from now on: its configuration, and the snapshot that its state comes from."""

    config: DomainConfig
    current: str | None


AnyStep = (
    PauseDomain
    | ResumeDomain
    | StopDomain
    | StartDomain
    | LoadSuccessor
    | DiscardSuccessor
    | PromoteSuccessor
    | CreateOverlays
    | CopySnapshot
    | RemoveImages
    | TakeDiskSnapshots
    | TakeBackDiskSnapshots
    | DropDiskSnapshots
    | ApplyDiskSnapshots
    | CopyDown
    | StopCopyingDown
    | SwitchDown
    | LayOver
    | PrepareLive
    | PrepareMemory
    | DropPreparations
    | SaveMemory
    | SyncFile
    | RemoveMemory
    | WriteMetadata
    | HideMetadata
    | ShowMetadata
    | ForgetMetadata
    | ReplaceMetadata
    | UpdateDomain
)


class PlannedStep(msgspec.Struct, frozen=True):
    """A step and the one that takes it back, if it can be taken back.

    ``beside``: it does not need the step before it, and may be done while QEMU is still busy with that one.
    """

    do: AnyStep
    undo: AnyStep | None = None
    beside: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of one operation.

    ``irrevocable_after`` is the number of steps after which the only way is forward: an operation that
    fails before is undone, one that fails later is finished by recovery. None: all can be undone.
    """

    operation: str
    snapshot: str
    steps: tuple[PlannedStep, ...]
    irrevocable_after: int | None = None

    def is_irrevocable(self, taken: int) -> bool:
        """Say whether an operation of which `taken` steps took effect must be finished."""
        return self.irrevocable_after is not None and taken >= self.irrevocable_after

    def has_beside(self, index: int) -> bool:
        """Say whether the step after this one may be done while QEMU is busy with this one."""
        return index + 1 < len(self.steps) and self.steps[index + 1].beside

    def unfinished(self, begun: int) -> int:
        """Return the index of the first step that may be unfinished when `begun` steps had begun."""
        index = begun - 1
        while index > 0 and self.steps[index].beside:
            index -= 1
        return index

    @property
    def after_commit(self) -> int | None:
        """The number of steps up to the one that makes a snapshot exist, or None if the plan has none."""
        kinds = [type(step.do) for step in self.steps]
        return kinds.index(WriteMetadata) + 1 if WriteMetadata in kinds else None

    @property
    def irrevocable_steps(self) -> tuple[PlannedStep, ...]:
        """The steps from the one that cannot be taken back: recovery goes on with one of these."""
        return self.steps[(self.irrevocable_after or 1) - 1 :]
