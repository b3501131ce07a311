# SPDX-License-Identifier: LGPL-2.1-or-later
"""Toolstacks whose live snapshots are broken."""

from __future__ import annotations

import asyncio
from typing import Any

from xlsnap import plan, steps
from xlsnap.domain import DomainRecord
from xlsnap.qemu import QemuHost
from xlsnap.steps import Plan, PlannedStep

from .catalogue import edit_steps, mutant, wrap


@mutant("XLS-LIVE-001", test="test_live.py::test_live_memory_and_disks_are_of_one_instant[internal-internal]")
def live_memory_of_later() -> None:
    """The memory of a live snapshot is that of 50 ms after its disks."""

    async def save(
        original: Any, self: QemuHost, record: DomainRecord, path: str, *, live: bool = False
    ) -> None:
        if live:
            await self.resume(record)
            await asyncio.sleep(0.05)
            await self.pause(record)
        await original(self, record, path, live=live)

    wrap(QemuHost, "save_memory", save)


@mutant("XLS-LIVE-001", test="test_live.py::test_live_memory_and_disks_are_of_one_instant[internal-internal]")
def live_disks_after_memory() -> None:
    """The disks of a live snapshot are snapshotted when its memory has been written."""

    def memory_first(planned: list[PlannedStep]) -> list[PlannedStep]:
        kinds = [type(step.do) for step in planned]
        if not any(isinstance(step.do, steps.SaveMemory) and step.do.live for step in planned):
            return planned
        taken = [step for step in planned if isinstance(step.do, steps.TakeDiskSnapshots)]
        place = kinds.index(steps.SaveMemory) + 1
        return [step for step in planned[:place] if step not in taken] + taken + planned[place:]

    edit_steps("plan_create", memory_first)


@mutant("XLS-LIVE-002", test="test_live.py::test_guest_runs_while_its_memory_is_written")
def paused_while_memory_is_written() -> None:
    """A live snapshot is taken like any other: the guest is paused until its memory is written."""

    def create(original: Any, *args: Any, live: bool = False, **kwargs: Any) -> Plan:
        return original(*args, **kwargs)  # type: ignore[no-any-return]

    wrap(plan, "plan_create", create)


@mutant(
    "XLS-LIVE-004",
    bug="XenServer sm f4049e6: a new leaf is visible before it is valid",
    test="test_live.py::test_live_snapshot_is_listed_when_it_is_complete",
)
def live_listed_at_once() -> None:
    """A live snapshot is listed before its memory is written."""

    def metadata_first(planned: list[PlannedStep]) -> list[PlannedStep]:
        place = next(
            (n for n, step in enumerate(planned) if isinstance(step.do, steps.SaveMemory) and step.do.live),
            None,
        )
        if place is None:
            return planned
        metadata = [step for step in planned if isinstance(step.do, steps.WriteMetadata)]
        others = [step for step in planned if step not in metadata]
        return [*others[:place], *metadata, *others[place:]]

    edit_steps("plan_create", metadata_first)
