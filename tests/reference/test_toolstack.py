# SPDX-License-Identifier: LGPL-2.1-or-later
"""The toolstack on real guests, through its Python API."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from xlsnap import steps as do
from xlsnap.domain import DomainConfig, RunState
from xlsnap.errors import (
    DomainStateError,
    HostError,
    InputError,
    MemoryPathError,
    NameTakenError,
    QemuDiedError,
    SnapshotDamagedError,
    UnknownDomainError,
    XlsnapError,
)
from xlsnap.executor import Executor
from xlsnap.layout import StateRoot
from xlsnap.qemu import background
from xlsnap.qemu.process import ProcessPaths, living_pid
from xlsnap.request import SnapshotRequest
from xlsnap.savefile import HEADER_BYTES
from xlsnap.snapshot import DomainSnapshot
from xlsnap.toolstack import Toolstack
from xlsnap_conformance import guest
from xlsnap_grammars import DiskSpec, SnapshotDisk

T = TypeVar("T")


def tags(image: str) -> list[str]:
    """Return the names of the internal snapshots in an image, as qemu-img sees them."""
    output = subprocess.run(
        ["qemu-img", "info", "-U", "-f", "qcow2", "--output=json", image], check=True, capture_output=True
    )
    return [item["name"] for item in json.loads(output.stdout).get("snapshots", [])]


class Lab:
    """A toolstack with one domain `d1` of two disks, driven step by step."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = StateRoot.at(directory / "root")
        self.runner = asyncio.Runner()
        self.toolstack = Toolstack(self.root, accelerator="tcg", lock_timeout=1)
        self.images = {vdev: str(directory / f"{vdev}.qcow2") for vdev in ("hda", "hdb")}
        for image in self.images.values():
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], check=True)
        self.config = DomainConfig(
            name="d1",
            memory_mib=1,
            bios=str(guest.image("rom")),
            disks=tuple(
                DiskSpec(target=image, format="qcow2", vdev=vdev, readwrite=True)
                for vdev, image in self.images.items()
            ),
        )

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def probe(self) -> guest.Probe:
        return guest.Probe(self.toolstack.console_path("d1"))

    def write(self, word: str) -> None:
        """Make a state that can be told from others: in memory and on both disks."""
        with self.probe() as probe:
            probe.set("word", word)
            probe.write(0, 1, word)
            probe.write(1, 1, word)

    def read(self) -> tuple[str | None, str | None, str | None]:
        with self.probe() as probe:
            return probe.get("word"), probe.read(0, 1), probe.read(1, 1)

    def create(self, name: str, **fields: Any) -> DomainSnapshot:
        return self.run(self.toolstack.snapshot_create("d1", SnapshotRequest(name=name, **fields)))

    def revert(self, name: str, **options: Any) -> None:
        self.run(self.toolstack.snapshot_revert("d1", name, **options))

    def delete(self, name: str) -> None:
        self.run(self.toolstack.snapshot_delete("d1", name))

    def names(self) -> list[str]:
        return [snapshot.name for snapshot in self.toolstack.snapshot_list("d1")]

    def state(self) -> RunState | None:
        (info,) = self.run(self.toolstack.domains("d1"))
        return info.run_state

    def files(self) -> set[str]:
        """Return all files under the snapshot directory and beside the images."""
        found = self.directory.rglob("*")
        return {str(path) for path in found if path.is_file() and "domains" not in path.parts}

    def everything(self) -> tuple[object, ...]:
        """Return all that an operation without effect must leave as it was."""
        return (
            *(self.files(), self.names(), self.state()),
            *(tags(image) for image in self.images.values()),
        )

    def qemu_pid(self) -> int:
        record = self.toolstack.resolve("d1")
        paths = ProcessPaths(self.root.domain(record.uuid).directory / f"process-{record.process}")
        pid = living_pid(paths)
        assert pid is not None
        return pid

    def close(self) -> None:
        for path in self.root.domains.glob("*/process-*"):
            pid = living_pid(ProcessPaths(path))
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
        self.run(self.toolstack.close())
        self.runner.close()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    try:
        lab.run(lab.toolstack.create(lab.config))
        yield lab
    finally:
        lab.close()


# --- create, revert, delete -----------------------------------------------------------------------------


