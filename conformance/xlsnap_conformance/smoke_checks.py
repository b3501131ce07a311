# SPDX-License-Identifier: LGPL-2.1-or-later
"""The checks of `smoke`, in their order: each says in a line what it saw, or raises `Wrong`."""

from __future__ import annotations

import stat
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from . import protocol as p
from .driver import Driver
from .failures import ImplementationError
from .fence import Fence, users_of
from .guest import Probe, ProbeClosed, ProbeError, ProbeTimeout, disk_number
from .protocol import CAPABILITIES, VERB_OF, VERBS, R
from .subject import Subject
from .trace import DiskOf

SLOW_SECONDS = 1.0
"""What only looks, and takes longer, makes a run of the suite take hours."""

_LOOKING = ("domain_state", "domain_list", "domain_disks", "domain_console", "snapshot_list", "metadata")

GUEST_SECONDS = 15.0


class Wrong(Exception):
    """The driver is wrong, in one line."""


class Skipped(Exception):
    """There is nothing to check."""


@dataclass(slots=True)
class Bench:
    """What the checks share."""

    command: str
    limits: Mapping[str, float]
    fence: Fence
    driver: Driver | None = None
    subject: Subject | None = None
    name: str = ""
    uuid: str = ""
    image: Path = Path()
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def start(self) -> Driver:
        """Start a driver that is not set up."""
        self.driver = Driver.start(self.command, log=self.fence.log, limits=self.limits)
        return self.driver

    def call(self, request: p.Request[R]) -> R:
        """Ask the driver, and remember how long that took."""
        assert self.subject is not None
        begin = time.monotonic()
        try:
            return self.subject.call(request)
        finally:
            self.seconds.setdefault(VERB_OF[type(request)], []).append(time.monotonic() - begin)

    def able(self, *wanted: str) -> None:
        """Skip the check unless all these capabilities are claimed."""
        assert self.subject is not None
        missing = [each for each in wanted if each not in self.subject.capabilities]
        if missing:
            raise Skipped(f"{missing[0]} is not claimed")

    def state(self) -> str:
        """Return the state of the domain."""
        return self.call(p.DomainStateOf(domain=self.name)).state

    def guest(self) -> str:
        """Reach the guest on its console; return what it says of itself."""
        path = Path(self.call(p.DomainConsole(domain=self.name)).unix)
        if not path.is_absolute():
            raise Wrong(f"domain_console: {str(path)!r} is not absolute")
        with suppress(OSError):
            if not stat.S_ISSOCK(path.stat().st_mode):
                raise Wrong(f"domain_console: {path} is no Unix socket")
        try:
            with Probe(path, timeout=GUEST_SECONDS) as probe:
                probe.ping()
                return probe.info()
        except ProbeClosed as error:
            raise Wrong(f"no console: {error}") from None
        except (ProbeTimeout, ProbeError) as error:
            raise Wrong(
                f"the console is there, but the probe guest does not answer on it: {error}; "
                "is it the first serial port, and did the domain boot the firmware of the request?"
            ) from None


# --- the checks -------------------------------------------------------------------------------------------


def _starts(bench: Bench) -> str:
    hello = bench.start().hello
    return f"{hello.implementation} {hello.version}, edition {hello.edition}"


def _tells_capabilities(bench: Bench) -> str:
    assert bench.driver is not None
    hello = bench.driver.hello
    unknown = sorted(set(hello.capabilities) - set(CAPABILITIES))
    if unknown:
        raise Wrong(f"hello claims {unknown[0]!r}; the capabilities are {', '.join(CAPABILITIES)}")
    if not hello.implementation or not hello.version:
        raise Wrong("hello tells no implementation or no version: reports need both")
    return f"{len(set(hello.capabilities))} of {len(CAPABILITIES)} claimed"


def _refuses_unknown_verbs(bench: Bench) -> str:
    assert bench.driver is not None
    try:
        bench.driver.ask("no-such-verb", p.Hello(), p.Done)
    except ImplementationError as error:
        if error.kind != "unsupported":
            raise Wrong(f"an unknown verb is refused as {error.kind!r}; it must be 'unsupported'") from None
        return "as unsupported"
    raise Wrong("an unknown verb was answered as if it had been done")


