# SPDX-License-Identifier: LGPL-2.1-or-later
"""No space, and disks that fail: a clean error, the guest goes on, nothing is left, a retry works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from fork_server import ForkServer, Outcome
from laboratory import Laboratory, Verdict
from mutants import failed_merge_loses_the_upper
from scenarios import Scenario
from shortage import PRIVATE_MOUNTS, break_disk, fill, make_space, mount_small, run_state
from world import KINDS, perform, put_back
from xlsnap.domain import RunState

OPERATIONS = [(operation, kind) for kind in KINDS for operation in ("create", "revert", "delete-last")]

DISK_EVENTS = ("cluster_alloc", "refblock_load", "refblock_update_part", "l2_update", "pwritev")
"""Events of QEMU's block layer that taking an internal snapshot comes to."""

STEP_BYTES = 96 << 10
LIMIT_BYTES = 4 << 20


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ForkServer, Path]]:
    """A server that sees a small file system, and where it is."""
    server = ForkServer(wrapper=PRIVATE_MOUNTS)
    try:
        directory = tmp_path_factory.mktemp("small") / "mount"
        mounted = server.call(mount_small, directory)
        if mounted.failure is not None:
            pytest.skip(f"nothing can be mounted here: {mounted.failure.message}")
        yield server, directory
    finally:
        server.close()


@pytest.mark.parametrize(("operation", "kind"), [*OPERATIONS, ("save", "internal")])
def test_no_space(
    operation: str,
    kind: str,
    small: tuple[ForkServer, Path],
    laboratory: Callable[..., Laboratory],
    every_round: int,
) -> None:
    """With more and more space, until the operation succeeds."""
    server, directory = small
    lab = laboratory(Scenario(operation, kind, 2), server=server, directory=directory)
    failed = 0
    for verdict in with_more_space(lab, directory, STEP_BYTES // every_round):
        assert verdict.complaint is None, verdict.complaint
        failed += verdict.stage != "new"
    assert verdict.stage == "new", f"{LIMIT_BYTES} bytes are not enough"
    assert failed, "it never fails"


def with_more_space(lab: Laboratory, directory: Path, step: int) -> Iterator[Verdict]:
    """Try an operation with more and more bytes free, until it succeeds; yield what is found each time."""
    for free in range(0, LIMIT_BYTES, step):
        lab.put_back()
        lab.server.call(fill, directory, free).unwrap()
        outcome = lab.server.call(perform, lab.world, lab.operation, prepare=lab.prepare)
        state = lab.server.call(run_state, lab.world).unwrap()
        lab.server.call(make_space, directory).unwrap()
        verdict = lab.verdict(outcome)
        complaint = verdict.complaint
        if complaint is None and verdict.stage != "new" and state is not RunState.RUNNING:
            complaint = f"the guest is {state}"
        if complaint is None and outcome.failure is not None and outcome.failure.exit_code != 4:
            complaint = "not a HostError"
        where = f"{free} bytes free: {outcome.failure or 'success'}"
        yield Verdict(verdict.stage, complaint and f"{where}: {complaint}")
        if verdict.stage == "new":
            break


@pytest.mark.parametrize("event", DISK_EVENTS)
@pytest.mark.parametrize("vdev", ["hda", "xvda"])
@pytest.mark.parametrize("operation", ["create", "delete-first"])
def test_a_disk_that_cannot_be_written(
    operation: str, vdev: str, event: str, laboratory: Callable[..., Laboratory]
) -> None:
    """Clusters may be lost then, which is harmless; nothing else."""
    lab = laboratory(Scenario(operation, "internal", 2))
    outcome, verdict = with_a_broken_disk(lab, vdev, event)
    assert operation != "create" or outcome.failure is not None, "the disk did not fail"
    assert verdict.complaint is None, f"{outcome.failure or 'success'}: {verdict.complaint}"


MERGE = Scenario("delete-first", "external", 2)


@pytest.mark.parametrize("vdev", ["hda", "xvda"])
def test_a_merge_into_an_image_that_cannot_be_written(
    vdev: str, laboratory: Callable[..., Laboratory]
) -> None:
    """The snapshot is gone, both images stay, and the next deletion merges them."""
    outcome, verdict = with_a_broken_disk(laboratory(MERGE), vdev, "pwritev")
    assert verdict.complaint is None, f"{outcome.failure or 'success'}: {verdict.complaint}"
    assert outcome.failure is None
    assert verdict.stage not in ("old", "new"), "the merge did not fail"


def test_a_failed_merge_that_loses_an_image_is_caught(laboratory: Callable[..., Laboratory]) -> None:
    lab = laboratory(MERGE, prepare=[failed_merge_loses_the_upper])
    _, verdict = with_a_broken_disk(lab, "hda", "pwritev")
    assert verdict.complaint is not None, "it goes unnoticed"


def with_a_broken_disk(lab: Laboratory, vdev: str, event: str) -> tuple[Outcome, Verdict]:
    """Carry the operation out while one access to a disk's first image fails."""
    breaking = partial(break_disk, f"{vdev}.qcow2", event)
    lab.server.call(put_back, lab.world, prepare=[breaking]).unwrap()
    outcome = lab.server.call(perform, lab.world, lab.operation, prepare=lab.prepare)
    assert lab.server.call(run_state, lab.world).unwrap() is RunState.RUNNING
    return outcome, lab.verdict(outcome, disk_failed=True)