def test_revert_brings_back_memory_and_disks_any_number_of_times(lab: Lab) -> None:
    lab.write("one")
    lab.create("s1")
    lab.write("two")
    lab.create("s2")
    lab.write("three")
    for name, word in (("s1", "one"), ("s2", "two"), ("s1", "one"), ("s1", "one")):
        lab.revert(name)
        assert lab.read() == (word, word, word)
        assert lab.state() is RunState.RUNNING
        lab.write("lost")
    assert lab.names() == ["s1", "s2"]


def test_the_guest_goes_on_undisturbed_after_create(lab: Lab) -> None:
    with lab.probe() as probe:
        probe.set("word", "kept")
        before = probe.tick()
        lab.create("s1")
        assert probe.get("word") == "kept"  # on the same connection: the same process
        assert probe.tick() > before


@pytest.mark.parametrize("paused", [False, True])
def test_delete_leaves_nothing_and_disturbs_nobody(lab: Lab, paused: bool) -> None:
    before = lab.files()
    lab.write("one")
    lab.create("s1")
    lab.create("s2")
    lab.write("now")
    if paused:
        lab.run(lab.toolstack.pause("d1"))
    lab.delete("s1")
    assert lab.state() is (RunState.PAUSED if paused else RunState.RUNNING)
    assert lab.names() == ["s2"]
    assert tags(lab.images["hda"]) == tags(lab.images["hdb"]) == ["s2"]
    lab.delete("s2")
    assert lab.files() == before
    if paused:
        lab.run(lab.toolstack.unpause("d1"))
    assert lab.read() == ("now", "now", "now")


def test_a_paused_domain_stays_paused_and_can_be_snapshotted_again(lab: Lab) -> None:
    lab.write("one")
    lab.run(lab.toolstack.pause("d1"))
    (before,) = lab.run(lab.toolstack.domains("d1"))
    assert lab.create("s1").paused
    assert lab.create("s2").paused
    lab.delete("s1")
    (after,) = lab.run(lab.toolstack.domains("d1"))
    assert (after.run_state, after.domid) == (RunState.PAUSED, before.domid)
    lab.run(lab.toolstack.unpause("d1"))
    assert lab.read() == ("one", "one", "one")
    lab.write("two")
    lab.revert("s2")
    assert lab.state() is RunState.PAUSED
    lab.run(lab.toolstack.unpause("d1"))
    assert lab.read() == ("one", "one", "one")


def test_revert_can_leave_the_domain_paused(lab: Lab) -> None:
    lab.write("one")
    lab.create("s1")
    lab.revert("s1", paused=True)
    assert lab.state() is RunState.PAUSED
    lab.create("s2")  # the disks are its own although it has not run
    lab.run(lab.toolstack.unpause("d1"))
    assert lab.read() == ("one", "one", "one")


def test_a_disk_only_snapshot_reverts_by_a_power_cycle(lab: Lab) -> None:
    lab.write("one")
    assert lab.create("s1", memory=False).disk_only
    lab.write("two")
    lab.revert("s1")
    assert lab.read() == (None, "one", "one")
    lab.revert("s1", paused=True)
    assert lab.state() is RunState.PAUSED


def test_disks_that_were_not_chosen_stay_as_they_are(lab: Lab) -> None:
    lab.write("one")
    only_a = (SnapshotDisk(vdev="hda", type="internal", target=None, format=None),)
    lab.create("s1", disks=only_a)
    assert tags(lab.images["hdb"]) == []
    lab.write("two")
    lab.revert("s1")
    assert lab.read() == ("one", "one", "two")


def test_a_stopped_domain_lists_reverts_and_deletes(lab: Lab) -> None:
    lab.write("one")
    lab.create("s1")
    lab.create("s2")
    uuid = lab.toolstack.resolve("d1").uuid
    lab.run(lab.toolstack.destroy("d1"))
    assert lab.state() is None
    assert [snapshot.name for snapshot in lab.toolstack.snapshot_list(uuid)] == ["s1", "s2"]
    lab.delete("s2")
    assert tags(lab.images["hda"]) == tags(lab.images["hdb"]) == ["s1"]
    lab.revert("s1")
    assert lab.read() == ("one", "one", "one")
    lab.run(lab.toolstack.destroy("d1"))
    lab.delete("s1")
    with pytest.raises(UnknownDomainError):
        lab.toolstack.resolve("d1")
    assert not list(lab.root.domains.iterdir())


