# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real domain with the probe guest in it, and how each step of a trace is done to it.

Nothing is judged here: a refusal is an `ImplementationError`, a guest that does not answer one of the
probe's exceptions.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from . import protocol as p
from . import trace as do
from .failures import HarnessError, ImplementationError
from .guest import Probe, ProbeClosed, ProbeError, ProbeTimeout, disk_number
from .model import Place, World
from .oracles.chains import Chains
from .oracles.metadata import MEMORY_SUFFIX
from .snapshot_conf import text_of
from .subject import Subject, qemu_img, qemu_zero
from .trace import DiskOf, DomainOf, Step

SECTOR_BYTES = 512

PROBE_SECONDS = 5.0
"""How long the guest may take for one answer."""

CLOCK_SECONDS = 2
"""How far the clock of a slow machine may be from ours: it is another one, inside of an emulator."""

POWER_OFF_SECONDS = 5.0
"""How long a guest may take to power itself off."""


class LiveDomain:
    """A domain of the implementation under test.

    :ivar name: unique, and within the fence.
    :ivar scratch: directory of its images, and of what a trace puts beside them.
    :ivar chains: its images, as far as they are known.
    :ivar attached: the vdevs of the disks that it has.
    :ivar keys: variables that the guest has ever set; ``sectors``: those that it has ever written, the
        last one last.
    :ivar times: snapshot to the seconds since the epoch between which it was made.
    """

    def __init__(self, subject: Subject, description: DomainOf) -> None:
        self.subject = subject
        self.description = description
        self.name = subject.fence.new_name()
        self.uuid = str(uuid.uuid4())
        self.scratch = subject.fence.new_directory(self.name)
        self.chains = Chains.of({})
        self.attached = tuple(disk.vdev for disk in description.disks if not disk.spare)
        self.keys: dict[str, None] = {}
        self.sectors: dict[tuple[str, int], None] = {}
        self.times: dict[str, tuple[int, int]] = {}
        vdevs = [disk.vdev for disk in description.disks]
        self.disk_number_of = {vdev: disk_number(vdev, vdevs) for vdev in vdevs}
        self._probe: Probe | None = None
        self._unflushed = False
        self._metadata: Path | None = None

    # --- life -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Make the images, start the domain and wait for the guest.

        :raise HarnessError: if the domain does not come up: then nothing can be said.
        """
        self.chains = Chains.of({disk.vdev: self._new_image(disk) for disk in self.description.disks})
        try:
            self.start()
            self.guest().ping()
            if "metadata-files" in self.subject.capabilities:
                self.metadata_directory()  # later the domain may be unknown
        except (ImplementationError, ProbeError, ProbeTimeout, ProbeClosed) as error:
            raise HarnessError(f"the domain for the scenario did not come up: {error}") from error

    def _new_image(self, disk: DiskOf) -> Place:
        path = self.subject.new_image(disk, self.scratch)
        return Place(os.path.realpath(path), disk.format)

    def start(self, *, paused: bool = False, first_images: bool = False) -> None:
        """Start the domain with its disks, on the images that it has now or on those that it began with."""
        images = self.chains.first if first_images else self.chains.present
        disks = tuple(
            p.Disk(
                vdev=disk.vdev,
                path=images[disk.vdev].path,
                format="raw" if images[disk.vdev].format == "raw" else "qcow2",
                readonly=disk.readonly,
                cdrom=disk.cdrom,
            )
            for disk in self.description.disks
            if disk.vdev in self.attached
        )
        self.subject.call(
            p.DomainCreate(
                name=self.name,
                uuid=self.uuid,
                memory_mib=self.description.memory_mib,
                vcpus=self.description.vcpus,
                firmware=self.subject.firmware,
                disks=disks,
                paused=paused,
                on_poweroff=self.description.on_poweroff,
            )
        )

    def close(self) -> None:
        """Destroy the domain, delete its snapshots, remove its images."""
        self.reconnect()
        with contextlib.suppress(ImplementationError, HarnessError):
            if self.state() not in ("absent", "stopped"):
                self.subject.call(p.DomainDestroy(domain=self.name))
            for snapshot in self.subject.call(p.SnapshotList(domain=self.name)).snapshots:
                self.subject.call(p.SnapshotDelete(domain=self.name, name=snapshot.name))
        shutil.rmtree(self.scratch, ignore_errors=True)

    # --- the guest ------------------------------------------------------------------------------------------

    def guest(self) -> Probe:
        """Return the connection to the running guest."""
        if self._probe is None:
            console = self.subject.call(p.DomainConsole(domain=self.name)).unix
            self._probe = Probe(console, timeout=PROBE_SECONDS * self.subject.driver.time_scale)
        return self._probe

    def reconnect(self) -> None:
        """Let go of the console, so that it is asked for anew: the domain may be in another process now."""
        if self._probe is not None:
            self._probe.close()
            self._probe = None

    @property
    def disk_numbers(self) -> list[int]:
        """The guest's numbers of the writable disks."""
        return [
            self.disk_number_of[disk.vdev]
            for disk in self.description.disks
            if disk.writable and disk.vdev in self.attached
        ]

    def image(self, vdev: str) -> Path:
        """Return the image that was made for a disk."""
        return Path(self.chains.first[vdev].path)

    def flush_before(self, step: Step) -> None:
        """Have the guest flush its disks before a step, so that what it wrote must be there afterwards.

        Not before a create with memory: the guest goes on from there, so that writes need no flush to count.
        """
        goes_on = isinstance(step, do.Create) and step.memory != "no"
        if self._unflushed and not goes_on and not isinstance(step, do.Set | do.Write | do.PutFile):
            self.guest().flush()
            self._unflushed = False

    # --- facts ----------------------------------------------------------------------------------------------

    def state(self) -> str:
        """Return the state that the implementation tells, or why it does not."""
        try:
            return self.subject.call(p.DomainStateOf(domain=self.name)).state
        except ImplementationError as error:
            return f"not known: {error}"

    def metadata_directory(self) -> Path:
        """Return the directory of the metadata files."""
        if self._metadata is None:
            self._metadata = Path(self.subject.call(p.Metadata(domain=self.uuid)).directory)
        return self._metadata

    def disks(self) -> tuple[p.DiskInUse, ...]:
        """Return the images that the domain uses, as the implementation tells.

        :raise ImplementationError: if it does not: it may not know a stopped domain without snapshots.
        """
        return self.subject.call(p.DomainDisks(domain=self.name)).disks

    def place(self, path: str) -> str:
        """Return a path of a trace as it is in this run."""
        return path.replace(do.SCRATCH, str(self.scratch))

    def placed(self, step: do.Create) -> do.Create:
        """Return a step with its paths as they are in this run."""
        disks = step.disks and tuple(
            msgspec.structs.replace(disk, target=disk.target and self.place(disk.target))
            for disk in step.disks
        )
        return msgspec.structs.replace(step, memory=self.place(step.memory), disks=disks)

    # --- steps ----------------------------------------------------------------------------------------------

    def perform(self, step: Step, world: World) -> str | None:
        """Do a step; return the name that a snapshot got.

        :param world: the domain as it must be before the step.
        :raise ImplementationError: if the implementation refuses.
        """
        self.flush_before(step)
        return _PERFORM[type(step)](self, step, world)