def _ends(bench: Bench) -> str:
    assert bench.driver is not None
    begin = time.monotonic()
    bench.driver.close()
    if bench.driver.ended_by is not None:
        raise Wrong(f"it does not end when its standard input is closed; it took {bench.driver.ended_by}")
    return f"after {time.monotonic() - begin:.1f} s"


def _is_set_up(bench: Bench) -> str:
    bench.subject = Subject(bench.command, bench.fence, limits=bench.limits)
    return "in an empty directory"


def _knows_nobody(bench: Bench) -> str:
    state = bench.call(p.DomainStateOf(domain=f"{bench.name}-nobody")).state
    if state != "absent":
        raise Wrong(f"the state of a domain that there never was is {state!r}; it must be 'absent'")
    return "an unknown domain is absent"


def _creates(bench: Bench) -> str:
    assert bench.subject is not None
    bench.image = bench.subject.new_image(DiskOf(vdev="hda"), bench.fence.new_directory(bench.name))
    made = bench.call(
        p.DomainCreate(
            name=bench.name,
            uuid=bench.uuid,
            memory_mib=1,
            vcpus=1,
            firmware=bench.subject.firmware,
            disks=(p.Disk(vdev="hda", path=str(bench.image), format="qcow2"),),
        )
    )
    if made.uuid != bench.uuid:
        raise Wrong(f"domain_create was asked for uuid {bench.uuid} and tells {made.uuid!r}")
    return f"domain {made.domid}"


def _tells_state(bench: Bench) -> str:
    if (state := bench.state()) != "running":
        raise Wrong(f"domain_state of the new domain is {state!r}, not 'running'")
    return "running"


def _lists_domains(bench: Bench) -> str:
    domains = bench.call(p.DomainList()).domains
    found = [each for each in domains if each.name == bench.name]
    if len(found) != 1 or found[0].uuid != bench.uuid:
        told = [f"{each.name} {each.uuid}" for each in domains]
        raise Wrong(f"domain_list must show {bench.name} {bench.uuid} once; it shows {told}")
    return f"{len(domains)} shown"


def _tells_disks(bench: Bench) -> str:
    disks = bench.call(p.DomainDisks(domain=bench.name)).disks
    told = [(disk.vdev, Path(disk.path), disk.format) for disk in disks]
    if told != [("hda", bench.image, "qcow2")]:
        shown = [f"{vdev} {path} {form}" for vdev, path, form in told]
        raise Wrong(f"domain_disks must tell hda {bench.image} qcow2; it tells {shown}")
    return "hda"


def _reaches_guest(bench: Bench) -> str:
    return bench.guest()


def _guest_uses_disk(bench: Bench) -> str:
    console = bench.call(p.DomainConsole(domain=bench.name)).unix
    with Probe(console, timeout=GUEST_SECONDS) as probe:
        number = disk_number("hda", ["hda"])
        if not probe.disks()[number]:
            raise Wrong(f"the guest has no disk hda; it sees {probe.disks()}")
        probe.write(number, 1, "smoke")
        if probe.read(number, 1) != "smoke":
            raise Wrong("the guest does not read what it has just written to hda")
    return "the guest writes to hda and reads it back"


def _pauses(bench: Bench) -> str:
    bench.able("pause")
    bench.call(p.DomainPause(domain=bench.name))
    if (state := bench.state()) != "paused":
        raise Wrong(f"after domain_pause domain_state is {state!r}, not 'paused'")
    bench.call(p.DomainUnpause(domain=bench.name))
    if (state := bench.state()) != "running":
        raise Wrong(f"after domain_unpause domain_state is {state!r}, not 'running'")
    return "and lets run"


def _power_cycles(bench: Bench) -> str:
    bench.call(p.DomainPowerCycle(domain=bench.name))
    return f"afterwards {bench.guest()}"


def _refuses_what_it_does_not_claim(bench: Bench) -> str:
    assert bench.subject is not None
    requests: dict[str, p.Request[Any]] = {
        "domain_pause": p.DomainPause(domain=bench.name),
        "snapshot_revert": p.SnapshotRevert(domain=bench.name, name="nothing"),
        "snapshot_delete": p.SnapshotDelete(domain=bench.name, name="nothing"),
        "metadata": p.Metadata(domain=bench.name),
    }
    tried = [name for name in requests if VERBS[name].capability not in bench.subject.capabilities]
    for name in tried:
        with suppress(ImplementationError):
            bench.call(requests[name])
            raise Wrong(f"{name} works, but its capability {VERBS[name].capability!r} is not claimed")
    if not tried:
        raise Skipped("all are claimed")
    return ", ".join(tried)


