# SPDX-License-Identifier: LGPL-2.1-or-later
"""Any sequence of operations on any mixture of snapshots, interrupted anywhere: nothing is ever lost.

Plans, executor, journal and store are the real ones; the host is simulated. After every step each snapshot is
read from its images, so that damage shows at once and not when somebody reverts to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyFailure
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from simulated_host import Image, Sectors, SimulatedHost, contents, load, store
from xlsnap import performing, savefile
from xlsnap import plan as planning
from xlsnap import steps as do
from xlsnap.chain import Images, Merge
from xlsnap.domain import DomainConfig
from xlsnap.errors import UnknownDomainError, XlsnapError
from xlsnap.executor import Executor
from xlsnap.journal import Journal
from xlsnap.layout import StateRoot
from xlsnap.request import SnapshotRequest
from xlsnap.snapshot import SnapshotType
from xlsnap.steps import DiskImage, Plan
from xlsnap.toolstack import Toolstack
from xlsnap_grammars import DiskSpec, SnapshotDisk

FORMATS = {"hda": "qcow2", "hdb": "raw"}
UUID = "00000000-0000-4000-8000-000000000001"

# --- sudden death -----------------------------------------------------------------------------------------


class Killed(BaseException):
    """The toolstack is dead: what handlers do after this would be done by nobody."""


class Reaper:
    """Counts calls of the host and changes of files, and strikes at a given one."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.strike: Callable[[], None] = lambda: None
        self.dead = False
        self.directory = ""

    def tick(self, _: str = "") -> None:
        """Let a moment pass in which somebody could die."""
        if self.dead:
            raise Killed
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                self.strike()

    def kill_toolstack(self) -> None:
        """Die here and now."""
        self.dead = True
        raise Killed

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        """Notice changes of files under our directory."""
        if not self.directory or event not in _CHANGES or not isinstance(args[0], str | os.PathLike):
            return
        if event == "open" and not (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        if os.fspath(args[0]).startswith(f"{self.directory}/root"):
            self.tick()


_CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
REAPER = Reaper()
sys.addaudithook(REAPER.audit)


@pytest.fixture(autouse=True, scope="module")
def _the_dead_do_nothing() -> Iterator[None]:
    """Keep the handlers of a killed toolstack from undoing and from closing the journal."""

    def unless_dead(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if REAPER.dead:
                raise Killed
            return method(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Executor, "_undo", unless_dead(Executor._undo))
        patch.setattr(Journal, "close", unless_dead(Journal.close))
        yield


# --- what should be, and what is --------------------------------------------------------------------------


@dataclass(frozen=True)
class Taken:
    """A snapshot: the disks that it has, the memory if it has that, and where it came from."""

    disks: dict[str, Sectors]
    memory: dict[str, str] | None
    runs: bool
    parent: str | None


@dataclass(frozen=True)
class World:
    """A domain and its snapshots. ``runs`` is None for a stopped one."""

    disks: dict[str, Sectors]
    memory: dict[str, str] = field(default_factory=dict)
    runs: bool | None = True
    taken: dict[str, Taken] = field(default_factory=dict)
    current: str | None = None


def forgotten(world: World) -> World:
    """A stopped domain without snapshots is forgotten, and with it what its state came from."""
    return world if world.taken or world.runs is not None else replace(world, current=None)


class Machine(RuleBasedStateMachine):
    """A domain with a qcow2 and a raw disk, its snapshots, and a toolstack and a QEMU that can die."""

    deaths = True

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="xlsnap-simulated-"))
        self.root = StateRoot.at(self.directory / "root")
        self.host = SimulatedHost()
        self.number = 0

    @initialize(memory_first=st.booleans())
    def begin(self, memory_first: bool) -> None:
        """Start the domain on fresh disks, on a host of one kind or the other."""
        self.host.memory_first = memory_first
        disks = []
        for vdev, image_format in FORMATS.items():
            path = str(self.directory / f"{vdev}.{image_format}")
            store(path, Image(image_format))
            disks.append(DiskSpec(target=path, format=image_format, vdev=vdev))
        self.config = DomainConfig(name="d", uuid=UUID, disks=tuple(disks))
        self.world = World({vdev: {} for vdev in FORMATS})
        self.call(lambda toolstack: toolstack.create(self.config))

    def teardown(self) -> None:
        try:
            with contextlib.suppress(UnknownDomainError):
                assert self.call(lambda toolstack: toolstack.snapshot_check("d")) == []
        finally:
            REAPER.directory = ""
            shutil.rmtree(self.directory)

    def call(self, operation: Callable[[Toolstack], Any]) -> Any:
        """Do an operation with a toolstack of its own."""

        async def run() -> Any:
            async with Toolstack(self.root, host=self.host) as toolstack:
                return await operation(toolstack)

        REAPER.directory, self.host.before = str(self.directory), REAPER.tick
        try:
            return asyncio.run(run())
        finally:
            REAPER.directory, self.host.before = "", lambda name: None

    def strike(self, at: int | None, what: Callable[[], None], operation: Callable[[Toolstack], Any]) -> bool:
        """Do an operation in which somebody dies at the moment `at`; say whether it came to its end."""
        REAPER.left, REAPER.strike, REAPER.dead = at, what, False
        try:
            self.call(operation)
        except Killed:
            return False
        except XlsnapError:
            if at is None:
                raise
            return False
        finally:
            REAPER.left, REAPER.dead = None, False
        return True

    def attempt(
        self, after: World, operation: Callable[[Toolstack], Any], death: tuple[str, int, int]
    ) -> None:
        """Do an operation: the world is `after` then; if somebody dies in it, that or what it was before."""
        before, after = self.world, forgotten(after)
        who, first, second = death if self.deaths else ("nobody", 0, 0)
        if who == "nobody":
            assert self.strike(None, lambda: None, operation)
            self.world = after
            return

        def kill_qemu() -> None:
            self.host.guest = None

        strike = kill_qemu if who == "qemu" else REAPER.kill_toolstack
        complete = self.strike(first, strike, operation)
        if who == "both":
            kill_qemu()
        with contextlib.suppress(UnknownDomainError):
            self.strike(second, REAPER.kill_toolstack, _recover)
            self.strike(None, lambda: None, _recover)
        seen = self.look()
        stopped = self.host.guest is None
        possible = [after] if complete and who == "toolstack" else [before, after]
        if stopped:
            possible += [forgotten(replace(world, runs=None, memory={})) for world in possible]
        assert seen in possible, f"{death}: {seen}\nis none of\n" + "\n".join(map(str, possible))
        self.world = seen

    def look(self) -> World:
        """Read everything: the guest, and each snapshot from its images and files."""
        toolstack = Toolstack(self.root, host=self.host)
        guest = self.host.guest
        try:
            record = toolstack.resolve("d")
        except UnknownDomainError:
            assert guest is None
            disks = {vdev: contents(str(self.config.disk(vdev).target)) for vdev in FORMATS}  # type: ignore[union-attr]
            return World(disks, runs=None)
        taken = {}
        for snapshot in toolstack.snapshot_list("d"):
            memory = None
            if snapshot.memory is not None:
                assert savefile.memory_image_problem(snapshot.memory, UUID) is None
                data = Path(snapshot.memory).read_bytes()[savefile.HEADER_BYTES :]
                memory = msgspec.json.decode(data, type=dict[str, str])
            disks = {}
            for disk in snapshot.disks:
                assert load(disk.path).format == disk.format
                internal = disk.type is not SnapshotType.EXTERNAL
                disks[disk.device] = contents(disk.path, tag=disk.name if internal else None)
            taken[snapshot.name] = Taken(disks, memory, snapshot.running, snapshot.parent)
        present = {str(disk.vdev): str(disk.target) for disk in record.config.disks}
        if guest is not None:
            assert guest.roots == present
        return World(
            disks={vdev: contents(path) for vdev, path in present.items()},
            memory=dict(guest.memory) if guest else {},
            runs=guest.running if guest else None,
            taken=taken,
            current=record.current,
        )

    # --- what can happen --------------------------------------------------------------------------------

    @precondition(lambda self: self.world.runs)
    @rule(lba=st.sampled_from("01"))
    def write(self, lba: str) -> None:
        """The guest writes to its disks and to its memory."""
        self.number += 1
        word = f"w{self.number}"
        assert self.host.guest is not None
        self.host.guest.memory["last"] = word
        for vdev in FORMATS:
            self.host.write(vdev, lba, word)
        disks = {vdev: {**sectors, lba: word} for vdev, sectors in self.world.disks.items()}
        self.world = replace(self.world, disks=disks, memory={"last": word})

    @precondition(lambda self: self.world.runs is not None)
    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        """Somebody pauses or unpauses the domain."""
        self.call(lambda toolstack: toolstack.pause("d") if paused else toolstack.unpause("d"))
        self.world = replace(self.world, runs=not paused)

    @precondition(lambda self: self.world.runs is not None)
    @rule()
    def destroy(self) -> None:
        """Somebody destroys the domain."""
        self.call(lambda toolstack: toolstack.destroy("d"))
        self.world = forgotten(replace(self.world, runs=None, memory={}))

    @precondition(lambda self: self.world.runs is None)
    @rule()
    def start(self) -> None:
        """Somebody starts it again with the configuration of the first day."""
        self.call(lambda toolstack: toolstack.create(self.config))
        self.world = replace(self.world, runs=True, memory={})

    deaths_of = st.tuples(
        st.sampled_from(["nobody", "nobody", "toolstack", "toolstack", "qemu", "both"]),
        st.integers(0, 60),
        st.integers(0, 40),
    )

    @precondition(lambda self: self.world.runs is not None and len(self.world.taken) < 6)
    @rule(
        hda=st.sampled_from(["internal", "external", None]),
        hdb=st.sampled_from(["external", "external", None]),
        memory=st.booleans(),
        live=st.booleans(),
        death=deaths_of,
    )
    def create(self, hda: Any, hdb: Any, memory: bool, live: bool, death: tuple[str, int, int]) -> None:
        """Somebody takes a snapshot; a raw disk that has become qcow2 could have internal ones too."""
        kinds = {vdev: kind for vdev, kind in (("hda", hda), ("hdb", hdb)) if kind}
        if not kinds and not memory:
            return
        self.number += 1
        name, world = f"s{self.number}", self.world
        request = SnapshotRequest(
            name=name,
            memory=memory,
            live=live and memory,
            disks=tuple(SnapshotDisk(vdev, kind) for vdev, kind in kinds.items()),
        )
        new = Taken(
            {vdev: world.disks[vdev] for vdev in kinds},
            world.memory if memory else None,
            bool(world.runs),
            world.current,
        )
        after = replace(world, taken={**world.taken, name: new}, current=name)
        self.attempt(after, lambda toolstack: toolstack.snapshot_create("d", request), death)

    @precondition(lambda self: self.world.taken)
    @rule(data=st.data(), death=deaths_of)
    def revert(self, data: Any, death: tuple[str, int, int]) -> None:
        """Somebody reverts to any snapshot, on any branch."""
        name = data.draw(st.sampled_from(sorted(self.world.taken)))
        taken = self.world.taken[name]
        after = replace(
            self.world,
            disks={**self.world.disks, **taken.disks},
            memory=taken.memory or {},
            runs=taken.runs or taken.memory is None,
            current=name,
        )
        self.attempt(after, lambda toolstack: toolstack.snapshot_revert("d", name), death)

    @precondition(lambda self: self.world.taken)
    @rule(data=st.data(), death=deaths_of)
    def delete(self, data: Any, death: tuple[str, int, int]) -> None:
        """Somebody deletes any snapshot; images are merged then."""
        name = data.draw(st.sampled_from(sorted(self.world.taken)))
        gone = self.world.taken[name]
        left = {
            key: replace(item, parent=gone.parent) if item.parent == name else item
            for key, item in self.world.taken.items()
            if key != name
        }
        current = gone.parent if self.world.current == name else self.world.current
        after = replace(self.world, taken=left, current=current)
        self.attempt(after, lambda toolstack: toolstack.snapshot_delete("d", name), death)

    # --- what must hold ---------------------------------------------------------------------------------

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        """Guest, snapshots and files are what the model says, and nothing is left over."""
        seen = self.look()
        assert seen == self.world
        images = {str(path) for path in self.directory.iterdir() if path.is_file()}
        known = {str(self.config.disk(vdev).target) for vdev in FORMATS}  # type: ignore[union-attr]
        with contextlib.suppress(UnknownDomainError):
            known |= {overlay.path for overlay in Toolstack(self.root, host=self.host).resolve("d").overlays}
        assert images == known
        snapshots = self.root.domain(UUID).snapshots
        files = {path.name for path in snapshots.iterdir()} if snapshots.is_dir() else set()
        expected = {f"snapshotdata-d.{name}.libxl-json" for name in self.world.taken}
        expected |= {f"{name}.save" for name, taken in self.world.taken.items() if taken.memory is not None}
        assert files == expected