def _set(domain: LiveDomain, step: do.Set, world: World) -> None:
    domain.keys[step.key] = None
    domain.guest().set(step.key, step.value)


def _write(domain: LiveDomain, step: do.Write, world: World) -> None:
    domain.sectors.pop((step.vdev, step.lba), None)
    domain.sectors[step.vdev, step.lba] = None
    domain._unflushed = True
    domain.guest().write(domain.disk_number_of[step.vdev], step.lba, step.word)


def _pause(domain: LiveDomain, step: do.Pause, world: World) -> None:
    domain.subject.call(p.DomainPause(domain=domain.name))


def _unpause(domain: LiveDomain, step: do.Unpause, world: World) -> None:
    domain.subject.call(p.DomainUnpause(domain=domain.name))


def _power_cycle(domain: LiveDomain, step: do.PowerCycle, world: World) -> None:
    domain.reconnect()
    domain.subject.call(p.DomainPowerCycle(domain=domain.name))


def _power_off(domain: LiveDomain, step: do.PowerOff, world: World) -> None:
    """Wait for it: hanging up at once would lose what the serial port has not read yet."""
    domain.guest().power_off()
    end = time.monotonic() + POWER_OFF_SECONDS * domain.subject.driver.time_scale
    while domain.state() == "running" and time.monotonic() < end:
        time.sleep(0.005)
    domain.reconnect()