def test_the_same_name_without_uuid_continues_a_stopped_domain(lab: Lab) -> None:
    lab.create("s1")
    uuid = lab.toolstack.resolve("d1").uuid
    lab.run(lab.toolstack.destroy("d1"))
    lab.run(lab.toolstack.create(lab.config))
    assert lab.toolstack.resolve("d1").uuid == uuid
    assert lab.names() == ["s1"]
    other = msgspec.structs.replace(lab.config, uuid="00000000-0000-4000-8000-000000000009")
    with pytest.raises(NameTakenError):
        lab.run(lab.toolstack.create(other))


def test_a_number_is_a_name_never_an_id(lab: Lab) -> None:
    """QEMU numbers the first snapshot 1; its tools take "1" for that id before they look for names."""
    lab.write("first")
    lab.create("2")
    lab.write("second")
    lab.create("1")
    lab.write("third")
    lab.revert("1")
    assert lab.read() == ("second", "second", "second")
    lab.run(lab.toolstack.destroy("d1"))
    lab.delete("1")
    lab.revert("2")
    assert lab.read() == ("first", "first", "first")


# --- refusals -------------------------------------------------------------------------------------------

Act = Callable[[Lab], object]


def shut_down(lab: Lab) -> None:
    """Let the guest power off in a domain that is preserved then."""
    lab.run(lab.toolstack.destroy("d1"))
    lab.config = msgspec.structs.replace(lab.config, on_poweroff="preserve")
    lab.run(lab.toolstack.create(lab.config))
    with lab.probe() as probe:  # hanging up at once would lose the request, which arrives byte by byte
        probe.power_off()
        for _ in range(500):
            if lab.state() is RunState.SHUTDOWN:
                return
            lab.run(asyncio.sleep(0.01))
    pytest.fail("the guest did not power off")


def test_a_domain_that_has_shut_down_is_refused(lab: Lab) -> None:
    shut_down(lab)
    before = lab.everything()
    with pytest.raises(DomainStateError, match="is shutdown"):
        lab.create("s1")
    assert lab.everything() == before


def test_a_stopped_domain_cannot_be_snapshotted(lab: Lab) -> None:
    lab.create("s0")
    lab.run(lab.toolstack.destroy("d1"))
    before = lab.everything()
    with pytest.raises(DomainStateError, match="is not running"):
        lab.create("s1")
    assert lab.everything() == before


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda lab: lab.create("s1"), NameTakenError),
        (lambda lab: lab.create("a/b"), InputError),
        (lambda lab: lab.create("x", memory_path=str(lab.directory / "precious")), MemoryPathError),
        (lambda lab: lab.create("x", memory_path="relative"), MemoryPathError),
        (lambda lab: lab.create("x", memory_path="/no/such/directory/x"), MemoryPathError),
        (lambda lab: lab.revert("x"), InputError),
        (lambda lab: lab.delete("x"), InputError),
        (lambda lab: lab.delete("1"), InputError),
        (lambda lab: lab.run(lab.toolstack.snapshot_revert("d9", "s1")), UnknownDomainError),
        (lambda lab: lab.run(lab.toolstack.create(lab.config)), NameTakenError),
    ],
)
def test_bad_requests_change_nothing(lab: Lab, act: Act, error: type[XlsnapError]) -> None:
    precious = lab.directory / "precious"
    precious.write_text("precious")
    lab.write("one")
    lab.create("s1")
    lab.write("two")
    before = lab.everything()
    with pytest.raises(error):
        act(lab)
    assert lab.everything() == before
    assert lab.read() == ("two", "two", "two")
    assert precious.read_text() == "precious"


def test_a_tag_of_somebody_else_is_neither_used_nor_deleted(lab: Lab) -> None:
    lab.run(lab.toolstack.destroy("d1"))
    subprocess.run(["qemu-img", "snapshot", "-c", "foreign", lab.images["hdb"]], check=True)
    lab.run(lab.toolstack.create(lab.config))
    before = lab.everything()
    with pytest.raises(NameTakenError, match="not ours"):
        lab.create("foreign")
    assert lab.everything() == before
    lab.write("alive")


def spoil_memory(lab: Lab, snapshot: DomainSnapshot) -> None:
    assert snapshot.memory is not None
    os.truncate(snapshot.memory, os.stat(snapshot.memory).st_size - 1000)


def garble_memory(lab: Lab, snapshot: DomainSnapshot) -> None:
    assert snapshot.memory is not None
    with open(snapshot.memory, "r+b") as file:
        file.seek(65536)
        file.write(b"\xff" * 64)


