# SPDX-License-Identifier: LGPL-2.1-or-later
"""The driver's end of the protocol: read a request, ask the toolstack, write the reply.

An example to learn from: `_HANDLERS` has one function a verb, and each is a few lines. Errors of the
toolstack become refusals of the same kind; anything else is a bug of ours and says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

import msgspec
from xlsnap import __version__
from xlsnap.cli import ACCELERATOR_VARIABLE
from xlsnap.domain import RunState
from xlsnap.errors import InternalError, UnknownDomainError, XlsnapError
from xlsnap.hosts import HOST_VARIABLE
from xlsnap.layout import ROOT_VARIABLE, StateRoot
from xlsnap.request import SnapshotRequest, combine
from xlsnap.snapshot import DomainSnapshot
from xlsnap.toolstack import Toolstack
from xlsnap_grammars import ConfigError, DiskSpec, SnapshotDisk, parse_disk, parse_snapshot_config

from ... import protocol as p
from . import command, machines
from .parsing import parse

LINE_LIMIT = 16 << 20
"""Longest request in bytes."""

PREFIX = "xlsnap-cts-"
"""Names of the suite's domains begin with this; no other is ever removed."""

_STATES: Mapping[RunState | None, p.DomainState] = {
    None: "stopped",
    RunState.RUNNING: "running",
    RunState.BLOCKED: "running",
    RunState.PAUSED: "paused",
    RunState.SHUTDOWN: "shutdown",
    RunState.CRASHED: "shutdown",
    RunState.DYING: "shutdown",
}


class ReferenceDriver:
    """Answers requests with a `Toolstack` under the directory of the last `setup`."""

    def __init__(
        self,
        *,
        implementation: str = "xlsnap",
        accelerator: str = "tcg",
        without: Collection[str] = (),
        mutant: str | None = None,
        host: str = "qemu",
        guest: str = "pv",
    ) -> None:
        """Make a driver that claims all capabilities but those in `without`, and what this host lacks.

        :param mutant: the mutant that this process is; commands of it are the same.
        :param guest: the kind of the domains on Xen.
        """
        self.host = host
        self.guest = "bare" if host == "qemu" else guest
        self.implementation = implementation
        self._mutant = mutant
        self._joined = False
        lacking = {*without, *machines.lacking(host)}
        self.capabilities = tuple(name for name in p.CAPABILITIES if name not in lacking)
        self._accelerator = accelerator
        self._toolstack: Toolstack | None = None

    @property
    def toolstack(self) -> Toolstack:
        """The toolstack.

        :raise InternalError: before `setup`.
        """
        if self._toolstack is None:
            raise InternalError("setup has not been called")
        return self._toolstack

    async def reply_to(self, line: bytes) -> bytes:
        """Return the reply to a request, both without the newline."""
        number = 0
        try:
            call = msgspec.json.decode(line, type=p.Call)
            number = call.id
            verb = p.VERBS.get(call.verb)
            if verb is None:
                return _refusal(number, "unsupported", f"unknown verb {call.verb!r}")
            if verb.capability is not None and verb.capability not in self.capabilities:
                return _refusal(number, "unsupported", f"{call.verb} needs {verb.capability}")
            request = msgspec.json.decode(call.args, type=verb.arguments)
            result = await _HANDLERS[type(request)](self, request)
            return msgspec.json.encode(p.Reply(id=number, ok=True, result=_raw(result)))
        except XlsnapError as error:
            if error.kind == "bug":
                traceback.print_exc()
            return _refusal(number, error.kind, str(error))
        except ConfigError as error:
            return _refusal(number, "input", "; ".join(str(error).splitlines()))
        except msgspec.MsgspecError as error:
            return _refusal(number, "input", f"bad request: {error}")
        except Exception as error:  # whatever it is, the suite is to hear of it
            traceback.print_exc()
            return _refusal(number, "bug", f"{type(error).__name__}: {error}")

    async def remove_all(self) -> None:
        """Destroy the suite's domains under our directory and remove their snapshots; not those of others."""
        if self._toolstack is None or self._joined:
            return
        for record in self._toolstack.store.records():
            if not record.name.startswith(PREFIX):
                continue
            if self._toolstack.host.is_active(record):
                await self._toolstack.destroy(record.uuid)
            for name in self._toolstack.store.snapshots(record.uuid):
                with contextlib.suppress(XlsnapError):
                    await self._toolstack.snapshot_delete(record.uuid, name)

    async def close(self) -> None:
        """Let go of the toolstack."""
        if self._toolstack is not None:
            await self._toolstack.close()
            self._toolstack = None

    def use_root(self, path: str, *, join: bool = False) -> None:
        """Keep everything under the directory `path` from now on; `join`: another driver does so too."""
        self._joined = join
        self._toolstack = Toolstack(
            StateRoot.at(path),
            kind=self.host,
            accelerator=self._accelerator,
            keep_connections=not join,
        )

    def command(self) -> p.CommandResult:
        """Return how ``xlsnap`` is started so that it finds our domains, as broken as we are."""
        argv = [sys.executable, "-m", f"{__package__}.command"]
        mutant = {command.MUTANT_VARIABLE: self._mutant} if self._mutant else {}
        chosen = {
            ROOT_VARIABLE: str(self.toolstack.root.path),
            HOST_VARIABLE: self.host,
            ACCELERATOR_VARIABLE: self._accelerator,
        }
        return p.CommandResult(argv=tuple(argv), environment={**chosen, **mutant})