def _lists_no_snapshots(bench: Bench) -> str:
    listed = bench.call(p.SnapshotList(domain=bench.name)).snapshots
    if listed:
        raise Wrong(f"snapshot_list shows {listed[0].name!r} of a domain that has no snapshot")
    return "empty"


def _takes_a_snapshot(bench: Bench) -> str:
    assert bench.subject is not None
    memory = "yes" if "memory" in bench.subject.capabilities else "no"
    made = bench.call(p.SnapshotCreate(domain=bench.name, name="smoke", memory=memory)).name
    if made != "smoke":
        raise Wrong(f"snapshot_create was asked for the name 'smoke' and tells {made!r}")
    names = [each.name for each in bench.call(p.SnapshotList(domain=bench.name)).snapshots]
    if names != ["smoke"]:
        return f"the list shows {names} then: the suite will say more"
    bench.guest()
    return "listed, and the guest still answers"


def _reverts(bench: Bench) -> str:
    bench.able("revert")
    bench.call(p.SnapshotRevert(domain=bench.name, name="smoke"))
    return f"afterwards {bench.guest()}"


def _deletes(bench: Bench) -> str:
    bench.able("delete")
    bench.call(p.SnapshotDelete(domain=bench.name, name="smoke"))
    return "done"


def _destroys(bench: Bench) -> str:
    bench.call(p.DomainDestroy(domain=bench.name))
    if (state := bench.state()) not in ("stopped", "absent"):
        raise Wrong(f"after domain_destroy domain_state is {state!r}, not 'stopped' or 'absent'")
    return bench.state()


def _leaves_nothing(bench: Bench) -> str:
    """A second domain is left running, so that tear-down has something to do."""
    assert bench.subject is not None
    bench.name, bench.uuid = bench.fence.new_name(), str(uuid.uuid4())
    _creates(bench)
    bench.call(p.Teardown())
    driver = bench.subject.driver.pid
    end = time.monotonic() + 5
    while left := [process for process in users_of(bench.fence.path) if process.pid != driver]:
        if time.monotonic() > end:
            with suppress(psutil.Error):
                raise Wrong(f"teardown leaves a domain running: process {left[0].pid}, {left[0].name()}")
        time.sleep(0.05)
    return "teardown ends a domain that still runs"


def _is_quick(bench: Bench) -> str:
    looking = {verb: max(seconds) for verb, seconds in bench.seconds.items() if verb in _LOOKING}
    verb = max(looking, key=looking.__getitem__, default=None)
    if verb is None:
        raise Skipped("nothing was measured")
    text = f"{verb} took {looking[verb]:.2f} s at most"
    if looking[verb] > SLOW_SECONDS:
        raise Slow(f"{text}; the suite asks such things some thousand times, so it will take hours")
    return text


class Slow(Exception):
    """The driver works, and is slow."""


CHECKS: dict[str, Callable[[Bench], str]] = {
    "starts and says hello": _starts,
    "tells what can be done": _tells_capabilities,
    "refuses a verb that it does not know": _refuses_unknown_verbs,
    "ends when the suite hangs up": _ends,
    "is set up": _is_set_up,
    "knows who is not there": _knows_nobody,
    "creates a domain": _creates,
    "tells its state": _tells_state,
    "lists it": _lists_domains,
    "tells its disks": _tells_disks,
    "reaches the guest": _reaches_guest,
    "gives it its disk": _guest_uses_disk,
    "pauses": _pauses,
    "power-cycles": _power_cycles,
    "refuses what it does not claim": _refuses_what_it_does_not_claim,
    "lists no snapshot": _lists_no_snapshots,
    "takes a snapshot": _takes_a_snapshot,
    "reverts": _reverts,
    "deletes": _deletes,
    "destroys": _destroys,
    "leaves nothing behind": _leaves_nothing,
    "is quick": _is_quick,
}
