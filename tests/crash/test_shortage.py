# SPDX-License-Identifier: LGPL-2.1-or-later
"""No space, and disks that fail: a clean error, the guest goes on, nothing is left, a retry works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from fork_server import ForkServer
from laboratory import Laboratory
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
    for free in range(0, LIMIT_BYTES, STEP_BYTES // every_round):
        lab.put_back()
        server.call(fill, directory, free).unwrap()
        outcome = server.call(perform, lab.world, lab.operation)
        state = server.call(run_state, lab.world).unwrap()
        server.call(make_space, directory).unwrap()
        verdict = lab.verdict(outcome)
        where = f"{free} bytes free: {outcome.failure or 'success'}"
        assert verdict.complaint is None, f"{where}: {verdict.complaint}"
        if verdict.stage == "new":
            break
        failed += 1
        assert state is RunState.RUNNING, f"{where}: the guest is {state}"
        if outcome.failure is not None:
            assert outcome.failure.exit_code == 4, f"{where}: not a HostError"
    else:
        pytest.fail(f"{LIMIT_BYTES} bytes are not enough")
    assert failed, "it never fails"


@pytest.mark.parametrize("event", DISK_EVENTS)
@pytest.mark.parametrize("vdev", ["hda", "xvda"])
@pytest.mark.parametrize("operation", ["create", "delete-first"])
def test_a_disk_that_cannot_be_written(
    operation: str, vdev: str, event: str, laboratory: Callable[..., Laboratory]
) -> None:
    """Clusters may be lost then, which is harmless; nothing else."""
    lab = laboratory(Scenario(operation, "internal", 2))
    breaking = partial(break_disk, f"{vdev}.qcow2", event)
    lab.server.call(put_back, lab.world, prepare=[breaking]).unwrap()
    outcome = lab.server.call(perform, lab.world, lab.operation)
    assert lab.server.call(run_state, lab.world).unwrap() is RunState.RUNNING
    assert operation != "create" or outcome.failure is not None, "the disk did not fail"
    verdict = lab.verdict(outcome, disk_failed=True)
    assert verdict.complaint is None, f"{outcome.failure or 'success'}: {verdict.complaint}"