def _raw(result: p.Result) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(result))


def _refusal(number: int, kind: str, message: str) -> bytes:
    error = msgspec.convert({"kind": kind, "message": message}, p.Refusal)
    return msgspec.json.encode(p.Reply(id=number, ok=False, error=error))


# --- one function a verb ----------------------------------------------------------------------------------


async def _hello(driver: ReferenceDriver, request: p.Hello) -> p.HelloResult:
    return p.HelloResult(
        protocol=p.PROTOCOL,
        implementation=driver.implementation,
        version=__version__,
        edition="v4",
        capabilities=driver.capabilities,
        time_scale=machines.TIME_SCALES[driver.host],
    )


async def _setup(driver: ReferenceDriver, request: p.Setup) -> p.Done:
    await driver.close()
    driver.use_root(request.root, join=request.join)
    return p.Done()


async def _teardown(driver: ReferenceDriver, request: p.Teardown) -> p.Done:
    await driver.remove_all()
    await driver.close()
    return p.Done()


def _disk_spec(disk: p.Disk) -> DiskSpec:
    access = "ro" if disk.readonly else "rw"
    cdrom = "cdrom," if disk.cdrom else ""
    return parse_disk(f"vdev={disk.vdev},format={disk.format},access={access},{cdrom}target={disk.path}")


async def _domain_create(driver: ReferenceDriver, request: p.DomainCreate) -> p.DomainCreateResult:
    disks = tuple(_disk_spec(disk) for disk in request.disks)
    config = machines.config_of(request, disks, driver.guest)
    info = await driver.toolstack.create(config, paused=request.paused)
    return p.DomainCreateResult(domid=info.domid or 0, uuid=info.uuid)


async def _domain_destroy(driver: ReferenceDriver, request: p.DomainDestroy) -> p.Done:
    await driver.toolstack.destroy(request.domain)
    return p.Done()


async def _domain_pause(driver: ReferenceDriver, request: p.DomainPause) -> p.Done:
    await driver.toolstack.pause(request.domain)
    return p.Done()


async def _domain_unpause(driver: ReferenceDriver, request: p.DomainUnpause) -> p.Done:
    await driver.toolstack.unpause(request.domain)
    return p.Done()


async def _domain_power_cycle(driver: ReferenceDriver, request: p.DomainPowerCycle) -> p.Done:
    config = driver.toolstack.resolve(request.domain).config
    await driver.toolstack.destroy(request.domain)
    await driver.toolstack.create(config)
    return p.Done()


async def _domain_state(driver: ReferenceDriver, request: p.DomainStateOf) -> p.DomainStateResult:
    try:
        record = driver.toolstack.resolve(request.domain)
    except UnknownDomainError:
        return p.DomainStateResult(state="absent")
    return p.DomainStateResult(state=_STATES[await driver.toolstack.host.run_state(record)])


async def _domain_list(driver: ReferenceDriver, request: p.DomainList) -> p.DomainListResult:
    return p.DomainListResult(
        domains=tuple(
            p.ListedDomain(name=info.name, uuid=info.uuid, state=_STATES[info.run_state], domid=info.domid)
            for info in await driver.toolstack.domains()
        )
    )


async def _domain_disks(driver: ReferenceDriver, request: p.DomainDisks) -> p.DomainDisksResult:
    return p.DomainDisksResult(
        disks=tuple(
            p.DiskInUse(vdev=str(disk.vdev), path=str(disk.target), format=disk.format)
            for disk in driver.toolstack.current_disks(request.domain)
        )
    )


async def _domain_console(driver: ReferenceDriver, request: p.DomainConsole) -> p.DomainConsoleResult:
    return p.DomainConsoleResult(unix=str(driver.toolstack.console_path(request.domain)))


