# SPDX-License-Identifier: LGPL-2.1-or-later
"""The QEMU processes of domains: start, look, pause, end; and successors, which a revert loads beforehand."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
from pathlib import Path

from ..chain import present_images
from ..domain import DomainConfig, DomainRecord, RunState
from ..errors import HostError, InputError, QemuDiedError, QmpError, SnapshotDamagedError
from ..host import Started
from ..layout import DomainPaths, StateRoot, make_private_directory
from . import accelerator as accelerators
from . import process
from .activation import activate_disks
from .connections import Connections
from .memory import load_memory, open_memory_image
from .monitor import Monitor
from .nodes import chains
from .process import ProcessPaths

STATUS_SECONDS = 2.0
"""A look at the run state may wait this long; `list` must not hang on one sick domain."""

_UNLIMITED_BANDWIDTH = 1 << 40  # bytes per second; QEMU's default would write memory at 128 MiB/s

# QEMU's RunState to ours. The states of a migration count as paused: an interrupted operation left them.
_RUN_STATES = {
    "running": RunState.RUNNING,
    "shutdown": RunState.SHUTDOWN,
    "guest-panicked": RunState.CRASHED,
    "internal-error": RunState.CRASHED,
}

_PROCESS_DIRECTORY = re.compile(r"process-(\d+)")


class QemuProcesses:
    """Runs domains as QEMU processes under a state root: the part of the host that is about processes."""

    def __init__(self, root: StateRoot, *, accelerator: str = "auto", keep_connections: bool = False) -> None:
        if accelerator not in accelerators.CHOICES:
            raise InputError(
                f"unknown accelerator {accelerator!r}", hint=f"one of {', '.join(accelerators.CHOICES)}"
            )
        self._root = root
        self._wanted_accelerator = accelerator
        self._connections = Connections(keep=keep_connections)
        self._without_disks: set[Path] = set()  # processes that gave up their disks by saving their memory
        self._children: list[subprocess.Popen[bytes]] = []

    # --- state ------------------------------------------------------------------------------------------

    def is_active(self, record: DomainRecord) -> bool:
        """Say whether the domain's process lives."""
        self._reap()
        return record.process is not None and process.living_pid(self._paths(record)) is not None

    async def attach(self, record: DomainRecord, *, interrupted: bool = True) -> RunState | None:
        """Connect to the domain's monitor and ask it; the domain's lock must be held.

        A save of memory that a toolstack has left when it was killed is ended. Nothing is asked on a
        connection that has told that the guest runs.
        """
        if not self.is_active(record):
            return None
        try:
            monitor = await self._connections.get(self._paths(record))
            await monitor.settle()
            if interrupted:
                await monitor.abandon_migration()
            elif await monitor.says_running():
                return RunState.RUNNING
            return await self._status(record, monitor)
        except QemuDiedError:
            return None

    async def run_state(self, record: DomainRecord) -> RunState | None:
        """Ask QEMU, without an operation on a monitor of its own, which operations leave free."""
        if not self.is_active(record):
            return None
        paths = self._paths(record)
        monitor = self._connections.existing(paths)
        try:
            if monitor is not None:
                return await self._status(record, monitor)
            looking = await Monitor.connect(paths, paths.status, timeout=STATUS_SECONDS)
            try:
                return await self._status(record, looking)
            finally:
                await looking.close()
        except QemuDiedError:
            return None

    async def _status(self, record: DomainRecord, monitor: Monitor) -> RunState:
        status = await monitor.status(timeout=STATUS_SECONDS)
        if status == "postmigrate":
            self._without_disks.add(self._paths(record).directory)
        return _RUN_STATES.get(status, RunState.PAUSED)

    def cpu_seconds(self, record: DomainRecord) -> float:
        """CPU time of the QEMU process."""
        return process.cpu_seconds(self._paths(record)) if record.process is not None else 0.0

    def console(self, record: DomainRecord) -> Path:
        """Return the console socket of the domain's process."""
        return self._paths(record).console

    # --- life cycle -------------------------------------------------------------------------------------

    async def pause(self, record: DomainRecord) -> None:
        """QMP `stop`; pending disk requests are finished when it returns."""
        await (await self._monitor(record)).execute("stop")

    async def resume(self, record: DomainRecord) -> None:
        """QMP `cont`; after a migration it also takes the disks back."""
        await (await self._monitor(record, settled=False)).resume()
        self._without_disks.discard(self._paths(record).directory)

    async def start(self, record: DomainRecord, config: DomainConfig, *, paused: bool) -> Started:
        """Start a process and wait until its monitor answers.

        :raise HostError: with QEMU's own words if it does not come up; nothing of it is left.
        """
        number, paths, accelerator = await self._spawn(record, config, paused=paused)
        try:
            await self._prepare(paths)
        except BaseException:
            await self._discard(paths)
            raise
        return Started(number, accelerator)

    async def stop(self, record: DomainRecord) -> None:
        """Ask QEMU to quit, which writes its caches out, and kill it if it does not."""
        if record.process is None:
            return
        paths = self._paths(record)
        pid = process.living_pid(paths)
        if pid is not None:
            with contextlib.suppress(HostError):
                monitor = await self._connections.get(paths)
                await monitor.settle()
                await monitor.quit()
                await process.wait_for_end(paths, pid, process.STOP_SECONDS)
        await self._discard(paths)

    # --- successor --------------------------------------------------------------------------------------

    async def load_successor(self, record: DomainRecord, config: DomainConfig, memory_image: str) -> None:
        """Load the memory image into a process that leaves the disks alone until it is promoted.

        :raise SnapshotDamagedError: if QEMU cannot load the image.
        """
        fd, header = open_memory_image(memory_image)
        try:
            _, paths, _ = await self._spawn(record, config, accelerator=header.accelerator)
            try:
                await load_memory(await self._prepare(paths, "late-block-activate"), fd)
                paths.loaded.touch(mode=0o600)
            except (QemuDiedError, QmpError) as error:
                words = process.last_words(paths) or error
                await self._discard(paths)
                raise SnapshotDamagedError(
                    f"QEMU cannot load memory image {memory_image}: {words}"
                ) from error
            except BaseException:
                await self._discard(paths)
                raise
        finally:
            os.close(fd)

    def has_successor(self, record: DomainRecord) -> bool:
        """Say whether there is a process besides the domain's that has loaded its memory."""
        return self._successor(record) is not None

    def _successor(self, record: DomainRecord) -> int | None:
        """Return the number of the living process that has loaded its memory, if there is one."""
        for number in self._process_numbers(record):
            paths = self._process(record, number)
            if number != record.process and paths.loaded.exists() and process.living_pid(paths) is not None:
                return number
        return None

    async def discard_successor(self, record: DomainRecord) -> None:
        """End every process of the domain that is not the domain."""
        for number in self._process_numbers(record):
            if number != record.process:
                await self._discard(self._process(record, number))

    async def promote_successor(
        self, record: DomainRecord, config: DomainConfig, memory_image: str, *, paused: bool
    ) -> Started:
        """Let the waiting process take the disks, by running or, if it stays paused, without."""
        number = self._successor(record)
        if number is None:
            await self.discard_successor(record)
            await self.load_successor(record, config, memory_image)
            number = max(self._process_numbers(record))
        paths = self._process(record, number)
        monitor = await self._connections.get(paths)
        if paused:
            await activate_disks(monitor, paths, present_images(config))
        else:
            await monitor.execute("cont")
        fd, header = open_memory_image(memory_image)
        os.close(fd)
        return Started(number, header.accelerator)

    # --- processes --------------------------------------------------------------------------------------

    def _domain(self, record: DomainRecord) -> DomainPaths:
        return self._root.domain(record.uuid)

    def _process(self, record: DomainRecord, number: int) -> ProcessPaths:
        return ProcessPaths(self._domain(record).directory / f"process-{number}")

    def _paths(self, record: DomainRecord) -> ProcessPaths:
        return self._process(record, record.process or 0)

    def _process_numbers(self, record: DomainRecord) -> list[int]:
        try:
            entries = os.listdir(self._domain(record).directory)
        except FileNotFoundError:
            return []
        return sorted(int(match[1]) for entry in entries if (match := _PROCESS_DIRECTORY.fullmatch(entry)))

    async def _spawn(
        self,
        record: DomainRecord,
        config: DomainConfig,
        *,
        paused: bool = False,
        accelerator: str | None = None,
    ) -> tuple[int, ProcessPaths, str]:
        """Start a process; with an accelerator given, one that waits for a memory image that fits to it."""
        self._reap()
        make_private_directory(self._domain(record).directory)
        incoming = accelerator is not None
        if accelerator is None:
            accelerator = await accelerators.choose(self._wanted_accelerator, self._root.accelerator_cache)
        number = max([record.process or 0, *self._process_numbers(record)]) + 1
        paths = self._process(record, number)
        child = process.spawn(
            config,
            paths,
            uuid=record.uuid,
            accelerator=accelerator,
            paused=paused,
            incoming=incoming,
            chains=chains(record, config),
        )
        self._children.append(child)
        return number, paths, accelerator

    async def _monitor(self, record: DomainRecord, *, settled: bool = True) -> Monitor:
        """Return the connection to the domain's process, which has done with migrations if `settled`."""
        if not self.is_active(record):
            words = process.last_words(self._paths(record))
            raise QemuDiedError(f"the domain's QEMU has ended{': ' + words if words else ''}")
        monitor = await self._connections.get(self._paths(record))
        if settled:
            await monitor.settle()
        return monitor

    async def _monitor_with_disks(self, record: DomainRecord) -> Monitor:
        """Return the connection to the domain's process after making sure that it has its disks.

        QEMU aborts when it is told to change an image that it has given up.
        """
        monitor = await self._monitor(record)
        paths = self._paths(record)
        if paths.directory in self._without_disks:
            await activate_disks(monitor, paths, present_images(record.config))
            self._without_disks.discard(paths.directory)
        return monitor

    async def _prepare(self, paths: ProcessPaths, *capabilities: str) -> Monitor:
        """Connect to a new process and set what holds for all its life."""
        monitor = await self._connections.get(paths)
        wanted = [{"capability": name, "state": True} for name in ("events", *capabilities)]
        await asyncio.gather(
            monitor.execute("migrate-set-capabilities", {"capabilities": wanted}),
            monitor.execute("migrate-set-parameters", {"max-bandwidth": _UNLIMITED_BANDWIDTH}),
        )
        return monitor

    async def _discard(self, paths: ProcessPaths) -> None:
        """End a process by force, if it lives, and remove its files."""
        await self._connections.drop(paths.directory)
        self._without_disks.discard(paths.directory)
        await process.kill(paths)
        self._reap()
        process.remove_directory(paths)

    def _reap(self) -> None:
        """Collect children that have ended, so that none stays a zombie."""
        self._children = [child for child in self._children if child.poll() is None]

    async def release(self, record: DomainRecord) -> None:
        """Close the connections to the domain's processes that are not to be kept."""
        await self._connections.release(self._domain(record).directory)

    async def close(self) -> None:
        """Close all monitor connections."""
        await self._connections.close()