def remove_memory(lab: Lab, snapshot: DomainSnapshot) -> None:
    assert snapshot.memory is not None
    os.unlink(snapshot.memory)


def remove_tag(lab: Lab, snapshot: DomainSnapshot) -> None:
    lab.run(lab.toolstack.destroy("d1"))
    subprocess.run(["qemu-img", "snapshot", "-d", "s1", lab.images["hdb"]], check=True)
    lab.run(lab.toolstack.create(lab.config))
    lab.write("two")


@pytest.mark.parametrize("spoil", [spoil_memory, garble_memory, remove_memory, remove_tag])
def test_a_damaged_snapshot_is_refused_before_the_domain_is_touched(
    lab: Lab, spoil: Callable[[Lab, DomainSnapshot], None]
) -> None:
    lab.write("one")
    snapshot = lab.create("s1")
    lab.write("two")
    spoil(lab, snapshot)
    pid, before = lab.qemu_pid(), lab.everything()
    with pytest.raises(SnapshotDamagedError):
        lab.revert("s1")
    assert lab.qemu_pid() == pid
    assert lab.everything() == before
    assert lab.read() == ("two", "two", "two")
    lab.delete("s1")  # a damaged snapshot can be got rid of
    assert tags(lab.images["hda"]) == tags(lab.images["hdb"]) == []


# --- failures in the middle -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "when", "paused"),
    [
        (index, ("before", "after")[index % 2 ^ paused], paused)
        for index in range(6)
        for paused in (False, True)
    ],
)
def test_create_leaves_nothing_when_qemu_dies(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, index: int, when: str, paused: bool
) -> None:
    lab.write("one")
    lab.create("s0")
    if paused:
        lab.run(lab.toolstack.pause("d1"))
    files = lab.files()
    count = 0
    perform = Executor.perform

    async def deadly(self: Executor, step: do.AnyStep) -> None:
        nonlocal count
        now = count == index and not isinstance(step, do.StopDomain)
        count += 1
        if now and when == "before":
            os.kill(lab.qemu_pid(), signal.SIGKILL)
        await perform(self, step)
        if now and when == "after":
            os.kill(lab.qemu_pid(), signal.SIGKILL)

    monkeypatch.setattr(Executor, "perform", deadly)
    outcome: str | Exception = "done"
    try:
        lab.create("s1")
    except XlsnapError as error:
        outcome = error
    monkeypatch.undo()
    if isinstance(outcome, QemuDiedError | HostError):
        assert lab.names() == ["s0"]
        assert lab.files() == files
        assert tags(lab.images["hda"]) == tags(lab.images["hdb"]) == ["s0"]
    else:  # QEMU died when it was no longer needed: the snapshot is complete
        assert outcome == "done"
        assert lab.names() == ["s0", "s1"]
        lab.revert("s1")
        lab.run(lab.toolstack.unpause("d1"))
        assert lab.read() == ("one", "one", "one")
    lab.revert("s0")
    assert lab.read() == ("one", "one", "one")


