# SPDX-License-Identifier: LGPL-2.1-or-later
"""Play a scenario: do each step to a real domain, and compare what comes of it with the model.

`Scenario.play` asks the model what must come of a step, has it done, and lets the oracles look. The first
difference raises `ConformanceFailure` with the clauses that are broken and the trace that leads there.
"""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from . import model
from . import protocol as p
from . import trace as do
from .expectations import broken_clauses
from .failures import ConformanceFailure, HarnessError, ImplementationError
from .guest import Probe, ProbeClosed, ProbeError, ProbeTimeout, disk_number
from .model import Outcome, World
from .oracles import Aspect, Finding, guest, images, leftovers, listing, metadata
from .snapshot_conf import text_of
from .subject import Subject, qemu_img
from .trace import DomainOf, Failure, Step, Trace
from .wording import describe, needed

PROBE_SECONDS = 5.0
"""How long the guest may take for one answer."""

STATE_SECONDS = 5.0
"""How long a domain may take to be seen in a new state."""


class Unsupported(Exception):
    """The implementation does not claim to be able to do this."""


class Scenario:
    """A domain, its model, and the steps so far. A context manager: leaving it removes the domain.

    :ivar world: the domain as it must be now.
    :ivar steps: what was done, with the refusals that were right.
    :ivar checks: number of observations that were compared with the model.
    """

    def __init__(self, subject: Subject, domain: DomainOf, *, title: str = "") -> None:
        self.subject = subject
        self.title = title
        self.world = World(domain)
        self.before = self.world
        self.steps: list[Step] = []
        self.checks = 0
        self.name = subject.fence.new_name()
        self.uuid = str(uuid.uuid4())
        self.scratch = subject.fence.new_directory(self.name)
        self.images: dict[str, Path] = {}
        self._probe: Probe | None = None
        self._keys: dict[str, None] = {}
        self._sectors: dict[tuple[str, int], None] = {}
        self._unflushed = False
        self._times: dict[str, tuple[int, int]] = {}
        self._metadata: Path | None = None
        self._tags: dict[tuple[str, str], str] = {}
        self._chosen: str | None = None
        self._ignored: set[str] = set()
        vdevs = [disk.vdev for disk in domain.disks]
        self.disk_number_of = {vdev: disk_number(vdev, vdevs) for vdev in vdevs}

    def __enter__(self) -> Scenario:
        try:
            self.begin()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # --- life -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Make the images and start the domain.

        :raise HarnessError: if the domain does not come up: then nothing can be said.
        """
        self.images = {
            disk.vdev: self.subject.new_image(disk, self.scratch) for disk in self.world.domain.disks
        }
        try:
            self._start(paused=False)
            self.guest().ping()
        except (ImplementationError, ProbeError, ProbeTimeout, ProbeClosed) as error:
            raise HarnessError(f"the domain for the scenario did not come up: {error}") from error

    def close(self) -> None:
        """Destroy the domain, delete its snapshots, remove its images."""
        self.reconnect()
        with contextlib.suppress(ImplementationError, HarnessError):
            if self._observed_state() not in ("absent", "stopped"):
                self.subject.call(p.DomainDestroy(domain=self.name))
            for snapshot in self.subject.call(p.SnapshotList(domain=self.name)).snapshots:
                self.subject.call(p.SnapshotDelete(domain=self.name, name=snapshot.name))
        shutil.rmtree(self.scratch, ignore_errors=True)

    def finish(self) -> None:
        """Look at everything, stop the domain, and let `qemu-img check` judge its images."""
        self.play(do.Check())
        if self.world.state != "stopped":
            self.play(do.Destroy())
        self._judge(images.check_deeply(self.world, self.images), do.Check())

    # --- steps ----------------------------------------------------------------------------------------------

    def play(self, step: Step) -> None:
        """Do a step and check what came of it.

        :raise ConformanceFailure: if that is not what the model says.
        :raise Unsupported: if the implementation does not claim to be able to do it.
        """
        stopped = self.world.state == "stopped"
        if missing := set(needed(step, stopped=stopped)) - self.subject.capabilities:
            raise Unsupported(", ".join(sorted(missing)))
        if not model.possible(self.world, step):
            raise HarnessError(f"step {len(self.steps) + 1} makes no sense: the domain is {self.world.state}")
        self.before = self.world
        outcome = model.apply(self.world, step)
        expected = outcome.refused.kinds[0] if outcome.refused else None
        if (step.refused is None) != (expected is None) and step.refused is not None:
            raise HarnessError(f"step {len(self.steps) + 1} says {step.refused!r}, the model {expected!r}")
        step = msgspec.structs.replace(step, refused=expected)
        self.steps.append(step)
        self._chosen = None
        error = self._attempt(step)
        self._judge_answer(step, outcome, error)
        self.world = outcome.after
        if isinstance(step, do.Create) and outcome.refused is None:
            self.world = model.apply(self.before, step, chosen=self._chosen).after
            self._judge(self._name_findings(step), step)
        self._judge(self._observations(step), step)

    def _attempt(self, step: Step) -> ImplementationError | None:
        """Do a step; return the refusal if there is one."""
        try:
            self._flush(step)
            _PERFORM[type(step)](self, step)
        except ImplementationError as error:
            return error
        except (ProbeTimeout, ProbeClosed) as error:
            self._fail_silent_guest(step, error)
        except ProbeError as error:
            self._judge([Finding(Aspect.SECTORS, "the guest cannot use its disk", "done", str(error))], step)
        return None

    def _judge_answer(self, step: Step, outcome: Outcome, error: ImplementationError | None) -> None:
        refused = outcome.refused
        if refused is None and error is not None:
            finding = Finding(Aspect.ACCEPTED, f"refused: {describe(step)}", "done", str(error))
            self._judge([finding], step)
        if refused is not None and error is None:
            summary = f"accepted, though {refused.reason}"
            self._fail((refused.clause, "XLS-FAIL-002"), summary, f"refused: {refused.reason}", "accepted")
        if refused is not None and error is not None and error.kind not in refused.kinds:
            finding = Finding(
                Aspect.ERROR_KIND, f"{refused.reason}: refused as {error.kind}", refused.kinds[0], str(error)
            )
            self._judge([finding], step)
        self.checks += 1

    def refuses(
        self,
        request: p.Request[Any],
        clause: str,
        reason: str,
        *,
        kinds: tuple[p.ErrorKind, ...] = ("input",),
    ) -> str:
        """Send a request that must be refused and must change nothing; return the error's text.

        For what steps cannot say: bad configurations, other domains.

        :raise ConformanceFailure: if it is accepted, refused for another reason, or changes something.
        """
        refused = model.Refused(kinds, clause, reason)
        text = ""
        error: ImplementationError | None = None
        self.before = self.world
        self.reconnect()
        try:
            self.subject.call(request)
        except ImplementationError as refusal:
            error, text = refusal, refusal.message
        step = do.Check(refused=kinds[0])
        self._judge_answer(step, Outcome(self.world, refused), error)
        self._judge(self._observations(step), step)
        return text

    # --- looking --------------------------------------------------------------------------------------------

    def _observations(self, step: Step) -> Iterator[Finding]:
        """Yield what differs after a step. How much is looked at depends on what the step can change."""
        if isinstance(step, do.Set | do.Write):
            return
        # A domain that should run proves it by answering; only where that is not asked its state is.
        if not isinstance(step, do.Create | do.Delete | do.List) or self.world.state != "running":
            yield from self._state_findings()
        if isinstance(step, do.Create | do.Revert | do.Delete | do.List | do.Start | do.Destroy | do.Check):
            yield from self._snapshot_findings()
        if self.world.state == "running":
            yield from self._guest_findings(step)
        yield from images.check(self.world, self.images, self._tags)
        if isinstance(step, do.Check):
            yield from self._identity_findings()

    def _state_findings(self) -> Iterator[Finding]:
        expected: tuple[str, ...] = (self.world.state,)
        if self.world.state == "stopped" and not self.world.snapshots:
            expected = ("stopped", "absent")  # nothing is left to remember it for
        observed = self._observed_state()
        if observed not in expected:
            yield Finding(Aspect.RUN_STATE, f"the domain is {observed}", expected[0], observed)

    def expect_memory(self, checksum: str, clause: str, summary: str) -> None:
        """Compare the guest's large memory area with a checksum that it gave before."""
        self.checks += 1
        observed = self.guest().memory_sum()
        if observed != checksum:
            self._fail((clause,), summary, checksum, observed)

    def ignore(self, path: Path) -> None:
        """Do not take a thing in the scratch directory for something that was left behind."""
        self._ignored.add(path.name)

    def _snapshot_findings(self) -> Iterator[Finding]:
        stopped = self.world.state == "stopped"
        if not stopped or (self.world.snapshots and "list-stopped" in self.subject.capabilities):
            try:
                listed = self.subject.call(p.SnapshotList(domain=self.name)).snapshots
            except ImplementationError as error:
                yield Finding(
                    Aspect.LIST_FAILS, "the snapshots cannot be listed", self.world.names(), str(error)
                )
                return
            yield from listing.check(self.world, listed, self._times)
        if "metadata-files" in self.subject.capabilities:
            files = metadata.read(self._metadata_directory())
            self._tags = files.tags()
            yield from metadata.check(self.world, files, self.images, self.scratch, self._times)
        yield from leftovers.check(self.world, self.images, self.scratch, self._ignored)

    def _guest_findings(self, step: Step) -> Iterator[Finding]:
        try:
            yield from guest.check(self.world, self.guest(), self.disk_number_of, self._keys, self._sectors)
        except (ProbeTimeout, ProbeClosed, ImplementationError) as error:
            self._fail_silent_guest(step, error)

    def _identity_findings(self) -> Iterator[Finding]:
        """The domain that has our name has our uuid."""
        if self.world.state != "stopped":
            domains = self.subject.call(p.DomainList()).domains
            found = [domain.uuid for domain in domains if domain.name == self.name]
            if found != [self.uuid]:
                yield Finding(Aspect.IDENTITY, "the domain has another uuid", [self.uuid], found)

    def _name_findings(self, step: do.Create) -> Iterator[Finding]:
        """A name that was given is the name; another must be an integer near the epoch seconds."""
        if self._chosen is None:
            return
        first, last = self._times.get(self._chosen, (0, 0))
        if step.name is not None and self._chosen != step.name:
            yield Finding(
                Aspect.DEFAULT_NAME, "the snapshot got another name than asked for", step.name, self._chosen
            )
        if step.name is None and not (
            self._chosen.isdecimal() and first <= int(self._chosen) <= last + len(self.before.snapshots)
        ):
            yield Finding(
                Aspect.DEFAULT_NAME,
                "the default name is not the epoch seconds",
                f"{first} to {last}",
                self._chosen,
            )

    # --- failing --------------------------------------------------------------------------------------------

    def _judge(self, findings: Iterable[Finding], step: Step) -> None:
        self.checks += 1
        for finding in findings:
            clauses = broken_clauses(finding, step, self.before)
            self._fail(clauses, finding.summary, finding.expected, finding.observed)

    def _fail_silent_guest(self, step: Step, error: Exception) -> None:
        """A guest that should run does not answer: say in what state its domain is."""
        state = self._observed_state()
        summary = f"the guest does not answer, its domain is {state}"
        self._judge([Finding(Aspect.RUN_STATE, summary, "running", str(error))], step)

    def _fail(self, clauses: tuple[str, ...], summary: str, expected: Any, observed: Any) -> None:
        hide = self._for_the_reader
        failure = Failure(
            step=len(self.steps),
            clauses=clauses,
            summary=hide(summary),
            expected=hide(expected),
            observed=hide(observed),
            before=self.before.tree(),
            after=self.world.tree(),
            implementation=self.subject.name,
        )
        trace = self.trace(failure)
        raise ConformanceFailure(
            clauses, failure.summary, expected=failure.expected, observed=failure.observed, trace=trace
        )

    def _for_the_reader(self, value: Any) -> Any:
        """Replace what differs from run to run, so that a trace stays the same."""
        if isinstance(value, str):
            return value.replace(str(self.scratch), do.SCRATCH).replace(self.name, "DOMAIN")
        if isinstance(value, dict):
            return {str(key): self._for_the_reader(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._for_the_reader(item) for item in value]
        return value

    def trace(self, failure: Failure | None = None) -> Trace:
        """Return what was done so far as a trace."""
        clauses = failure.clauses if failure else ()
        return Trace(
            title=self.title,
            clauses=clauses,
            domain=self.world.domain,
            steps=tuple(self.steps),  # type: ignore[arg-type]
            failure=failure,
        )

    # --- the domain -----------------------------------------------------------------------------------------

    def _start(self, *, paused: bool) -> None:
        domain = self.world.domain
        disks = tuple(
            p.Disk(
                vdev=disk.vdev,
                path=str(self.images[disk.vdev]),
                format=disk.format,
                readonly=disk.readonly,
                cdrom=disk.cdrom,
            )
            for disk in domain.disks
        )
        self.subject.call(
            p.DomainCreate(
                name=self.name,
                uuid=self.uuid,
                memory_mib=domain.memory_mib,
                vcpus=domain.vcpus,
                firmware=self.subject.firmware,
                disks=disks,
                paused=paused,
                on_poweroff=domain.on_poweroff,
            )
        )

    def guest(self) -> Probe:
        """Return the connection to the running guest."""
        if self._probe is None:
            console = self.subject.call(p.DomainConsole(domain=self.name)).unix
            self._probe = Probe(console, timeout=PROBE_SECONDS)
        return self._probe

    @property
    def disk_numbers(self) -> list[int]:
        """The guest's numbers of the writable disks."""
        return [self.disk_number_of[disk.vdev] for disk in self.world.domain.disks if disk.writable]

    def reconnect(self) -> None:
        """Let go of the console, so that it is asked for anew: the domain may be in another process now."""
        if self._probe is not None:
            self._probe.close()
            self._probe = None

    def _flush(self, step: Step) -> None:
        """Have the guest flush its disks before a step, so that what it wrote must be there afterwards.

        Not before a create with memory: the guest goes on from there, so that writes need no flush to count.
        """
        goes_on = isinstance(step, do.Create) and step.memory != "no"
        if self._unflushed and not goes_on and not isinstance(step, do.Set | do.Write | do.PutFile):
            self.guest().flush()
            self._unflushed = False

    def _observed_state(self) -> str:
        try:
            return self.subject.call(p.DomainStateOf(domain=self.name)).state
        except ImplementationError as error:
            return f"not known: {error}"

    def _metadata_directory(self) -> Path:
        if self._metadata is None:
            self._metadata = Path(self.subject.call(p.Metadata(domain=self.uuid)).directory)
        return self._metadata

    def place(self, path: str) -> str:
        """Return a path of a trace as it is in this run."""
        return path.replace(do.SCRATCH, str(self.scratch))


# --- how each step is done --------------------------------------------------------------------------------


def _set(run: Scenario, step: do.Set) -> None:
    run._keys[step.key] = None
    run.guest().set(step.key, step.value)


def _write(run: Scenario, step: do.Write) -> None:
    run._sectors[step.vdev, step.lba] = None
    run._unflushed = True
    run.guest().write(run.disk_number_of[step.vdev], step.lba, step.word)


def _pause(run: Scenario, step: do.Pause) -> None:
    run.subject.call(p.DomainPause(domain=run.name))


def _unpause(run: Scenario, step: do.Unpause) -> None:
    run.subject.call(p.DomainUnpause(domain=run.name))


def _power_cycle(run: Scenario, step: do.PowerCycle) -> None:
    run.reconnect()
    run.subject.call(p.DomainPowerCycle(domain=run.name))


def _power_off(run: Scenario, step: do.PowerOff) -> None:
    run.guest().power_off()
    end = time.monotonic() + STATE_SECONDS
    while run._observed_state() == "running" and time.monotonic() < end:
        time.sleep(
            0.005
        )  # hanging up now would lose the request, of which the serial port takes a byte a time
    run.reconnect()


def _destroy(run: Scenario, step: do.Destroy) -> None:
    run.reconnect()
    run.subject.call(p.DomainDestroy(domain=run.name))


def _start(run: Scenario, step: do.Start) -> None:
    run._start(paused=step.paused)


def _create(run: Scenario, step: do.Create) -> None:
    placed = msgspec.structs.replace(step, memory=run.place(step.memory))
    if step.as_config:
        request = p.SnapshotCreate(domain=run.name, config=text_of(placed), dry_run=step.dry_run)
    else:
        request = p.SnapshotCreate(
            domain=run.name,
            name=placed.name,
            description=placed.description,
            memory=placed.memory,
            disks=placed.disks,
            dry_run=placed.dry_run,
        )
    first = int(time.time())
    run.reconnect()  # the domain may go on in another process
    run._chosen = run.subject.call(request).name
    run._times[run._chosen] = (first, int(time.time()))


def _revert(run: Scenario, step: do.Revert) -> None:
    run.reconnect()
    run.subject.call(p.SnapshotRevert(domain=run.name, name=step.name, paused=step.paused))


def _delete(run: Scenario, step: do.Delete) -> None:
    run.subject.call(p.SnapshotDelete(domain=run.name, name=step.name))


def _put_file(run: Scenario, step: do.PutFile) -> None:
    Path(run.place(step.path)).write_text(step.content)


def _put_tag(run: Scenario, step: do.PutTag) -> None:
    qemu_img("snapshot", "-q", "-c", step.name, str(run.images[step.vdev]))


def _lose(run: Scenario, step: do.Lose) -> None:
    if step.what != "memory":
        qemu_img("snapshot", "-q", "-d", step.name, str(run.images[step.what]))
        return
    snapshot = run.world.find(step.name)
    assert snapshot is not None  # the model has looked
    if snapshot.memory == "yes":
        (run._metadata_directory() / f"{step.name}{metadata.MEMORY_SUFFIX}").unlink()
    else:
        Path(run.place(snapshot.memory)).unlink()


def _nothing(run: Scenario, step: Step) -> None:
    """Looking is what follows every step."""


_PERFORM: dict[type[Step], Callable[[Scenario, Any], None]] = {
    do.Set: _set,
    do.Write: _write,
    do.Pause: _pause,
    do.Unpause: _unpause,
    do.PowerCycle: _power_cycle,
    do.PowerOff: _power_off,
    do.Destroy: _destroy,
    do.Start: _start,
    do.Create: _create,
    do.Revert: _revert,
    do.Delete: _delete,
    do.PutFile: _put_file,
    do.PutTag: _put_tag,
    do.Lose: _lose,
    do.List: _nothing,
    do.Check: _nothing,
}


def replay(trace: Trace, subject: Subject) -> Scenario:
    """Play a trace from beginning to end, with the last look; return the scenario, already closed.

    :raise ConformanceFailure: if the implementation does not do what the model says.
    """
    with Scenario(subject, trace.domain, title=trace.title) as scenario:
        for step in trace.steps:
            scenario.play(step)
        scenario.finish()
    return scenario
