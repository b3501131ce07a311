# SPDX-License-Identifier: LGPL-2.1-or-later
"""The toolstack: every operation on domains and snapshots, for Python programs and for the command line.

Each operation takes the domain's lock, recovers what an interrupted one left, looks at the present state,
lets `plan` decide and `executor` act.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
from xlsnap_grammars import DiskSpec

from . import plan as planning
from . import savefile, steps
from . import store as files
from .domain import DomainConfig, DomainInfo, RunState
from .errors import (
    DomainStateError,
    HostError,
    InputError,
    MemoryPathError,
    SnapshotDamagedError,
    UnknownDomainError,
)
from .executor import Executor
from .learning import record_of
from .operations import Operations, refuse_active
from .plan import ChosenDisk, ObservedDomain
from .request import SnapshotRequest
from .snapshot import DomainSnapshot

if TYPE_CHECKING:
    from .findings import Finding

Progress = Callable[[str, int, int], None]
"""Is told what is being done, how much of it is done and how much there is, in bytes."""


class Toolstack(Operations):
    """All operations under one state root. Close it, or use it as an async context manager.

    With `keep_connections` it stays connected to domains between operations, which is faster; at most one
    program at a time can do so, others connect for each operation.

    Domains are named by name, id or uuid (`ref`). Methods raise the errors of `xlsnap.errors`; none leaves
    anything half done that it could undo.
    """

    async def __aenter__(self) -> Toolstack:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of connections; domains go on."""
        if self._host is not None:
            await self._host.close()

    # --- domains ----------------------------------------------------------------------------------------

    async def domains(self, ref: str | None = None) -> list[DomainInfo]:
        """Describe the active domains; with `ref` that domain, active or stopped."""
        if ref is not None:
            records = [self.resolve(ref)]
        else:
            records = self.store.records()
            known = {record.uuid for record in records}
            records += [record_of(found) for found in self.host.domains() if found.uuid not in known]
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
            domain = self.observe(run)
            planning.check_can_snapshot(domain)
            first = self.host.memory_first
            await run.execute(planning.plan_save(domain, path, leave=leave, memory_first=first))
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
            header = savefile.read(path)
        except SnapshotDamagedError as error:
            raise InputError(error.message) from error
        config = config or header.config
        if config.uuid is None:
            config = msgspec.structs.replace(config, uuid=header.uuid)
        plan = functools.partial(planning.plan_restore, path=path)
        return await self._begin(config, plan, paused=paused, fresh=False)

    async def _begin(
        self, config: DomainConfig, plan: Callable[..., steps.Plan], *, paused: bool, fresh: bool = True
    ) -> DomainInfo:
        """Make a domain of this configuration known and active; `fresh`: without a memory image."""
        files.check_files_exist(config)
        with self._root_locked():
            record = self._record_for(config)
            if self.store.record(record.uuid) is None:
                self.store.write_record(record)
        try:
            async with self.operating(record.uuid) as run:
                refuse_active(self.host, run.record)
                before = run.record
                adopted, warnings = planning.adopt_images(self.observe(run), record.config, fresh=fresh)
                run.update(config=adopted, name=record.name)
                try:
                    await run.execute(plan(adopted, paused=paused))
                except BaseException:
                    run.update(config=before.config, name=before.name)
                    raise
                info = await self._info(run.record)
                return msgspec.structs.replace(info, warnings=tuple(warnings))
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
        try:
            uuid = self.store.find(ref)
        except UnknownDomainError:
            uuid = self.resolve(ref).uuid  # the host may know it
        return self.store.list_snapshots(uuid)

    async def snapshot_create(
        self, ref: str, request: SnapshotRequest, *, dry_run: bool = False
    ) -> DomainSnapshot:
        """Take a snapshot: memory and disks of one instant, all or nothing (XLS-CREATE).

        With `dry_run` everything is checked and nothing is done; the result is the same.
        """
        async with self._active(ref) as run:
            domain = self.observe(run, others=False)
            planning.check_can_snapshot(domain)
            now_ns = time.time_ns()
            name = planning.choose_name(domain, request, now_ns // 1_000_000_000)
            disks = tuple(with_overlay_paths(domain, planning.choose_disks(domain, request), name))
            memory_path = None
            if request.memory:
                memory_path = request.memory_path or str(run.paths.memory_image(name))
            snapshot = planning.describe(
                domain, request, name=name, memory_path=memory_path, disks=disks, now_ns=now_ns
            )
            problem = None
            if memory_path is not None and (request.memory_path or os.path.lexists(memory_path)):
                problem = files.new_file_problem(memory_path)
            plan = functools.partial(
                planning.plan_create,
                domain,
                snapshot,
                memory_problem=problem,
                overlay_problems=self.overlay_problems(disks),
                disk_problems=await self.host.disk_problems(run.record, [disk.image.vdev for disk in disks]),
                memory_first=self.host.memory_first,
                live_problem=self.host.live_problem() if request.live else None,
            )
            wanted = plan(live=request.live)
            if not dry_run:
                await self._execute_quickly(run, wanted, plan(live=request.live or request.memory))
            return snapshot

    async def _execute_quickly(self, run: Executor, plan: steps.Plan, live: steps.Plan) -> None:
        """Take a snapshot in the way that is the quicker one here; `live` has the same result.

        It needs more of the machine, such as space for all of the memory. Where that is missing the other way
        may succeed.
        """
        if live != plan and self.host.live_is_quicker(run.record):
            try:
                return await run.execute(live)
            except HostError:
                if run.interrupted():
                    raise
        await run.execute(plan)

    def overlay_problems(self, disks: tuple[ChosenDisk, ...]) -> dict[str, str]:
        """Return what is wrong with the paths of new overlays; our own directories are not for them."""
        problems = {}
        for path in filter(None, (disk.overlay for disk in disks)):
            problem = files.new_file_problem(path)
            if problem is None and Path(os.path.realpath(path)).is_relative_to(self.root.path.resolve()):
                problem = f"{self.root.path} is for the toolstack's own files"
            if problem is not None:
                problems[path] = problem
        return problems

    async def snapshot_revert(self, ref: str, name: str, *, paused: bool = False) -> DomainInfo:
        """Return a domain, active or stopped, to a snapshot (XLS-REVERT)."""
        async with self.operating(self.resolve(ref).uuid) as run:
            domain = self.observe(run)
            snapshot = domain.snapshot(name)
            problem = savefile.memory_image_problem(snapshot.memory, domain.uuid) if snapshot.memory else None
            returns = planning.choose_returns(domain, snapshot)
            plan = planning.plan_revert(
                domain,
                snapshot,
                disks=await self._observe_disks(run.record, snapshot),
                returns=tuple(with_paths(domain, returns, name)),
                memory_problem=problem,
                paused=paused,
            )
            await run.execute(plan)
            return await self._info(run.record)

    async def snapshot_delete(
        self,
        ref: str,
        name: str,
        *,
        children: bool = False,
        children_only: bool = False,
        progress: Progress | None = None,
    ) -> list[str]:
        """Delete a snapshot of a domain, active or stopped (XLS-DELETE); return warnings.

        With `children` all that descend from it go too, with `children_only` only those. Images that are not
        needed apart any more are merged; `progress` is told how far that is. Where it fails both images stay,
        which is a warning, and the next deletion tries again.
        """
        async with self.operating(self.resolve(ref).uuid) as run:
            domain = self.observe(run)
            domain.snapshot(name)
            doomed = planning.descendants(domain.needs, name) if children or children_only else []
            if not children_only:
                doomed.append(name)
            for each in doomed:
                await run.execute(planning.plan_delete(domain, domain.snapshot(each)))
                domain = planning.without_snapshot(domain, each, run.record)
            warnings = await self._merge_images(run, domain, progress)
            uuid = run.record.uuid
        self._forget_if_unused(uuid)
        return warnings

    async def _merge_images(
        self, run: Executor, domain: ObservedDomain, progress: Progress | None
    ) -> list[str]:
        """Make one of images that nobody needs apart, as long as there are any."""
        warnings: list[str] = []
        failed = set()
        self.host.progress = progress
        try:
            while domain.overlays and not domain.unreadable:
                merge = next((item for item in domain.images().merges() if item not in failed), None)
                if merge is None:
                    break
                try:
                    await run.execute(planning.plan_merge(domain, merge))
                except (HostError, DomainStateError) as error:
                    failed.add(merge)
                    warnings.append(
                        f"{merge.top.path} was not merged into {merge.base.path}: {error.message}"
                    )
                    if run.interrupted():
                        break
                    domain = self.observe(run)
                else:
                    domain = planning.with_one_image_less(domain, merge, run.record)
        finally:
            self.host.progress = None
        return warnings

    async def snapshot_check(self, ref: str, *, repair: bool = False) -> list[Finding]:
        """Look for what does not belong together in a domain's snapshots; with `repair` mend what can be.

        Returns what was repaired, then what is left.
        """
        from .observe import find_and_mend

        async with self.operating(self.resolve(ref).uuid, recover_first=repair) as run:
            return await find_and_mend(run, self.host, repair=repair)


def _free_path(candidates: Iterator[str], taken: set[str]) -> str:
    """Return the first path at which there is nothing; it is taken then."""
    path = next(path for path in candidates if path not in taken and not os.path.lexists(path))
    taken.add(path)
    return path


def with_overlay_paths(
    domain: ObservedDomain, disks: tuple[ChosenDisk, ...], name: str
) -> Iterator[ChosenDisk]:
    """Choose paths for the overlays that have none."""
    taken = {disk.overlay for disk in disks if disk.overlay}
    for disk in disks:
        if disk.overlay == "":
            candidates = planning.overlay_candidates(domain.images(), disk.image, name)
            yield ChosenDisk(disk.image, _free_path(candidates, taken))
        else:
            yield disk


def with_paths(
    domain: ObservedDomain, returns: tuple[planning.Return, ...], name: str
) -> Iterator[planning.Return]:
    """Choose paths for the images that a revert makes."""
    taken: set[str] = set()
    for item in returns:
        if item.needs_path:
            candidates = planning.overlay_candidates(domain.images(), item.image, name)
            item = msgspec.structs.replace(item, path=_free_path(candidates, taken))
        yield item