def test_an_interrupted_create_is_undone_by_the_next_command(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the toolstack had been killed after the memory was written."""
    lab.write("one")
    before = lab.everything()
    perform = Executor.perform

    async def dying(self: Executor, step: do.AnyStep) -> None:
        await perform(self, step)
        if isinstance(step, do.SaveMemory):
            raise SystemExit

    async def no_undo(self: Executor, *args: object) -> bool:
        return False

    monkeypatch.setattr(Executor, "perform", dying)
    monkeypatch.setattr(Executor, "_undo", no_undo)
    with pytest.raises(SystemExit):
        lab.create("s1")
    monkeypatch.undo()
    assert lab.names() == []
    with pytest.raises(InputError, match="no snapshot 'x'"):
        lab.delete("x")
    assert lab.everything() == before
    assert lab.read() == ("one", "one", "one")


@pytest.mark.skipif(background.live_problem() is not None, reason=str(background.live_problem()))
@pytest.mark.parametrize("space", [True, False], ids=["", "no space for all of the memory"])
def test_a_snapshot_is_the_same_where_it_is_taken_live_to_save_time(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, space: bool
) -> None:
    files = lab.files()
    taken: list[do.AnyStep] = []
    perform = Executor.perform

    async def noting(self: Executor, step: do.AnyStep) -> None:
        taken.append(step)
        await perform(self, step)

    monkeypatch.setattr(background, "is_quicker", lambda images, memory_mib: True)
    if not space:
        monkeypatch.setattr(background, "_STREAM_OVERHEAD", (1 << 63) - 1 - (1 << 20) - (1 << 12))
    lab.write("one")
    with monkeypatch.context() as patch:
        patch.setattr(Executor, "perform", noting)
        lab.create("s1", type="external")
    assert [step.live for step in taken if isinstance(step, do.SaveMemory)] == [space]
    assert any(isinstance(step, do.PrepareLive) for step in taken)
    assert lab.state() is RunState.RUNNING
    assert lab.names() == ["s1"]
    lab.write("two")
    lab.revert("s1")
    assert lab.read() == ("one", "one", "one")
    assert lab.state() is RunState.RUNNING
    lab.delete("s1")
    assert lab.files() == files


def test_memory_is_protected_page_by_page_only_where_opening_images_takes_longer() -> None:
    assert not background.is_quicker(images=2, memory_mib=1)
    assert background.is_quicker(images=200, memory_mib=1)
    assert not background.is_quicker(images=200, memory_mib=512)


def test_a_create_that_is_cancelled_while_memory_is_written_leaves_the_guest_running(lab: Lab) -> None:
    """QEMU's migration, slowed down here, must not stop the guest when the create has been undone."""
    lab.write("one")
    before = lab.everything()
    memory = lab.directory / "memory"

    async def ask(command: str, **arguments: Any) -> Any:
        host: Any = lab.toolstack.host
        async with lab.toolstack.operating(lab.toolstack.resolve("d1").uuid) as run:
            return await (await host._monitor(run.record)).execute(command, arguments)

    async def cancelled() -> None:
        await ask("migrate-set-parameters", **{"max-bandwidth": 64 << 10})
        request = SnapshotRequest(name="s1", memory_path=str(memory))
        task = asyncio.create_task(lab.toolstack.snapshot_create("d1", request))
        while not memory.exists() or memory.stat().st_size <= HEADER_BYTES:
            assert not task.done(), "it was too quick to be cancelled"
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    lab.run(cancelled())
    assert lab.everything() == before
    assert lab.state() is RunState.RUNNING
    while lab.run(ask("query-migrate")).get("status") in ("setup", "active", "device", "cancelling"):
        lab.run(asyncio.sleep(0.05))
    assert lab.state() is RunState.RUNNING
    assert lab.read() == ("one", "one", "one")


# --- save, restore, several programs --------------------------------------------------------------------


def test_save_and_restore(lab: Lab) -> None:
    lab.write("one")
    path = str(lab.directory / "d1.save")
    lab.run(lab.toolstack.save("d1", path, leave="running"))
    with pytest.raises(MemoryPathError, match="exists already"):
        lab.run(lab.toolstack.save("d1", path))
    os.unlink(path)
    lab.run(lab.toolstack.save("d1", path, leave="paused"))
    assert lab.state() is RunState.PAUSED
    lab.run(lab.toolstack.unpause("d1"))
    os.unlink(path)
    lab.create("keep")
    lab.run(lab.toolstack.save("d1", path))
    assert lab.state() is None
    lab.run(lab.toolstack.restore(path))
    assert lab.read() == ("one", "one", "one")
    with pytest.raises(NameTakenError):
        lab.run(lab.toolstack.restore(path))
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_what_is_no_save_file_is_the_users_mistake(lab: Lab) -> None:
    path = lab.directory / "other"
    path.write_text("something else")
    with pytest.raises(InputError, match="is not a save file"):
        lab.run(lab.toolstack.restore(str(path)))


def test_two_toolstacks_can_use_one_domain(lab: Lab) -> None:
    keeping = Toolstack(lab.root, accelerator="tcg", keep_connections=True)
    try:
        lab.run(keeping.snapshot_create("d1", SnapshotRequest(name="s1")))
        lab.create("s2")  # while the other stays connected
        lab.run(keeping.snapshot_revert("d1", "s1"))
        lab.delete("s2")
        lab.run(keeping.snapshot_delete("d1", "s1"))
        assert lab.names() == []
    finally:
        lab.run(keeping.close())


def test_the_example_of_the_readme(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[2] / "reference" / "README.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    monkeypatch.setenv("XLSNAP_ROOT", str(lab.root.path))
    lab.run(lab.toolstack.destroy("d1"))
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    lab.run(namespace["main"](lab.config))
    assert capsys.readouterr().out == "['before']\n"
    assert lab.files() == {path for path in lab.files() if "snapshots" not in path}
