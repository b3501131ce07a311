# SPDX-License-Identifier: LGPL-2.1-or-later
"""What every operation does around its own work: lock, recover, look; find domains and forget them."""

from __future__ import annotations

import contextlib
import uuid as uuid_module
from collections.abc import AsyncIterator

import msgspec

from . import plan as planning
from .domain import DomainConfig, DomainInfo, DomainRecord
from .errors import (
    DomainStateError,
    HostError,
    InputError,
    NameTakenError,
    SnapshotDamagedError,
    XlsnapError,
)
from .executor import Executor
from .host import Host, KnownDomain
from .journal import Interrupted, Journal
from .layout import StateRoot
from .learning import learn, record_of
from .needs import read_needs
from .plan import ObservedDisk, ObservedDomain
from .snapshot import DomainSnapshot
from .store import ROOT_LOCK_SECONDS, Store

LOCK_SECONDS = 5.0
"""How long an operation waits for another one on the same domain."""


class Operations:
    """The frame of all operations under one state root."""

    def __init__(
        self,
        root: StateRoot,
        *,
        accelerator: str = "auto",
        lock_timeout: float = LOCK_SECONDS,
        keep_connections: bool = False,
        kind: str = "auto",
        host: Host | None = None,
    ) -> None:
        self.root = root
        self.store = Store(root)
        self._lock_timeout = lock_timeout
        self._accelerator = accelerator
        self._keep_connections = keep_connections
        self._kind = kind
        self._host = host

    @property
    def host(self) -> Host:
        """The host that was given, or one of the kind of `hosts.CHOICES`. Made when it is first needed."""
        if self._host is None:
            from . import hosts

            self._host = hosts.make(
                self._kind,
                self.root,
                accelerator=self._accelerator,
                keep_connections=self._keep_connections,
            )
        return self._host

    def resolve(self, ref: str) -> DomainRecord:
        """Find a domain by name, id or uuid; one that only the host knows is entered into the store."""
        for found in self.host.domains():
            if ref in (found.config.name, str(found.domid)) or ref.lower() == found.uuid:
                self._enter(found)
        return self.store.resolve(ref)

    def _enter(self, found: KnownDomain) -> None:
        """Enter a domain of the host's, and take its id from any that had it before."""
        with self._root_locked():
            if self.store.record(found.uuid) is None:
                self.store.write_record(record_of(found))
            for key in self.store.domain_keys():
                if key.domid == found.domid and key.uuid != found.uuid:
                    gone = self.store.resolve(key.uuid)
                    self.store.write_record(msgspec.structs.replace(gone, domid=None))

    def _root_locked(self) -> contextlib.AbstractContextManager[None]:
        return self.store.locked(
            self.root.lock, what=f"state root {self.root.path}", timeout=ROOT_LOCK_SECONDS
        )

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

    def observe(self, run: Executor, *, others: bool = True) -> ObservedDomain:
        """Return the domain as plans look at it.

        Without `others` nothing is read of what its snapshots need: that costs with their number.
        """
        needs, unreadable = read_needs(run.paths) if others else ({}, ())
        return ObservedDomain(
            uuid=run.record.uuid,
            name=run.record.name,
            run_state=run.run_state,
            config=run.record.config,
            snapshots=self.store.snapshots(run.record.uuid),
            needs=needs,
            unreadable=unreadable,
            overlays=run.record.overlays,
            current=run.record.current,
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
    async def operating(self, uuid: str, *, recover_first: bool = True) -> AsyncIterator[Executor]:
        """Hold the domain's lock, finish or undo what was interrupted, and give an executor.

        For those who bring their own operations; all of ours go through it. Only those who do no more than
        look may leave out the recovery.
        """
        paths = self.root.domain(uuid)
        known = self.store.record(uuid)
        what = f"domain {known.name!r}" if known else f"domain {uuid}"
        with self.store.locked(paths.lock, what=what, timeout=self._lock_timeout):
            record = self.store.record(uuid)
            if record is None:
                raise InputError(f"{what} is gone: another command removed it")
            if recover_first:
                paths.new_record.unlink(missing_ok=True)
            run = Executor(self.host, self.store, record)
            try:
                interrupted = Journal(paths.journal).interrupted()
                run.run_state = await self.host.attach(run.record, interrupted=interrupted is not None)
                if interrupted is not None and recover_first:
                    await recover(run, interrupted)
                    run.run_state = await self.host.attach(run.record)
                self._learn(run)
                yield run
            finally:
                await self.host.release(run.record)

    def _learn(self, run: Executor) -> None:
        """Note what has become of the domain without us, as far as the host knows it by itself."""
        found = next((item for item in self.host.domains() if item.uuid == run.record.uuid), None)
        if found is not None and (learned := learn(run.record, found)) != run.record:
            run.record = learned
            self.store.write_record(learned)

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
        active = next((item for item in self.host.domains() if item.config.name == config.name), None)
        if active is not None and active.uuid != uuid:
            raise NameTakenError(
                f"domain {config.name!r} is active, with uuid {active.uuid}",
                hint="destroy it first, or choose another name",
            )
        known = self.store.record(uuid)
        if known is not None:
            refuse_active(self.host, known)
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
            unused = not (self.store.snapshots(uuid) or self.store.hidden_names(uuid) or record.overlays)
            if unused and not self.host.is_active(record):
                self.store.forget_domain(uuid)


async def recover(run: Executor, interrupted: Interrupted) -> None:
    """Undo or finish what was interrupted.

    :raise HostError: if that is not possible now; the next command tries again.
    """
    try:
        await run.recover(interrupted)
    except XlsnapError as error:
        operation = interrupted.plan.operation
        raise HostError(
            f"cannot finish an interrupted {operation} of domain {run.record.name!r}: {error.message}",
            hint="mend the cause and try again",
        ) from error


def refuse_active(host: Host, record: DomainRecord) -> None:
    """Refuse to begin a domain that is active.

    :raise NameTakenError: if it is.
    """
    if host.is_active(record):
        raise NameTakenError(
            f"domain {record.name!r} is active", hint="destroy it first, or choose another name"
        )
