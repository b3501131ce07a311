# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest that counts on its disks and then in memory, to show that both are of one instant."""

from __future__ import annotations

import threading
import time

import msgspec

from xlsnap_conformance import protocol as p
from xlsnap_conformance.failures import ConformanceFailure, HarnessError
from xlsnap_conformance.live import LiveDomain
from xlsnap_conformance.scenario import Scenario
from xlsnap_conformance.trace import DiskOf, DomainOf

TWO_DISKS = DomainOf(disks=(DiskOf(vdev="hda"), DiskOf(vdev="xvde")))

ROUNDS = 3
SECTOR = 5


def counters_agree(scenario: Scenario, request: p.SnapshotCreate, clause: str) -> str:
    """Take snapshots while the guest counts, and revert to each; return what was seen.

    What is counted on a disk is never behind memory, and one ahead at most: the guest writes to its disks
    first. The counting is done from outside, a request at a time, so that it ends with the snapshot.

    :raise ConformanceFailure: with `clause` if memory and disks do not agree.
    """
    domain = scenario.domain
    seen = []
    for round_ in range(ROUNDS):
        name = f"count-{round_}"
        with Counting(domain) as counting:
            scenario.accepts(msgspec.structs.replace(request, name=name), (clause, "XLS-CREATE-001"))
        scenario.accepts(p.SnapshotRevert(domain=domain.name, name=name), (clause, "XLS-REVERT-011"))
        domain.reconnect()
        guest = domain.guest()
        memory = int(guest.get("count") or 0)
        disks = [int((guest.read(number, SECTOR) or "0").lstrip("n")) for number in domain.disk_numbers]
        if any(disk not in (memory, memory + 1) for disk in disks):
            raise ConformanceFailure(
                (clause,),
                "memory and disks of a snapshot are not of one instant",
                expected=f"{memory} or {memory + 1} on each disk, {memory} in memory",
                observed=f"{disks} on disks, {memory} in memory",
            )
        if not counting.count > memory > 0:
            raise HarnessError("the guest did not count: nothing would be shown")
        seen.append(memory)
        scenario.accepts(p.SnapshotDelete(domain=domain.name, name=name), ("XLS-DELETE-007",))
    return f"counters at {seen} agreed in memory and on disks"


class Counting:
    """While it is open the guest counts, on each disk and then in memory; ``count`` is how far it is."""

    def __init__(self, domain: LiveDomain) -> None:
        self._guest = domain.guest()
        self._disks = domain.disk_numbers
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._error: Exception | None = None
        self.count = 0

    def __enter__(self) -> Counting:
        self._thread.start()
        end = time.monotonic() + 5
        while self.count < 20 and self._error is None and time.monotonic() < end:
            time.sleep(0.001)
        return self

    def __exit__(self, *exc_info: object) -> None:
        target = self.count + 20
        end = time.monotonic() + 5
        while self.count < target and self._error is None and time.monotonic() < end:
            time.sleep(0.001)
        self._stop.set()
        self._thread.join(timeout=30)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                for disk in self._disks:
                    self._guest.write(disk, SECTOR, f"n{self.count + 1}")
                self._guest.set("count", str(self.count + 1))
                self.count += 1
        except Exception as error:  # told to the test, which runs in another thread
            self._error = error