def _destroy(domain: LiveDomain, step: do.Destroy, world: World) -> None:
    domain.reconnect()
    domain.subject.call(p.DomainDestroy(domain=domain.name))


def _start(domain: LiveDomain, step: do.Start, world: World) -> None:
    if step.disks is not None:
        domain.attached = step.disks
    domain.start(paused=step.paused, first_images=step.first_images)


def _create(domain: LiveDomain, step: do.Create, world: World) -> str:
    placed = domain.placed(step)
    if step.as_config:
        request = p.SnapshotCreate(
            domain=domain.name, config=text_of(placed), live=step.live, dry_run=step.dry_run
        )
    else:
        request = p.SnapshotCreate(
            domain=domain.name,
            name=placed.name,
            description=placed.description,
            memory=placed.memory,
            disks=placed.disks,
            type=placed.type,
            live=placed.live,
            dry_run=placed.dry_run,
        )
    domain.reconnect()
    first = int(time.time())
    name = domain.subject.call(request).name
    slack = CLOCK_SECONDS if domain.subject.driver.time_scale > 1 else 0
    domain.times[name] = (first - slack, int(time.time()) + slack)
    return name


def _revert(domain: LiveDomain, step: do.Revert, world: World) -> None:
    domain.reconnect()
    domain.subject.call(p.SnapshotRevert(domain=domain.name, name=step.name, paused=step.paused))


def _delete(domain: LiveDomain, step: do.Delete, world: World) -> None:
    domain.reconnect()
    domain.subject.call(
        p.SnapshotDelete(
            domain=domain.name, name=step.name, children=step.children, children_only=step.children_only
        )
    )


def _put_file(domain: LiveDomain, step: do.PutFile, world: World) -> None:
    Path(domain.place(step.path)).write_text(step.content)


def _put_link(domain: LiveDomain, step: do.PutLink, world: World) -> None:
    Path(domain.place(step.path)).symlink_to("/proc")


def _put_tag(domain: LiveDomain, step: do.PutTag, world: World) -> None:
    qemu_img("snapshot", "-q", "-c", step.name, domain.image(step.vdev))


def _zero(domain: LiveDomain, step: do.Zero, world: World) -> None:
    qemu_zero(domain.chains.present[step.vdev], step.lba * SECTOR_BYTES, step.count * SECTOR_BYTES)


def _lose(domain: LiveDomain, step: do.Lose, world: World) -> None:
    snapshot = world.find(step.name)
    assert snapshot is not None  # else the step would not be possible
    if step.what in snapshot.external:
        Path(domain.chains.places[step.name, step.what].path).unlink()
    elif step.what != "memory":
        qemu_img("snapshot", "-q", "-d", step.name, domain.chains.places[step.name, step.what].path)
    elif step.name in world.memory_names:
        (domain.metadata_directory() / f"{step.name}{MEMORY_SUFFIX}").unlink()
    else:
        Path(domain.place(snapshot.memory)).unlink()


def _nothing(domain: LiveDomain, step: Step, world: World) -> None:
    """Looking is what follows every step."""


_PERFORM: dict[type[Step], Callable[[LiveDomain, Any, World], str | None]] = {
    do.Set: _set,
    do.Write: _write,
    do.Pause: _pause,
    do.Unpause: _unpause,
    do.PowerCycle: _power_cycle,
    do.PowerOff: _power_off,
    do.Destroy: _destroy,
    do.Start: _start,
    do.Create: _create,
    do.Revert: _revert,
    do.Delete: _delete,
    do.PutFile: _put_file,
    do.PutLink: _put_link,
    do.PutTag: _put_tag,
    do.Zero: _zero,
    do.Lose: _lose,
    do.List: _nothing,
    do.Check: _nothing,
}