def _snapshot_request(request: p.SnapshotCreate) -> SnapshotRequest:
    if request.config is not None:
        config = parse_snapshot_config(request.config)
        combined = combine(config, name=request.name, disk_only=request.disk_only)
        return msgspec.structs.replace(combined, live=request.live)
    chosen = request.disks
    return SnapshotRequest(
        name=request.name,
        description=request.description or "",
        memory=request.memory != "no",
        memory_path=request.memory if request.memory not in ("yes", "no") else None,
        disks=None
        if chosen is None
        else tuple(
            SnapshotDisk(vdev=disk.vdev, type=disk.type, target=disk.target, format=disk.format)
            for disk in chosen
        ),
        type=request.type,
        live=request.live,
    )


async def _snapshot_create(driver: ReferenceDriver, request: p.SnapshotCreate) -> p.SnapshotCreateResult:
    snapshot = await driver.toolstack.snapshot_create(
        request.domain, _snapshot_request(request), dry_run=request.dry_run
    )
    return p.SnapshotCreateResult(name=snapshot.name)


def _listed(snapshot: DomainSnapshot) -> p.ListedSnapshot:
    """Convert, with the types of the protocol checked."""
    disks = [{"vdev": disk.device, "type": disk.type.value} for disk in snapshot.disks]
    row = {
        "name": snapshot.name,
        "description": snapshot.description,
        "creation_time": snapshot.creation_time,
        "memory": snapshot.memory,
        "disk_only": snapshot.disk_only,
        "state": snapshot.state_letters.replace("-", ""),
        "disks": disks,
        "parent": snapshot.parent or "",
    }
    return msgspec.convert(row, p.ListedSnapshot)


async def _snapshot_list(driver: ReferenceDriver, request: p.SnapshotList) -> p.SnapshotListResult:
    snapshots = driver.toolstack.snapshot_list(request.domain)
    current = (driver.toolstack.resolve(request.domain).current or "") if snapshots else None
    return p.SnapshotListResult(snapshots=tuple(map(_listed, snapshots)), current=current)


async def _snapshot_revert(driver: ReferenceDriver, request: p.SnapshotRevert) -> p.Done:
    await driver.toolstack.snapshot_revert(request.domain, request.name, paused=request.paused)
    return p.Done()


async def _snapshot_delete(driver: ReferenceDriver, request: p.SnapshotDelete) -> p.Done:
    warnings = await driver.toolstack.snapshot_delete(
        request.domain, request.name, children=request.children, children_only=request.children_only
    )
    for warning in warnings:
        print(warning, file=sys.stderr)
    return p.Done()


async def _metadata(driver: ReferenceDriver, request: p.Metadata) -> p.MetadataResult:
    uuid = driver.toolstack.resolve(request.domain).uuid
    return p.MetadataResult(directory=str(driver.toolstack.root.domain(uuid).snapshots))


async def _command(driver: ReferenceDriver, request: p.Command) -> p.CommandResult:
    return driver.command()


async def _parse(driver: ReferenceDriver, request: p.Parse) -> p.ParseResult:
    return parse(request)


_HANDLERS: dict[type, Callable[[ReferenceDriver, Any], Awaitable[p.Result]]] = {
    p.Hello: _hello,
    p.Setup: _setup,
    p.Teardown: _teardown,
    p.DomainCreate: _domain_create,
    p.DomainDestroy: _domain_destroy,
    p.DomainPause: _domain_pause,
    p.DomainUnpause: _domain_unpause,
    p.DomainPowerCycle: _domain_power_cycle,
    p.DomainStateOf: _domain_state,
    p.DomainList: _domain_list,
    p.DomainDisks: _domain_disks,
    p.DomainConsole: _domain_console,
    p.SnapshotCreate: _snapshot_create,
    p.SnapshotList: _snapshot_list,
    p.SnapshotRevert: _snapshot_revert,
    p.SnapshotDelete: _snapshot_delete,
    p.Metadata: _metadata,
    p.Command: _command,
    p.Parse: _parse,
}


# --- the process ------------------------------------------------------------------------------------------


async def serve(driver: ReferenceDriver) -> None:
    """Answer the requests of standard input until it ends or SIGTERM comes; then remove what was made."""
    loop = asyncio.get_running_loop()
    requests = asyncio.StreamReader(limit=LINE_LIMIT)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin.buffer)
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    waiting = asyncio.create_task(ended.wait())
    out = sys.stdout.fileno()
    try:
        while not ended.is_set():
            reading = asyncio.create_task(requests.readline())
            await asyncio.wait({reading, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                reading.cancel()
                break
            line = reading.result()
            if not line:
                break
            _write_all(out, await driver.reply_to(line) + b"\n")
    except BrokenPipeError:
        pass
    finally:
        waiting.cancel()
        await driver.remove_all()
        await driver.close()


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
