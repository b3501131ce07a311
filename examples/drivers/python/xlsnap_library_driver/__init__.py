# SPDX-License-Identifier: LGPL-2.1-or-later
"""A driver in Python: the reference toolstack as a library, without its command line.

    pip install examples/drivers/python
    xlsnap-conformance smoke --driver xlsnap-library
    xlsnap-conformance run --driver xlsnap-library --profile quick

The suite runs it in a process of its own. One method answers one verb: its argument is the request, its
result the reply, and `Refused` says whose fault it is. What is not here is refused as unsupported, and what
is not claimed in `capabilities` is not asked for: this driver leaves out external snapshots and configuration
files.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from xlsnap import __version__
from xlsnap.domain import DomainConfig, RunState
from xlsnap.errors import UnknownDomainError, XlsnapError
from xlsnap.layout import StateRoot
from xlsnap.request import SnapshotRequest
from xlsnap.toolstack import Toolstack
from xlsnap_conformance import protocol as p
from xlsnap_conformance.drivers.serving import Refused
from xlsnap_grammars import SnapshotDisk, parse_disk

T = TypeVar("T")

STATES: dict[RunState | None, p.DomainState] = {
    None: "stopped",
    RunState.RUNNING: "running",
    RunState.BLOCKED: "running",
    RunState.PAUSED: "paused",
}

KINDS: dict[str, p.ErrorKind] = {"input": "input", "state": "state", "host": "host", "bug": "bug"}


def make(options: list[str]) -> LibraryDriver:
    """Return the driver; `options` are the words after its name."""
    if options:
        raise Refused("input", f"there are no options, so {options[0]!r} is none")
    return LibraryDriver()


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Turn the toolstack's errors into refusals: here both sides know the same kinds."""
    try:
        yield
    except XlsnapError as error:
        raise Refused(KINDS[error.kind], str(error)) from error


