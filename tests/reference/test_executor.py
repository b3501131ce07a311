# SPDX-License-Identifier: LGPL-2.1-or-later
"""Execution of plans: what is done, what is taken back, and what is left for recovery."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from xlsnap import steps as do
from xlsnap.domain import DomainConfig, DomainRecord
from xlsnap.errors import HostError, QemuDiedError, QmpError, XlsnapError
from xlsnap.executor import Executor
from xlsnap.host import Started
from xlsnap.journal import Interrupted, Journal
from xlsnap.layout import StateRoot
from xlsnap.steps import AnyStep, DiskImage, Plan, PlannedStep, TaggedImage
from xlsnap.store import Store

UUID = "00000000-0000-4000-8000-000000000001"
DISK = DiskImage("hda", "/img/a.qcow2", "qcow2")
TAKE = do.TakeDiskSnapshots(name="s", disks=(DISK,))
DROP = do.DropDiskSnapshots(name="s", disks=(DISK,))
APPLY = do.ApplyDiskSnapshots(disks=(TaggedImage(DISK, "1"),))


class RecordingHost:
    """Notes what it is told, and fails where it should."""

    def __init__(self, fails: Sequence[str] = ()) -> None:
        self.fails = fails
        self.calls: list[str] = []

    def is_active(self, record: DomainRecord) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        async def call(*args: object, **kwargs: object) -> Started:
            self.calls.append(name)
            if name in self.fails:
                raise HostError(f"{name} failed")
            return Started(1, "tcg")

        return call


def run(tmp_path: Path, *fails: str) -> tuple[Executor, RecordingHost]:
    host = RecordingHost(fails)
    record = DomainRecord(uuid=UUID, name="d1", config=DomainConfig(name="d1", uuid=UUID))
    store = Store(StateRoot.at(tmp_path))
    store.write_record(record)
    return Executor(host, store, record), host


def plan(*steps: AnyStep | tuple[AnyStep, AnyStep], irrevocable_after: int | None = None) -> Plan:
    planned = tuple(PlannedStep(*step) if isinstance(step, tuple) else PlannedStep(step) for step in steps)
    return Plan(operation="test", snapshot="s", steps=planned, irrevocable_after=irrevocable_after)


PAUSE = (do.PauseDomain(), do.ResumeDomain())


def test_steps_are_done_in_order_and_the_journal_goes_away(tmp_path: Path) -> None:
    executor, host = run(tmp_path)
    asyncio.run(executor.execute(plan(PAUSE, (TAKE, DROP), do.ResumeDomain())))
    assert host.calls == ["pause", "take_disk_snapshots", "resume"]
    assert Journal(executor.paths.journal).interrupted() is None


def test_a_failing_step_and_those_before_it_are_taken_back_in_reverse(tmp_path: Path) -> None:
    executor, host = run(tmp_path, "take_disk_snapshots")
    with pytest.raises(HostError, match="take_disk_snapshots failed"):
        asyncio.run(executor.execute(plan(PAUSE, (TAKE, DROP), (do.StopDomain(), do.DiscardSuccessor()))))
    assert host.calls == ["pause", "take_disk_snapshots", "drop_disk_snapshots", "resume"]
    assert Journal(executor.paths.journal).interrupted() is None


def test_a_step_that_was_refused_had_no_effect_to_take_back(tmp_path: Path) -> None:
    executor, host = run(tmp_path)

    async def refuse(*args: object) -> None:
        raise QmpError("transaction", "no")

    host.take_disk_snapshots = refuse  # type: ignore[attr-defined]
    with pytest.raises(QmpError):
        asyncio.run(executor.execute(plan(PAUSE, (TAKE, DROP))))
    assert host.calls == ["pause", "resume"]


def test_the_first_error_is_the_one_reported_when_undoing_fails_too(tmp_path: Path) -> None:
    executor, host = run(tmp_path, "stop", "drop_disk_snapshots")
    with pytest.raises(HostError, match="stop failed") as caught:
        asyncio.run(executor.execute(plan(PAUSE, (TAKE, DROP), do.StopDomain())))
    assert "drop_disk_snapshots failed" in str(caught.value)
    assert host.calls[-1] == "resume"  # the rest is taken back all the same
    assert Journal(executor.paths.journal).interrupted() is not None


def test_after_the_point_of_no_return_nothing_is_undone_and_the_journal_stays(tmp_path: Path) -> None:
    executor, host = run(tmp_path, "apply_disk_snapshots")
    revert = plan(
        (do.LoadSuccessor(config=executor.record.config, memory_image="/m"), do.DiscardSuccessor()),
        *(do.StopDomain(), APPLY, do.ResumeDomain()),
        irrevocable_after=2,
    )
    with pytest.raises(HostError, match="the next command on this domain tries to finish it"):
        asyncio.run(executor.execute(revert))
    assert host.calls[-1] == "apply_disk_snapshots"
    interrupted = Journal(executor.paths.journal).interrupted()
    assert interrupted is not None
    host.fails, host.calls = (), []
    asyncio.run(executor.recover(interrupted))
    assert host.calls == ["apply_disk_snapshots", "resume"]
    assert Journal(executor.paths.journal).interrupted() is None


@pytest.mark.parametrize(
    ("begun", "calls"),
    [
        (0, []),
        (1, ["resume"]),
        (2, ["drop_disk_snapshots", "resume"]),
        (3, ["drop_disk_snapshots", "resume"]),
    ],
)
def test_recovery_takes_back_every_step_that_had_begun(tmp_path: Path, begun: int, calls: list[str]) -> None:
    executor, host = run(tmp_path)
    create = plan(PAUSE, (TAKE, DROP), do.ResumeDomain())
    Journal(executor.paths.journal).open(create)
    asyncio.run(executor.recover(Interrupted(create, begun)))
    assert host.calls == calls


WRITE = (do.WriteMetadata(name="s", content='{"name": "s"}'), do.ForgetMetadata(name="s"))


@pytest.mark.parametrize(("listed", "calls"), [(False, ["drop_disk_snapshots"]), (True, ["pause"])])
def test_recovery_finishes_a_snapshot_that_is_listed(tmp_path: Path, listed: bool, calls: list[str]) -> None:
    """The toolstack died while it wrote the metadata: before the rename, or after it."""
    executor, host = run(tmp_path)
    create = plan((TAKE, DROP), WRITE, do.PauseDomain())
    Journal(executor.paths.journal).open(create)
    if listed:
        asyncio.run(executor.perform(WRITE[0]))
    asyncio.run(executor.recover(Interrupted(create, 2)))
    assert host.calls == calls
    assert list(executor.store.snapshots(UUID)) == (["s"] if listed else [])


def beside(first: AnyStep, *others: PlannedStep, irrevocable_after: int | None = None) -> Plan:
    """A plan whose later steps are done while QEMU is busy with the first."""
    steps = (PlannedStep(first), *(msgspec.structs.replace(other, beside=True) for other in others))
    return Plan(operation="test", snapshot="s", steps=steps, irrevocable_after=irrevocable_after)


def followed(before: Plan, step: AnyStep) -> Plan:
    """The same plan with one more step, which waits for the others."""
    return msgspec.structs.replace(before, steps=(*before.steps, PlannedStep(step)))


UPDATE = PlannedStep(
    do.UpdateDomain(config=DomainConfig(name="d1", uuid=UUID), current="s"),
    do.UpdateDomain(config=DomainConfig(name="d1", uuid=UUID), current=None),
)


def slow(executor: Executor, host: RecordingHost, method: str, error: Exception | None = None) -> None:
    """Let QEMU be busy until the record has been written; note that, and fail if told so."""

    async def call(*args: object, **kwargs: object) -> None:
        async with asyncio.timeout(30):
            while executor.record.current is None:
                await asyncio.sleep(0.001)
        host.calls.append("answer")
        if error is not None:
            raise error

    setattr(host, method, call)


def test_a_step_is_done_while_qemu_is_busy_with_the_one_before(tmp_path: Path) -> None:
    executor, host = run(tmp_path)
    slow(executor, host, "resume")
    asyncio.run(executor.execute(followed(beside(do.ResumeDomain(), UPDATE), do.StopDomain())))
    assert host.calls == ["answer", "stop"]
    assert executor.record.current == "s"


def test_what_was_done_beside_a_step_that_fails_is_taken_back(tmp_path: Path) -> None:
    executor, host = run(tmp_path)
    slow(executor, host, "resume", HostError("no answer"))
    with pytest.raises(HostError, match="no answer"):
        asyncio.run(executor.execute(followed(beside(do.ResumeDomain(), UPDATE), do.StopDomain())))
    assert host.calls == ["answer"]
    assert executor.record.current is None
    assert Journal(executor.paths.journal).interrupted() is None


@pytest.mark.parametrize(
    ("error", "kept"), [(QmpError("drop", "I/O error"), False), (QemuDiedError("QEMU ended"), True)]
)
def test_a_deletion_during_which_qemu_dies_may_have_taken_effect(
    tmp_path: Path, error: HostError, kept: bool
) -> None:
    """One that QEMU refused has none."""
    executor, host = run(tmp_path)
    slow(executor, host, "drop_disk_snapshots", error)
    with pytest.raises(type(error)):
        asyncio.run(executor.execute(beside(DROP, UPDATE, irrevocable_after=1)))
    interrupted = Journal(executor.paths.journal).interrupted()
    assert (interrupted is not None) == kept
    assert (executor.record.current == "s") == kept


@pytest.mark.parametrize("begun", [2, 3, 4])
def test_recovery_goes_on_with_the_first_step_that_may_be_unfinished(tmp_path: Path, begun: int) -> None:
    executor, host = run(tmp_path)
    busy = beside(TAKE, UPDATE, UPDATE)
    steps = (PlannedStep(do.PauseDomain()), *busy.steps, PlannedStep(do.ResumeDomain()))
    delete = msgspec.structs.replace(busy, steps=steps, irrevocable_after=2)
    Journal(executor.paths.journal).open(delete)
    asyncio.run(executor.recover(Interrupted(delete, begun)))
    assert host.calls == ["take_disk_snapshots", "resume"]


def test_the_space_of_a_removed_image_is_free_when_it_is_waited_for(tmp_path: Path) -> None:
    executor, _ = run(tmp_path)
    image = tmp_path / "image"

    async def remove() -> None:
        executor.remove_file(str(image))
        assert not image.exists()
        await executor.wait_for_space()

    image.write_bytes(b"content")
    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(remove())
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_bug_in_a_step_is_undone_like_a_failure(tmp_path: Path) -> None:
    executor, host = run(tmp_path)
    broken = do.SyncFile(path="\0")
    with pytest.raises(ValueError, match="null"):
        asyncio.run(executor.execute(plan(PAUSE, broken)))
    assert host.calls == ["pause", "resume"]


def test_nothing_is_done_when_the_journal_cannot_be_written(tmp_path: Path) -> None:
    executor, host = run(tmp_path)
    executor.paths.journal.mkdir()
    with pytest.raises(XlsnapError):
        asyncio.run(executor.execute(plan(PAUSE)))
    assert host.calls == []
