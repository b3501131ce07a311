# SPDX-License-Identifier: LGPL-2.1-or-later
"""Toolstacks that do not cope with being cut short, with a host that fails late, or with each other."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from xlsnap import cli, performing, steps
from xlsnap.errors import BusyError, HostError, QemuDiedError
from xlsnap.executor import Executor
from xlsnap.journal import Journal
from xlsnap.qemu import QemuHost
from xlsnap.snapshot import DomainSnapshot
from xlsnap.steps import Plan, PlannedStep
from xlsnap.store import Store
from xlsnap.toolstack import Toolstack

from .catalogue import edit_steps, elsewhere, mutant, wrap

_CRASH = "tests/crash/test_mutants.py::test_a_broken_toolstack_is_caught"

elsewhere(
    "journal-forgets-steps",
    "XLS-FAIL-006",
    judge=f"{_CRASH}[journal_forgets_steps]",
    description="What has begun is not written down before it is done.",
)
elsewhere(
    "recovery-does-nothing",
    "XLS-FAIL-006",
    judge=f"{_CRASH}[recovery_does_nothing]",
    description="What an interrupted operation has left stays as it is.",
    bug="XenServer sm 3ecfefa: after a signal cache and disk disagree",
)
elsewhere(
    "recovery-stops-early",
    "XLS-FAIL-006",
    judge=f"{_CRASH}[recovery_stops_early]",
    description="Of an interrupted operation only the step that was interrupted is taken back.",
    bug="XenServer sm 3ecfefa: after a signal the wrong thing is undone",
)
elsewhere(
    "metadata-before-memory",
    "XLS-FAIL-004",
    "XLS-LIST-003",
    judge=f"{_CRASH}[metadata_comes_before_memory]",
    description="A snapshot is listed before its memory is saved.",
    bug="XenServer sm f4049e6: a new leaf is visible before it is valid",
)
elsewhere(
    "metadata-hidden-last",
    "XLS-FAIL-006",
    "XLS-LIST-003",
    judge=f"{_CRASH}[metadata_is_hidden_last]",
    description="A snapshot is taken apart while it is listed.",
)
elsewhere(
    "revert-taken-back",
    "XLS-FAIL-006",
    judge=f"{_CRASH}[revert_can_be_taken_back]",
    description="A revert that was interrupted after the end of the running domain is undone.",
)
elsewhere(
    "files-written-in-place",
    "XLS-FAIL-006",
    judge=f"{_CRASH}[files_are_written_in_place]",
    description="Files are overwritten, not replaced.",
)
elsewhere(
    "no-lock",
    "XLS-FAIL-007",
    judge="tests/crash/test_two_at_once.py::test_operations_without_locks_are_caught",
    description="Two operations on one domain do not wait for each other.",
)
elsewhere(
    "failed-merge-loses-the-upper",
    "XLS-DELETE-015",
    judge="tests/crash/test_shortage.py::test_a_failed_merge_that_loses_an_image_is_caught",
    description="The upper of two images is removed also when its merge has failed.",
    bug="vdsm #352: a merge fails for lack of space",
)


@mutant("XLS-LIST-010", test="test_two_at_once.py::test_a_list_does_not_wait")
def list_waits() -> None:
    """A list waits until the operation on the domain has ended."""

    def listed(original: Any, self: Toolstack, ref: str) -> Any:
        uuid = self.store.find(ref)
        with self.store.locked(self.root.domain(uuid).lock, what="domain", timeout=60):
            return original(self, ref)

    wrap(Toolstack, "snapshot_list", listed)


@mutant(
    "XLS-DELETE-015",
    bug="vdsm #352: a merge fails for lack of space",
    test="test_external.py::test_a_merge_that_fails_loses_nothing",
)
def failed_merge_loses_an_image() -> None:
    """The upper of two images is removed also when its merge has failed."""

    async def undo(original: Any, self: Executor, plan: Plan, *args: Any) -> Any:
        complete = await original(self, plan, *args)
        if plan.operation == "merge":
            for step in plan.steps:
                if isinstance(step.do, steps.RemoveImages):
                    await self.perform(step.do)
        return complete

    wrap(Executor, "_undo", undo)


# --- cut short ----------------------------------------------------------------------------------------------


def _forget_interrupted(operation: str) -> None:
    """Let recovery forget interrupted operations of a kind, and leave everything as it is."""

    async def recover(original: Any, self: Executor, interrupted: Any) -> None:
        if interrupted.plan.operation != operation:
            await original(self, interrupted)
            return
        Journal(self.paths.journal).clear()

    wrap(Executor, "recover", recover)


def _linger(step: type[steps.Step], seconds: float = 0.5) -> None:
    """Take a while after each step of a kind, as on a busy disk."""
    perform: Any = performing.PERFORM[step]

    async def slowly(run: Executor, do: Any) -> None:
        await perform(run, do)
        await asyncio.sleep(seconds)

    performing.PERFORM[step] = slowly


@mutant(
    "XLS-FAIL-006",
    bug="XenServer sm 3ecfefa: after a signal cache and disk disagree",
    test="test_interrupted.py::test_killed_while_memory_is_written",
)
def interrupted_create_stays() -> None:
    """What a create has done when its toolstack is killed stays as it is."""
    _forget_interrupted("create")


@mutant("XLS-FAIL-011", test="test_interrupted.py::test_killed_at_any_time[revert]")
def interrupted_revert_stays() -> None:
    """A domain that an interrupted revert has stopped stays stopped."""
    _forget_interrupted("revert")
    _linger(steps.StopDomain)


@mutant("XLS-DELETE-011", test="test_interrupted.py::test_killed_at_any_time[delete]")
def half_deleted_is_listed() -> None:
    """A snapshot is listed until all its parts are gone, also after an interrupted delete."""

    def hide_last(planned: list[PlannedStep]) -> list[PlannedStep]:
        hidden = [step for step in planned if isinstance(step.do, steps.HideMetadata)]
        place = [isinstance(step.do, steps.ForgetMetadata) for step in planned].index(True)
        others = [step for step in planned[:place] if step not in hidden]
        return [*others, *hidden, *planned[place:]]

    edit_steps("plan_delete", hide_last)
    _forget_interrupted("delete")
    _linger(steps.DropDiskSnapshots)


@mutant("XLS-FAIL-004", test="test_interrupted.py::test_emulator_ends_in_a_create")
def nothing_undone_without_an_emulator() -> None:
    """When QEMU has ended in a create, what was done so far is not taken back."""

    async def undo(original: Any, self: Executor, plan: Plan, taken: int, error: BaseException) -> Any:
        if isinstance(error, QemuDiedError):
            return True
        return await original(self, plan, taken, error)

    wrap(Executor, "_undo", undo)


@mutant(
    "XLS-FAIL-005",
    bug="xl save -p leaves a partial file when there is no space",
    test="test_interrupted.py::test_no_space_for_memory[paused]",
)
def partial_memory_image_left() -> None:
    """A memory image for which there was no space is left as far as it was written."""

    async def save(original: Any, self: Any, record: Any, path: str, **kwargs: Any) -> None:
        try:
            await original(self, record, path, **kwargs)
        except HostError:
            with contextlib.suppress(OSError), open(path, "xb") as file:
                file.write(b"a part")
            raise

    wrap(QemuHost, "save_memory", save)


@mutant("XLS-LIVE-005", test="test_interrupted.py::test_no_space_for_memory[live]")
def guest_restarted_by_a_failing_live_snapshot() -> None:
    """When a live snapshot fails the guest starts afresh."""

    async def create(original: Any, self: Toolstack, ref: str, request: Any, **kwargs: Any) -> Any:
        try:
            return await original(self, ref, request, **kwargs)
        except HostError:
            if request.live:
                config = self.resolve(ref).config
                await self.destroy(ref)
                await self.create(config)
            raise

    wrap(Toolstack, "snapshot_create", create)


@mutant("XLS-FAIL-012", test="test_interrupted.py::test_signal_ends_a_command[SIGTERM]")
def interrupted_command_tells_of_success() -> None:
    """A command that a signal ends has the exit status 0."""
    wrap(cli, "_interrupted", lambda original, signum: 0)


# --- two at once --------------------------------------------------------------------------------------------


@mutant("XLS-FAIL-007", test="test_two_at_once.py::test_two_operations[two names]")
def create_of_a_busy_domain_forgotten() -> None:
    """A create that finds the domain busy says that all is well, and is never done."""

    async def create(original: Any, self: Toolstack, ref: str, request: Any, **kwargs: Any) -> Any:
        try:
            return await original(self, ref, request, **kwargs)
        except BusyError:
            return DomainSnapshot(name=request.name or "0")

    async def execute(original: Any, self: Executor, plan: Plan) -> None:
        await original(self, plan)
        await asyncio.sleep(0.5)

    wrap(Store, "locked", lambda original, *args, **more: original(*args, **{**more, "timeout": 0}))
    wrap(Toolstack, "snapshot_create", create)
    wrap(Executor, "execute", execute)


@mutant("XLS-FAIL-009", test="test_two_at_once.py::test_a_domain_that_stays_busy")
def busy_is_the_fault_of_the_host() -> None:
    """A domain that is busy is told to be a failure of the host."""
    BusyError.kind = "host"
