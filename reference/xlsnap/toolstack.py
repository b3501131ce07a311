# SPDX-License-Identifier: LGPL-2.1-or-later
"""The toolstack: every operation on domains and snapshots, for Python programs and for the command line.

Each operation takes the domain's lock, recovers what an interrupted one left, looks at the present state,
lets `plan` decide and `executor` act.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
import uuid as uuid_module
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Literal

import msgspec
from xlsnap_grammars import DiskSpec

from . import plan as planning
from . import savefile, steps
from . import store as files
from .domain import DomainConfig, DomainInfo, DomainRecord, RunState
from .errors import (
    DomainStateError,
    HostError,
    InputError,
    MemoryPathError,
    NameTakenError,
    SnapshotDamagedError,
    XlsnapError,
)
from .executor import Executor
from .host import Host
from .journal import Interrupted, Journal
from .layout import StateRoot
from .plan import ObservedDisk, ObservedDomain
from .request import SnapshotRequest
from .snapshot import DomainSnapshot
from .store import ROOT_LOCK_SECONDS, Store

LOCK_SECONDS = 5.0
"""How long an operation waits for another one on the same domain."""


class Toolstack:
    """All operations under one state root. Close it, or use it as an async context manager.

    With `keep_connections` it stays connected to domains between operations, which is faster; at most one
    program at a time can do so, others connect for each operation.

    Domains are named by name, id or uuid (`ref`). Methods raise the errors of `xlsnap.errors`; none leaves
    anything half done that it could undo.
    """

    def __init__(
        self,
        root: StateRoot,
        *,
        accelerator: str = "auto",
        lock_timeout: float = LOCK_SECONDS,
        keep_connections: bool = False,
        host: Host | None = None,
    ) -> None:
        self.root = root
        self.store = Store(root)
        self._lock_timeout = lock_timeout
        self._accelerator = accelerator
        self._keep_connections = keep_connections
        self._host = host

    @property
    def host(self) -> Host:
        """The host; the QEMU host unless another was given. Made when it is first needed."""
        if self._host is None:
            from .qemu import QemuHost

            self._host = QemuHost(
                self.root, accelerator=self._accelerator, keep_connections=self._keep_connections
            )
        return self._host

    async def __aenter__(self) -> Toolstack:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of connections; domains go on."""
        if self._host is not None:
            await self._host.close()

    # --- domains ----------------------------------------------------------------------------------------

    def resolve(self, ref: str) -> DomainRecord:
        """Find a domain by name, id or uuid."""
        return self.store.resolve(ref)

    async def domains(self, ref: str | None = None) -> list[DomainInfo]:
        """Describe the active domains; with `ref` that domain, active or stopped."""
        records = [self.resolve(ref)] if ref is not None else self.store.records()
        found = [await self._info(record) for record in records]
        return [info for info in found if ref is not None or info.run_state is not None]

    async def create(self, config: DomainConfig, *, paused: bool = False) -> DomainInfo:
        """Start a domain.

        A configuration without uuid continues the stopped domain of the same name, if there is one.

        :raise NameTakenError: if a domain of this name or uuid is active.
        """
        return await self._begin(config, planning.plan_start, paused=paused)

    async def destroy(self, ref: str) -> None:
        """End a domain at once. It stays known by name and uuid as long as it has snapshots."""
        async with self._active(ref) as run:
            await run.perform(steps.StopDomain())
            run.update(domid=None)
            uuid = run.record.uuid
        self._forget_if_unused(uuid)

    async def pause(self, ref: str) -> None:
        """Stop the virtual CPUs of a domain; a paused one stays paused."""
        async with self._active(ref) as run:
            await run.perform(steps.PauseDomain())

    async def unpause(self, ref: str) -> None:
        """Let the virtual CPUs of a domain run."""
        async with self._active(ref) as run:
            if run.run_state is RunState.SHUTDOWN:
                raise DomainStateError(f"domain {run.record.name!r} has shut down", hint="destroy it")
            await run.perform(steps.ResumeDomain())

    async def save(
        self, ref: str, path: str, *, leave: Literal["destroy", "running", "paused"] = "destroy"
    ) -> None:
        """Write a domain's memory and configuration to a new file; its disks stay as they are.

        :raise MemoryPathError: if the file exists or cannot be made.
        """
        path = os.path.abspath(path)
        if problem := files.new_file_problem(path):
            raise MemoryPathError(f"save file {path}: {problem}")
        async with self._active(ref) as run:
            domain = self._observe(run)
            planning.check_can_snapshot(domain)
            await run.execute(planning.plan_save(domain, path, leave=leave))
            uuid = run.record.uuid
            if leave == "destroy":
                run.update(domid=None)
        if leave == "destroy":
            self._forget_if_unused(uuid)

    async def restore(
        self, path: str, *, config: DomainConfig | None = None, paused: bool = False
    ) -> DomainInfo:
        """Start a domain from a save file, with its own configuration or another.

        :raise NameTakenError: if the domain is active.
        """
        path = os.path.abspath(path)
        try:
            with open(path, "rb") as file:
                header = savefile.read_header(file.fileno(), where=path)
        except OSError as error:
            raise InputError(f"save file {path}: {error.strerror}") from error
        except SnapshotDamagedError as error:
            raise InputError(error.message) from error
        config = config or header.config
        if config.uuid is None:
            config = msgspec.structs.replace(config, uuid=header.uuid)
        return await self._begin(config, functools.partial(planning.plan_restore, path=path), paused=paused)

    async def _begin(
        self, config: DomainConfig, plan: Callable[..., steps.Plan], *, paused: bool
    ) -> DomainInfo:
        """Make a domain of this configuration known and active."""
        files.check_files_exist(config)
        with self.store.locked(
            self.root.lock, what=f"state root {self.root.path}", timeout=ROOT_LOCK_SECONDS
        ):
            record = self._record_for(config)
            if self.store.record(record.uuid) is None:
                self.store.write_record(record)
        try:
            async with self.operating(record.uuid) as run:
                _refuse_active(self.host, run.record)
                before = run.record
                run.update(config=record.config, name=record.name)
                try:
                    await run.execute(plan(record.config, paused=paused))
                except BaseException:
                    run.update(config=before.config, name=before.name)
                    raise
                return await self._info(run.record)
        except BaseException:
            self._forget_if_unused(record.uuid)
            raise

    def console_path(self, ref: str) -> Path:
        """Return the Unix socket of a domain's first serial port.

        :raise DomainStateError: if the domain is stopped.
        """
        record = self.resolve(ref)
        self._check_active(record)
        return self.host.console(record)

    def current_disks(self, ref: str) -> tuple[DiskSpec, ...]:
        """Return the disks of a domain with the images that it uses now."""
        return self.resolve(ref).config.disks

    # --- snapshots --------------------------------------------------------------------------------------

    def snapshot_list(self, ref: str) -> list[DomainSnapshot]:
        """Return the complete snapshots of a domain, active or stopped, by creation time (XLS-LIST)."""
        return self.store.list_snapshots(self.store.find(ref))

    async def snapshot_create(
        self, ref: str, request: SnapshotRequest, *, dry_run: bool = False
    ) -> DomainSnapshot:
        """Take a snapshot: memory and disks of one instant, all or nothing (XLS-CREATE).

        With `dry_run` everything is checked and nothing is done; the result is the same.
        """
        async with self._active(ref) as run:
            domain = self._observe(run)
            planning.check_can_snapshot(domain)
            now_ns = time.time_ns()
            name = planning.choose_name(domain, request, now_ns // 1_000_000_000)
            disks = planning.choose_disks(domain, request)
            memory_path = None
            if request.memory:
                memory_path = request.memory_path or str(run.paths.memory_image(name))
            snapshot = planning.describe(
                domain,
                request,
                name=name,
                memory_path=memory_path,
                disks=disks,
                now_ns=now_ns,
            )
            problem = None
            if memory_path is not None and (request.memory_path or os.path.lexists(memory_path)):
                problem = files.new_file_problem(memory_path)
            plan = planning.plan_create(domain, snapshot, memory_problem=problem)
            if not dry_run:
                await run.execute(plan)
            return snapshot

    async def snapshot_revert(self, ref: str, name: str, *, paused: bool = False) -> DomainInfo:
        """Return a domain, active or stopped, to a snapshot (XLS-REVERT)."""
        async with self.operating(self.resolve(ref).uuid) as run:
            domain = self._observe(run)
            snapshot = domain.snapshot(name)
            plan = planning.plan_revert(
                domain,
                snapshot,
                disks=await self._observe_disks(run.record, snapshot),
                memory_problem=savefile.memory_image_problem(snapshot.memory, domain.uuid)
                if snapshot.memory
                else None,
                paused=paused,
            )
            await run.execute(plan)
            return await self._info(run.record)

    async def snapshot_delete(self, ref: str, name: str) -> None:
        """Delete a snapshot of a domain, active or stopped (XLS-DELETE)."""
        async with self.operating(self.resolve(ref).uuid) as run:
            domain = self._observe(run)
            await run.execute(planning.plan_delete(domain.snapshot(name)))
            uuid = run.record.uuid
        self._forget_if_unused(uuid)

    # --- observation ------------------------------------------------------------------------------------

    async def _info(self, record: DomainRecord) -> DomainInfo:
        run_state = await self.host.run_state(record)
        return DomainInfo(
            name=record.name,
            uuid=record.uuid,
            domid=record.domid if run_state is not None else None,
            memory_mib=record.config.memory_mib,
            vcpus=record.config.vcpus,
            run_state=run_state,
            cpu_seconds=self.host.cpu_seconds(record) if run_state is not None else 0.0,
        )

    def _observe(self, run: Executor) -> ObservedDomain:
        return ObservedDomain(
            uuid=run.record.uuid,
            name=run.record.name,
            run_state=run.run_state,
            config=run.record.config,
            snapshots=self.store.snapshots(run.record.uuid),
        )

    async def _observe_disks(
        self, record: DomainRecord, snapshot: DomainSnapshot
    ) -> tuple[ObservedDisk, ...]:
        states = await self.host.inspect(record, planning.snapshot_disks(snapshot))
        return tuple(
            planning.observe_disk(disk, state) for disk, state in zip(snapshot.disks, states, strict=True)
        )

    # --- locks and records ------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def operating(self, uuid: str) -> AsyncIterator[Executor]:
        """Hold the domain's lock, finish or undo what was interrupted, and give an executor.

        For those who bring their own operations; all of ours go through it.
        """
        paths = self.root.domain(uuid)
        known = self.store.record(uuid)
        what = f"domain {known.name!r}" if known else f"domain {uuid}"
        with self.store.locked(paths.lock, what=what, timeout=self._lock_timeout):
            record = self.store.record(uuid)
            if record is None:
                raise InputError(f"{what} is gone: another command removed it")
            run = Executor(self.host, self.store, record)
            try:
                run.run_state = await self.host.attach(run.record)
                interrupted = Journal(paths.journal).interrupted()
                if interrupted is not None:
                    await _recover(run, interrupted)
                    run.run_state = await self.host.attach(run.record)
                yield run
            finally:
                await self.host.release(run.record)

    @contextlib.asynccontextmanager
    async def _active(self, ref: str) -> AsyncIterator[Executor]:
        async with self.operating(self.resolve(ref).uuid) as run:
            self._check_active(run.record)
            yield run

    def _check_active(self, record: DomainRecord) -> None:
        if not self.host.is_active(record):
            raise DomainStateError(
                f"domain {record.name!r} is not running", hint="start it with xlsnap create"
            )

    def _record_for(self, config: DomainConfig) -> DomainRecord:
        """Return the record that a domain of this configuration gets; the root's lock is held."""
        by_name = next((record for record in self.store.records() if record.name == config.name), None)
        uuid = config.uuid or (by_name.uuid if by_name else str(uuid_module.uuid4()))
        if by_name is not None and by_name.uuid != uuid:
            raise NameTakenError(
                f"there is a domain {config.name!r} with uuid {by_name.uuid}",
                hint="choose another name, or delete the snapshots of that one",
            )
        known = self.store.record(uuid)
        if known is not None:
            _refuse_active(self.host, known)
        config = msgspec.structs.replace(config, uuid=uuid, warnings=())
        if known is None:
            return DomainRecord(uuid=uuid, name=config.name, config=config)
        return msgspec.structs.replace(known, name=config.name, config=config)

    def _forget_if_unused(self, uuid: str) -> None:
        """Forget a stopped domain that has no snapshots, unless somebody is busy with it."""
        record = self.store.record(uuid)
        if record is None or self.host.is_active(record):
            return
        with (
            contextlib.suppress(DomainStateError, SnapshotDamagedError, HostError),
            self.store.locked(self.root.domain(uuid).lock, what="domain", timeout=0),
        ):
            unused = not self.store.snapshots(uuid) and not self.store.hidden_names(uuid)
            if unused and not self.host.is_active(record):
                self.store.forget_domain(uuid)


async def _recover(run: Executor, interrupted: Interrupted) -> None:
    try:
        await run.recover(interrupted)
    except XlsnapError as error:
        operation = interrupted.plan.operation
        raise HostError(
            f"cannot finish an interrupted {operation} of domain {run.record.name!r}: {error.message}",
            hint="mend the cause and try again",
        ) from error


def _refuse_active(host: Host, record: DomainRecord) -> None:
    if host.is_active(record):
        raise NameTakenError(
            f"domain {record.name!r} is active", hint="destroy it first, or choose another name"
        )
