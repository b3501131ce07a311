# SPDX-License-Identifier: LGPL-2.1-or-later
"""Toolstacks that do not cope with being cut short, with a host that fails late, or with each other."""

from __future__ import annotations

from typing import Any

from xlsnap.toolstack import Toolstack

from .catalogue import elsewhere, mutant, wrap

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


@mutant("XLS-LIST-010")
def list_waits() -> None:
    """A list waits until the operation on the domain has ended."""

    def listed(original: Any, self: Toolstack, ref: str) -> Any:
        uuid = self.store.find(ref)
        with self.store.locked(self.root.domain(uuid).lock, what="domain", timeout=60):
            return original(self, ref)

    wrap(Toolstack, "snapshot_list", listed)