class LibraryDriver:
    """Answers with a `Toolstack` in the directory of the last set-up."""

    implementation = "xlsnap, as a library"
    version = __version__
    edition = "v4"
    capabilities = (
        *("memory", "memory-path", "disk-only", "disk-selection"),
        *("list-order", "list-stopped", "revert", "revert-paused", "revert-stopped"),
        *("delete", "delete-stopped", "delete-children", "metadata-files", "pause"),
    )

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._toolstack: Toolstack | None = None

    @property
    def _stack(self) -> Toolstack:
        if self._toolstack is None:
            raise Refused("bug", "setup has not been called")
        return self._toolstack

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        with refusals():
            return self._loop.run_until_complete(work)

    # --- the run --------------------------------------------------------------------------------------------

    def setup(self, request: p.Setup) -> p.Done:
        self._toolstack = Toolstack(StateRoot.at(request.root), accelerator="tcg")
        return p.Done()

    def teardown(self, request: p.Teardown) -> p.Done:
        """Remove what this run made: its directory is ours alone, so that all in it is."""
        for record in self._stack.store.records():
            if self._stack.host.is_active(record):
                self._wait(self._stack.destroy(record.uuid))
            for name in self._stack.store.snapshots(record.uuid):
                with contextlib.suppress(Refused):
                    self._wait(self._stack.snapshot_delete(record.uuid, name))
        self._wait(self._stack.close())
        return p.Done()

    # --- domains --------------------------------------------------------------------------------------------

    def domain_create(self, request: p.DomainCreate) -> p.DomainCreateResult:
        with refusals():
            config = DomainConfig(
                name=request.name,
                uuid=request.uuid,
                memory_mib=request.memory_mib,
                vcpus=request.vcpus,
                bios=request.firmware.rom,
                disks=tuple(
                    parse_disk(
                        f"vdev={disk.vdev},format={disk.format},access={'ro' if disk.readonly else 'rw'},"
                        f"{'cdrom,' if disk.cdrom else ''}target={disk.path}"
                    )
                    for disk in request.disks
                ),
            )
        info = self._wait(self._stack.create(config, paused=request.paused))
        return p.DomainCreateResult(domid=info.domid or 0, uuid=info.uuid)

    def domain_destroy(self, request: p.DomainDestroy) -> p.Done:
        self._wait(self._stack.destroy(request.domain))
        return p.Done()

    def domain_pause(self, request: p.DomainPause) -> p.Done:
        self._wait(self._stack.pause(request.domain))
        return p.Done()

    def domain_unpause(self, request: p.DomainUnpause) -> p.Done:
        self._wait(self._stack.unpause(request.domain))
        return p.Done()

    def domain_power_cycle(self, request: p.DomainPowerCycle) -> p.Done:
        with refusals():
            config = self._stack.resolve(request.domain).config
        self._wait(self._stack.destroy(request.domain))
        self._wait(self._stack.create(config))
        return p.Done()

    def domain_state(self, request: p.DomainStateOf) -> p.DomainStateResult:
        try:
            record = self._stack.resolve(request.domain)
        except UnknownDomainError:
            return p.DomainStateResult(state="absent")
        return p.DomainStateResult(state=STATES[self._wait(self._stack.host.run_state(record))])

    def domain_list(self, request: p.DomainList) -> p.DomainListResult:
        return p.DomainListResult(
            domains=tuple(
                p.ListedDomain(name=info.name, uuid=info.uuid, state=STATES[info.run_state], domid=info.domid)
                for info in self._wait(self._stack.domains())
            )
        )

    def domain_disks(self, request: p.DomainDisks) -> p.DomainDisksResult:
        with refusals():
            disks = self._stack.current_disks(request.domain)
        return p.DomainDisksResult(
            disks=tuple(
                p.DiskInUse(vdev=str(disk.vdev), path=str(disk.target), format=disk.format) for disk in disks
            )
        )

    def domain_console(self, request: p.DomainConsole) -> p.DomainConsoleResult:
        with refusals():
            return p.DomainConsoleResult(unix=str(self._stack.console_path(request.domain)))

    # --- snapshots ------------------------------------------------------------------------------------------

    def snapshot_create(self, request: p.SnapshotCreate) -> p.SnapshotCreateResult:
        if request.type == "external" or any(disk.type == "external" for disk in request.disks or ()):
            raise Refused("unsupported", "no external snapshots with this driver")
        if request.config is not None or request.live or request.dry_run:
            raise Refused("unsupported", "no configuration file, live snapshot or dry run with this driver")
        disks = None
        if request.disks is not None:
            disks = tuple(SnapshotDisk(vdev=disk.vdev, type="internal") for disk in request.disks)
        wanted = SnapshotRequest(
            name=request.name,
            description=request.description or "",
            memory=request.memory != "no",
            memory_path=None if request.memory in ("yes", "no") else request.memory,
            disks=disks,
        )
        return p.SnapshotCreateResult(
            name=self._wait(self._stack.snapshot_create(request.domain, wanted)).name
        )

    def snapshot_list(self, request: p.SnapshotList) -> p.SnapshotListResult:
        with refusals():
            snapshots = self._stack.snapshot_list(request.domain)
        return p.SnapshotListResult(
            snapshots=tuple(
                p.ListedSnapshot(
                    name=snapshot.name,
                    description=snapshot.description,
                    creation_time=snapshot.creation_time,
                    memory=snapshot.memory,
                    disk_only=snapshot.disk_only,
                    state="p" if snapshot.paused else "r",
                    disks=tuple(p.ListedDisk(vdev=disk.device) for disk in snapshot.disks),
                )
                for snapshot in snapshots
            )
        )

    def snapshot_revert(self, request: p.SnapshotRevert) -> p.Done:
        self._wait(self._stack.snapshot_revert(request.domain, request.name, paused=request.paused))
        return p.Done()

    def snapshot_delete(self, request: p.SnapshotDelete) -> p.Done:
        self._wait(
            self._stack.snapshot_delete(
                request.domain,
                request.name,
                children=request.children,
                children_only=request.children_only,
            )
        )
        return p.Done()

    def metadata(self, request: p.Metadata) -> p.MetadataResult:
        with refusals():
            uuid = self._stack.resolve(request.domain).uuid
        return p.MetadataResult(directory=str(self._stack.root.domain(uuid).snapshots))
