# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the toolstack needs of a host, as a protocol: the seam between decisions and machines.

`qemu.QemuHost` and `xen.XenHost` are the implementations. Methods are about one domain, named by its record;
none of them touches the toolstack's own files, and none decides anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from .domain import DomainConfig, DomainRecord, Overlay, RunState
from .errors import NameTakenError
from .steps import DiskImage, OverlaidDisk, TaggedImage

if TYPE_CHECKING:
    from .check import ImageFacts


class Started(msgspec.Struct, frozen=True):
    """A process that is the domain from now on: its number under the domain's directory.

    ``domid`` is the id that the host gave it; None where the toolstack gives ids itself.
    """

    process: int
    accelerator: str
    domid: int | None = None


class KnownDomain(msgspec.Struct, frozen=True, kw_only=True):
    """An active domain that the host knows by itself, whoever has started it."""

    uuid: str
    domid: int
    config: DomainConfig


class Tag(msgspec.Struct, frozen=True):
    """An internal snapshot inside an image: QEMU's id, the name, and when it was made (epoch nanoseconds)."""

    id: str
    name: str
    date_ns: int = 0


class ImageState(msgspec.Struct, frozen=True):
    """What a look at an image found: its tags, or why it could not be read."""

    image: DiskImage
    tags: tuple[Tag, ...] = ()
    problem: str | None = None