async def _recover(toolstack: Toolstack) -> None:
    """Let the next command on the domain come; deletion finishes what a merge left."""
    async with toolstack.operating(toolstack.resolve("d").uuid):
        pass


class WithoutDeath(Machine):
    """The same, with nobody dying: also every image that is not needed is gone, or merged."""

    deaths = False

    @invariant()
    def no_image_is_without_use(self) -> None:
        """No overlay is left that nobody reads from."""
        with contextlib.suppress(UnknownDomainError):
            toolstack = Toolstack(self.root, host=self.host)
            record = toolstack.resolve("d")
            if not self.world.taken:
                present = {disk.target for disk in record.config.disks}
                # What is left can only be a copy that the domain was reverted to: it lies over nothing.
                assert all(item.path in present and not item.backing for item in record.overlays)


_DEEP = int(os.environ.get("XLSNAP_DEEP", "1"))
"""How many times as many examples are tried as in a quick run."""

_QUICK = settings(
    max_examples=25 * _DEEP,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
TestWithoutDeath = WithoutDeath.TestCase
TestWithoutDeath.settings = _QUICK
TestWithDeath = Machine.TestCase
TestWithDeath.settings = settings(_QUICK, max_examples=60 * _DEEP)


# --- it can fail ------------------------------------------------------------------------------------------


def _never(*args: Any, **kwargs: Any) -> bool:
    return False


async def _nothing(*args: Any) -> None:
    return None


def _without_effect(kind: type[do.Step]) -> Callable[[pytest.MonkeyPatch], None]:
    performers: dict[Any, Any] = performing.PERFORM
    return lambda patch: patch.setitem(performers, kind, _nothing)


def _metadata_first(original: Callable[..., Plan]) -> Callable[..., Plan]:
    def plan_create(*args: Any, **kwargs: Any) -> Plan:
        plan = original(*args, **kwargs)
        steps = sorted(plan.steps, key=lambda step: not isinstance(step.do, do.WriteMetadata))
        return msgspec.structs.replace(plan, steps=tuple(steps))

    return plan_create


def _merge_all(self: Images) -> Iterator[Merge]:
    """Merge wherever one image lies over another, whoever needs the lower one."""
    for path, overlay in self.overlays.items():
        if overlay.backing is not None and path in self.in_use:
            top = DiskImage(self.in_use[path], path, "qcow2")
            base = DiskImage(top.vdev, overlay.backing, overlay.backing_format or "qcow2")
            yield Merge(top, base, path in self.present)


BROKEN: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "an internal snapshot is applied in an image that others need": lambda patch: patch.setattr(
        Images, "is_frozen", _never
    ),
    "an image that a snapshot needs is merged away": lambda patch: patch.setattr(
        Images, "merges", _merge_all
    ),
    "the other branch keeps its old backing file": _without_effect(do.LayOver),
    "the domain goes on with the image that was merged away": _without_effect(do.UpdateDomain),
    "what was interrupted is not recovered": lambda patch: patch.setattr(Executor, "recover", _nothing),
    "overlays of a failed snapshot stay": _without_effect(do.TakeBackDiskSnapshots),
    "metadata is written first": lambda patch: patch.setattr(
        planning, "plan_create", _metadata_first(planning.plan_create)
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_toolstack_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BROKEN[name](monkeypatch)
    with pytest.raises((AssertionError, XlsnapError, FlakyFailure, ExceptionGroup)):
        run_state_machine_as_test(
            Machine, settings=settings(_QUICK, max_examples=1000, derandomize=True, database=None)
        )
