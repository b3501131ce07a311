# SPDX-License-Identifier: LGPL-2.1-or-later
"""Live snapshots: what happens while the memory is being written."""

from __future__ import annotations

import contextlib
import shlex
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from xlsnap_conformance import protocol as p
from xlsnap_conformance import trace as do
from xlsnap_conformance.drivers import command_of
from xlsnap_conformance.failures import UNSUPPORTED, ConformanceFailure, DriverError
from xlsnap_conformance.fence import Fence
from xlsnap_conformance.guest import Probe
from xlsnap_conformance.oracles import metadata
from xlsnap_conformance.plugin import RunContext
from xlsnap_conformance.protocol import DiskChoice
from xlsnap_conformance.scenario import Scenario
from xlsnap_conformance.subject import Subject
from xlsnap_conformance.trace import DiskOf, DomainOf

from .conftest import Need, NewScenario, Tell
from .counting import TWO_DISKS, counters_agree

MEMORY_MIB = 512
"""Enough memory for its writing to take a while, also where all of it is zero."""

LARGE = DomainOf(disks=(DiskOf(vdev="hda"),), memory_mib=MEMORY_MIB)


@pytest.mark.parametrize(
    "types", [("internal", "internal"), ("internal", "external"), ("external", "external")], ids="-".join
)
@pytest.mark.clauses("XLS-LIVE-001")
def test_live_memory_and_disks_are_of_one_instant(
    types: tuple[str, str], new_scenario: NewScenario, need: Need, tell: Tell
) -> None:
    for capability in ("memory", "revert", "delete", "live"):
        need(capability)
    if "external" in types:
        need("external")
        need("external-revert")
    if len(set(types)) > 1:
        need("mixed")
    scenario = new_scenario(msgspec.structs.replace(TWO_DISKS, memory_mib=MEMORY_MIB))
    disks = tuple(
        DiskChoice(vdev=vdev, type="external" if type == "external" else "internal")
        for vdev, type in zip(("hda", "xvde"), types, strict=True)
    )
    request = p.SnapshotCreate(domain=scenario.domain.name, disks=disks, live=True)
    tell(counters_agree(scenario, request, "XLS-LIVE-001"))


@pytest.mark.clauses("XLS-LIVE-002")
def test_guest_runs_while_its_memory_is_written(new_scenario: NewScenario, need: Need, tell: Tell) -> None:
    """An answer of the guest comes after the memory image has begun to grow, and before it has ended."""
    need("memory-path")
    need("live")
    scenario = new_scenario(LARGE)
    scenario.play(do.Set(key="a", value="1"))
    memory = scenario.domain.scratch / "memory"
    scenario.domain.guest().ping()
    with _Asking(scenario.domain.guest(), memory) as asking:
        scenario.accepts(
            p.SnapshotCreate(domain=scenario.domain.name, name="s", memory=str(memory), live=True),
            ("XLS-LIVE-002", "XLS-CREATE-001"),
        )
    final = memory.stat().st_size
    # Its head can be written before the guest is paused: what counts is an answer after it has grown.
    head = min((before for before, _ in asking.answers if before > 0), default=0)
    meanwhile = [size for before, size in asking.answers if before > head and size < final]
    if not meanwhile:
        raise ConformanceFailure(
            ("XLS-LIVE-002",),
            "the guest did not run while its memory was being written",
            expected="an answer while the memory image grows",
            observed=f"{len(asking.answers)} answers, none while the image grew to {final} bytes",
        )
    tell(f"{len(meanwhile)} answers while {final} bytes of memory were being written")


class _Asking:
    """Asks the guest again and again, and notes the size of the memory image before and after each answer."""

    def __init__(self, guest: Probe, memory: Path) -> None:
        self._guest = guest
        self._memory = memory
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.answers: list[tuple[int, int]] = []

    def __enter__(self) -> _Asking:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        while not self._stop.is_set():
            before = self._size()
            self._guest.tick()
            self.answers.append((before, self._size()))

    def _size(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return self._memory.stat().st_size
        return 0


@pytest.fixture
def unable(subject: Subject, xlsnap_run: RunContext) -> Iterator[Subject]:
    """An implementation that cannot take live snapshots: itself, or one without the right to on this host.

    In a user namespace of its own a process has no right to write-protect memory with userfaultfd, unless
    everybody has it.
    """
    if "live" not in subject.capabilities:
        yield subject
        return
    words = ["unshare", "--map-root-user", *command_of(xlsnap_run.driver)]
    try:
        with Fence() as fence, Subject(shlex.join(words), fence) as restricted:
            if "live" in restricted.capabilities:
                pytest.skip(f"{UNSUPPORTED}this host can take live snapshots without any right")
            yield restricted
    except DriverError as error:
        pytest.skip(f"{UNSUPPORTED}no driver without rights can be started: {error.message}")


@pytest.mark.clauses("XLS-LIVE-003")
def test_live_that_is_not_possible(unable: Subject, tell: Tell) -> None:
    """It is refused; the same snapshot without live is taken."""
    for capability in ("memory", "delete"):
        if capability not in unable.capabilities:
            pytest.skip(f"{UNSUPPORTED}capability {capability} is not claimed")
    with Scenario(unable, DomainOf()) as scenario:
        request = p.SnapshotCreate(domain=scenario.domain.name, name="s")
        scenario.accepts(request, ("XLS-LIVE-003", "XLS-CREATE-001"))
        scenario.accepts(p.SnapshotDelete(domain=scenario.domain.name, name="s"), ("XLS-DELETE-007",))
        live = msgspec.structs.replace(request, live=True)
        kinds: tuple[p.ErrorKind, ...] = ("host", "unsupported", "state", "input")
        tell(scenario.refuses(live, "XLS-LIVE-003", "live snapshots are not claimed", kinds=kinds))


@pytest.mark.clauses("XLS-LIVE-004")
def test_live_snapshot_is_listed_when_it_is_complete(
    new_scenario: NewScenario, need: Need, tell: Tell
) -> None:
    """When the metadata appears the memory image does not change any more."""
    for capability in ("memory-path", "live", "metadata-files"):
        need(capability)
    scenario = new_scenario(LARGE)
    memory = scenario.domain.scratch / "memory"
    listed = scenario.domain.metadata_directory() / f"{metadata.PREFIX}s{metadata.SUFFIX}"
    seen: list[tuple[int, int]] = []
    stop = threading.Event()

    def watch() -> None:
        while not (listed.exists() or stop.is_set()):
            time.sleep(0.0005)
        with contextlib.suppress(FileNotFoundError):
            seen.append(_facts(memory))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        scenario.accepts(
            p.SnapshotCreate(domain=scenario.domain.name, name="s", memory=str(memory), live=True),
            ("XLS-LIVE-004", "XLS-CREATE-001"),
        )
        if not listed.exists():
            raise ConformanceFailure(
                ("XLS-LIVE-004", "XLS-META-001"),
                "success is told before there is metadata",
                expected=listed.name,
                observed=None,
            )
    finally:
        time.sleep(0.05)
        stop.set()
        thread.join(timeout=10)
    time.sleep(0.2)  # what is written after success
    final = _facts(memory)
    if seen != [final]:
        raise ConformanceFailure(
            ("XLS-LIVE-004",),
            "the snapshot was listed before its memory image was complete",
            expected=f"{final[0]} bytes",
            observed=f"{seen[0][0]} bytes, or written again later" if seen else "no memory image",
        )
    tell(f"{final[0]} bytes of memory were complete when the snapshot appeared")


def _facts(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