class Host(Protocol):
    """Everything that is done to domains and images.

    ``progress`` is told of long copying: what, how many bytes are done, how many there are.
    """

    progress: Callable[[str, int, int], None] | None

    @property
    def memory_first(self) -> bool:
        """Whether the guest takes part in saving its memory.

        Then it must run for that, is left paused by it, and its disk snapshots are taken afterwards.
        Otherwise it is paused first, and must go on in a new process if it is to stay paused.
        """

    def domains(self) -> Sequence[KnownDomain]:
        """Return the active domains that the host knows by itself; none where only the toolstack has any."""

    async def disk_problems(self, record: DomainRecord, vdevs: Sequence[str]) -> dict[str, str]:
        """Say of disks of the active domain why no snapshot of them can be taken on this host."""

    async def run_state(self, record: DomainRecord) -> RunState | None:
        """Return the run state, or None for a stopped domain."""

    def is_active(self, record: DomainRecord) -> bool:
        """Say whether the domain has a process; cheap."""

    def cpu_seconds(self, record: DomainRecord) -> float:
        """Return the CPU time that the domain has used, in seconds."""

    def console(self, record: DomainRecord) -> Path:
        """Return the Unix socket of the domain's first serial port."""

    async def pause(self, record: DomainRecord) -> None:
        """Stop the virtual CPUs."""

    async def resume(self, record: DomainRecord) -> None:
        """Let the virtual CPUs run."""

    async def start(self, record: DomainRecord, config: DomainConfig, *, paused: bool) -> Started:
        """Start the domain afresh."""

    async def stop(self, record: DomainRecord) -> None:
        """End the domain's process at once; a stopped domain is no error."""

    async def load_successor(self, record: DomainRecord, config: DomainConfig, memory_image: str) -> None:
        """Start a second process and load the memory image, leaving the disks to the first."""

    async def discard_successor(self, record: DomainRecord) -> None:
        """End the second process, if there is one."""

    def has_successor(self, record: DomainRecord) -> bool:
        """Say whether a second process has loaded its memory image and lives, promoted or not."""

    async def promote_successor(
        self, record: DomainRecord, config: DomainConfig, memory_image: str, *, paused: bool
    ) -> Started:
        """Give the disks to the second process, loading one now if there is none."""

    async def take_disk_snapshots(
        self,
        record: DomainRecord,
        name: str,
        disks: Sequence[DiskImage],
        overlaid: Sequence[OverlaidDisk] = (),
    ) -> None:
        """Take all disk snapshots in one transaction; the overlays exist and are empty."""

    async def drop_disk_snapshots(
        self, record: DomainRecord, name: str, disks: Sequence[DiskImage], *, since_ns: int = 0
    ) -> None:
        """Delete internal snapshots by name; one that does not exist, or is older than `since_ns`, stays.

        The images may be in use, also as backing files.
        """

    async def apply_disk_snapshots(self, record: DomainRecord, disks: Sequence[TaggedImage]) -> None:
        """Make internal snapshots, given by id, the current state. The domain is stopped."""

    async def create_overlays(self, overlays: Sequence[Overlay]) -> None:
        """Make empty images of mode 0600; the backing files may be in use. Nothing exists at the paths.

        On failure those that were made are removed; a file that was there before stays.
        """

    async def copy_snapshot(self, source: TaggedImage, path: str) -> None:
        """Write the state of an internal snapshot, which may be in use, to a new qcow2 image."""

    async def copy_down(self, record: DomainRecord, top: DiskImage, base: DiskImage, *, active: bool) -> None:
        """Copy what `top` has into its backing file `base`; see `steps.CopyDown`. Tells `progress`."""

    async def stop_copying_down(self, record: DomainRecord, top: DiskImage, base: DiskImage) -> None:
        """End the copying; none going on is no error."""

    async def switch_down(self, record: DomainRecord, top: DiskImage, base: DiskImage) -> None:
        """Make `base` the disk's image; the domain is paused or stopped.

        If the domain has ended since `copy_down`, `qemu-img` copies the rest. The caller removes `top`.
        """

    async def lay_over(self, record: DomainRecord, overlay: str, base: DiskImage) -> None:
        """Make `base` the backing file that a qcow2 image names; nothing is copied.

        An image that the running domain has open lies over `base` already, by `copy_down`: nothing is done.
        """

    async def prepare_live(
        self, record: DomainRecord, path: str, overlaid: Sequence[OverlaidDisk] = ()
    ) -> None:
        """Make the file for a live memory image, and open overlays, while the domain runs.

        `take_disk_snapshots` and `save_memory` go on with them. Nothing is left of it on failure.
        """

    async def prepare_memory(self, record: DomainRecord, path: str) -> None:
        """Make the file for a memory image, with which `save_memory` goes on; nothing is left on failure.

        Not called where memory comes first.
        """

    async def drop_preparations(
        self, record: DomainRecord, path: str, overlaid: Sequence[OverlaidDisk] = ()
    ) -> None:
        """Let go of what was prepared and is not in use; the caller removes the files."""

    async def save_memory(self, record: DomainRecord, path: str, *, live: bool = False) -> None:
        """Write the memory of the paused domain to a new file; nothing is left of it on failure.

        With `live` the domain runs again when this returns, and soon after it was called.
        """

    def live_problem(self) -> str | None:
        """Say what this machine lacks for saving the memory of a running domain, or None."""

    def live_is_quicker(self, record: DomainRecord) -> bool:
        """Say whether a live snapshot is possible and done sooner than one for which the domain waits."""

    async def inspect(self, record: DomainRecord, disks: Sequence[DiskImage]) -> list[ImageState]:
        """Look at images, whether the domain has them open or not."""

    async def examine(self, record: DomainRecord, images: Sequence[DiskImage]) -> list[ImageFacts]:
        """Check images, each by itself, whether the domain has them open or not."""

    async def attach(self, record: DomainRecord, *, interrupted: bool = True) -> RunState | None:
        """Connect to the domain for the operation that holds its lock, and return its run state.

        An `interrupted` operation may have left something in QEMU, which is ended first.
        """

    async def release(self, record: DomainRecord) -> None:
        """Let go of connections to this domain, so that other programs can use them."""

    async def close(self) -> None:
        """Let go of connections; domains go on."""


def check_tags_free(domain: str, name: str, states: Sequence[ImageState]) -> None:
    """Refuse a name that an image has already as a tag, though no metadata of ours tells of it.

    :raise NameTakenError: naming the image.
    """
    for state in states:
        if any(tag.name == name for tag in state.tags):
            raise NameTakenError(
                f"disk {state.image.vdev} of domain {domain!r} already has a snapshot {name!r}, not ours",
                hint=f"choose another name, or delete it from {state.image.path} with qemu-img",
            )
