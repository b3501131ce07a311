# SPDX-License-Identifier: LGPL-2.1-or-later
"""The toolstack's own files: metadata, records, locks, save files, journal."""

import multiprocessing
import os
import stat
from pathlib import Path

import msgspec
import pytest
from xlsnap import journal as journals
from xlsnap import savefile
from xlsnap import steps as do
from xlsnap.domain import DomainConfig, DomainRecord
from xlsnap.errors import (
    BadNameError,
    BusyError,
    HostError,
    InternalError,
    SnapshotDamagedError,
    UnknownDomainError,
)
from xlsnap.journal import Interrupted, Journal
from xlsnap.layout import StateRoot
from xlsnap.savefile import memory_image_problem, remove_memory_image
from xlsnap.snapshot import DomainSnapshot, to_json
from xlsnap.steps import Plan, PlannedStep
from xlsnap.store import Store, new_file_problem, write_durably

UUID = "00000000-0000-4000-8000-000000000001"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(StateRoot.at(tmp_path / "root"))


def write(store: Store, snapshot: DomainSnapshot) -> None:
    store.write_metadata(store.root.domain(UUID), snapshot.name, to_json(snapshot))


def record(name: str = "d1", uuid: str = UUID, domid: int | None = None) -> DomainRecord:
    return DomainRecord(uuid=uuid, name=name, config=DomainConfig(name=name, uuid=uuid), domid=domid)


def test_snapshots_are_listed_by_creation_time(store: Store) -> None:
    for name, when in (("late", 30), ("early", 10), ("1", 20)):
        write(store, DomainSnapshot(name=name, creation_time=when))
    assert [snapshot.name for snapshot in store.list_snapshots(UUID)] == ["early", "1", "late"]
    assert set(store.snapshots(UUID)) == {"early", "1", "late"}


def test_files_are_private(store: Store) -> None:
    write(store, DomainSnapshot(name="s"))
    store.write_record(record())
    modes = {}
    for directory, _, files in os.walk(store.root.path):
        modes[directory] = stat.S_IMODE(os.stat(directory).st_mode)
        modes |= {name: stat.S_IMODE(os.stat(Path(directory, name)).st_mode) for name in files}
    assert {mode for name, mode in modes.items() if os.path.isdir(name)} == {0o700}
    assert {mode for name, mode in modes.items() if not os.path.isdir(name)} == {0o600}


def test_a_hidden_snapshot_is_not_listed_and_can_come_back(store: Store) -> None:
    write(store, DomainSnapshot(name="s"))
    paths = store.root.domain(UUID)
    for _ in range(2):
        store.hide_metadata(paths, "s")
        assert not store.snapshots(UUID)
        assert store.hidden_names(UUID) == ["s"]
    for _ in range(2):
        store.show_metadata(paths, "s")
        assert list(store.snapshots(UUID)) == ["s"]
    for _ in range(2):
        store.forget_metadata(paths, "s")
    assert os.listdir(paths.snapshots) == []


def test_metadata_under_another_name_is_damage(store: Store) -> None:
    write(store, DomainSnapshot(name="s"))
    paths = store.root.domain(UUID)
    os.rename(paths.metadata("s"), paths.metadata("t"))
    with pytest.raises(SnapshotDamagedError, match="describes snapshot 's'"):
        store.list_snapshots(UUID)


def test_damage_of_one_snapshot_does_not_hide_another(store: Store) -> None:
    write(store, DomainSnapshot(name="good"))
    write(store, DomainSnapshot(name="bad"))
    store.root.domain(UUID).metadata("bad").write_text("{")
    assert store.snapshots(UUID)["good"].name == "good"
    assert "bad" in store.snapshots(UUID)
    with pytest.raises(SnapshotDamagedError):
        store.snapshots(UUID)["bad"]


@pytest.mark.parametrize(
    ("filename", "content"),
    [
        ("snapshotdata-d.bad.libxl-json", b"{"),
        ("snapshotdata-d.bad.libxl-json", b""),
        ("snapshotdata-d.bad.libxl-json", b'{"name": "\xff"}'),
        ("snapshotdata-d.bad.libxl-json", b'{"a":' * 5000 + b"1" + b"}" * 5000),
        ("snapshotdata-d.bad.libxl-json", b'{"name": "good"}'),
        ("snapshotdata-d..libxl-json", b'{"name": ""}'),
        (b"snapshotdata-d.\xff.libxl-json", b"{}"),
        ("snapshotdata-d.bad.libxl-json", None),
    ],
    ids=["cut", "empty", "not-utf-8", "deep", "other-name", "no-name", "odd-name", "directory"],
)
def test_no_damage_hides_another_snapshot(store: Store, filename: str | bytes, content: bytes | None) -> None:
    write(store, DomainSnapshot(name="good"))
    path = Path(store.root.domain(UUID).snapshots / os.fsdecode(filename))
    path.mkdir() if content is None else path.write_bytes(content)
    listing = store.listing(UUID)
    assert [snapshot.name for snapshot in listing.snapshots] == ["good"]
    (damaged,) = listing.damaged
    assert path.name == f"snapshotdata-d.{damaged.name}.libxl-json"
    assert "\n" not in str(damaged.error)
    with pytest.raises(type(damaged.error)):
        store.list_snapshots(UUID)


def test_hidden_snapshots_are_listed_apart(store: Store) -> None:
    paths = store.root.domain(UUID)
    write(store, DomainSnapshot(name="s"))
    write(store, DomainSnapshot(name="t"))
    store.hide_metadata(paths, "t")
    paths.hidden_metadata("u").write_bytes(b"{")
    listing = store.listing(UUID, hidden=True)
    assert [snapshot.name for snapshot in listing.snapshots] == ["t"]
    assert [damaged.name for damaged in listing.damaged] == ["u"]
    assert [snapshot.name for snapshot in store.list_snapshots(UUID)] == ["s"]


def test_what_finds_a_domain_tells_its_current_snapshot(store: Store) -> None:
    store.write_record(msgspec.structs.replace(record(domid=1), current="s"))
    assert store.find_key("d1").current == store.find_key("1").current == "s"


def test_names_never_become_paths_unchecked(store: Store) -> None:
    paths = store.root.domain(UUID)
    for method in (paths.metadata, paths.hidden_metadata, paths.memory_image):
        with pytest.raises(BadNameError):
            method("../../etc/passwd")


def test_a_domain_is_found_by_name_before_id_before_uuid(store: Store) -> None:
    other = "00000000-0000-4000-8000-000000000002"
    store.write_record(record("d1", UUID, 7))
    store.write_record(record("7", other, 3))
    assert store.resolve("7").uuid == other
    assert store.resolve("3").uuid == other
    assert store.resolve("d1").uuid == UUID
    assert store.resolve(UUID.upper()).uuid == UUID
    with pytest.raises(UnknownDomainError):
        store.resolve("8")


def test_ids_are_never_used_twice(store: Store) -> None:
    store.root.path.mkdir()
    assert [store.allocate_domid() for _ in range(3)] == [1, 2, 3]
    assert {stat.S_IMODE(path.stat().st_mode) for path in store.root.path.iterdir()} == {0o600}


def test_an_id_that_cannot_be_noted_is_not_given(store: Store) -> None:
    store.root.path.mkdir()
    (store.root.path / "next-domid").mkdir()
    with pytest.raises(HostError, match=r"cannot write .*next-domid: Is a directory"):
        store.allocate_domid()


def test_a_failing_write_leaves_the_old_content_and_nothing_else(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    target = tmp_path / "file"
    write_durably(target, b"old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HostError, match=r"No space left on device \(free some space\)"):
        write_durably(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


# --- locks ----------------------------------------------------------------------------------------------


def hold(path: str, ready, release) -> None:  # type: ignore[no-untyped-def]
    with Store(StateRoot.at(Path(path).parent)).locked(Path(path), what="x", timeout=5):
        ready.set()
        release.wait(20)


def test_a_lock_that_is_held_is_waited_for_and_then_refused(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    lock = store.root.path / "lock"
    holder = context.Process(target=hold, args=(str(lock), ready, release))
    holder.start()
    try:
        assert ready.wait(20)
        with (
            pytest.raises(BusyError, match="domain 'd1' is busy"),
            store.locked(lock, what="domain 'd1'", timeout=0.1),
        ):
            pass
        release.set()
        with store.locked(lock, what="domain 'd1'", timeout=20):
            pass
    finally:
        release.set()
        holder.join(20)
        holder.kill()


def test_a_lock_of_a_dead_process_is_free(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    lock = store.root.path / "lock"
    holder = context.Process(target=hold, args=(str(lock), ready, release))
    holder.start()
    assert ready.wait(20)
    holder.kill()
    holder.join(20)
    with store.locked(lock, what="x", timeout=1):
        pass


# --- save files -----------------------------------------------------------------------------------------


def save_file(path: Path, *, stream: bytes = b"QEVM", complete: bool = True, uuid: str = UUID) -> Path:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    savefile.write_header(fd, savefile.SaveHeader(uuid, DomainConfig(name="d1"), "tcg"))
    os.write(fd, stream)
    if complete:
        savefile.mark_complete(fd)
    os.close(fd)
    return path


def test_a_save_file_gives_back_what_was_saved_and_where_the_stream_begins(tmp_path: Path) -> None:
    path = save_file(tmp_path / "x", stream=b"QEVM stream")
    with open(path, "rb", buffering=0) as file:
        header = savefile.read_header(file.fileno(), where="x")
        assert header == savefile.SaveHeader(UUID, DomainConfig(name="d1"), "tcg")
        assert file.read() == b"QEVM stream"
    assert memory_image_problem(str(path), UUID) is None


def test_what_is_wrong_with_a_memory_image(tmp_path: Path) -> None:
    incomplete = save_file(tmp_path / "incomplete", complete=False)
    assert "not complete" in str(memory_image_problem(str(incomplete), UUID))
    cut = save_file(tmp_path / "cut", stream=b"QEVM" * 10)
    os.truncate(cut, cut.stat().st_size - 1)
    assert "is cut" in str(memory_image_problem(str(cut), UUID))
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"something else")
    assert "not a save file" in str(memory_image_problem(str(foreign), UUID))
    empty = tmp_path / "empty"
    empty.touch()
    assert "not a save file" in str(memory_image_problem(str(empty), UUID))
    other = save_file(tmp_path / "other", uuid="other")
    assert "belongs to the domain with uuid other" in str(memory_image_problem(str(other), UUID))
    assert "No such file" in str(memory_image_problem(str(tmp_path / "none"), UUID))
    garbled = save_file(tmp_path / "garbled")
    with open(garbled, "r+b") as file:
        file.seek(30)
        file.write(b"\xff\xff\xff")
    assert "damaged header" in str(memory_image_problem(str(garbled), UUID))


def test_only_our_own_memory_images_are_removed(store: Store, tmp_path: Path) -> None:
    paths = store.root.domain(UUID)
    ours = save_file(tmp_path / "ours")
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"precious")
    link = tmp_path / "link"
    link.symlink_to(ours)
    remove_memory_image(str(link), paths)
    assert ours.exists()
    for path in (ours, foreign, tmp_path / "none"):
        remove_memory_image(str(path), paths)
    assert not ours.exists()
    assert foreign.exists()


def test_where_a_new_file_can_be_made(tmp_path: Path) -> None:
    assert new_file_problem(str(tmp_path / "new")) is None
    assert new_file_problem("relative") == "not an absolute path"
    assert "is not a directory" in str(new_file_problem(str(tmp_path / "none" / "new")))
    (tmp_path / "dangling").symlink_to("nowhere")
    assert new_file_problem(str(tmp_path / "dangling")) == "exists already"


# --- journal --------------------------------------------------------------------------------------------

PLAN = Plan(operation="create", snapshot="s", steps=(PlannedStep(do.PauseDomain(), do.ResumeDomain()),) * 3)


def test_the_journal_tells_what_was_interrupted(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.json")
    assert journal.interrupted() is None
    journal.open(PLAN)
    found = Journal(tmp_path / "journal.json").interrupted()
    assert found is not None
    assert (found.plan, found.begun) == (PLAN, 0)
    journal.begin(0)
    journal.begin(1)
    found = Journal(tmp_path / "journal.json").interrupted()
    assert found is not None
    assert found.begun == 2
    journal.close()
    assert journal.interrupted() is None


def test_a_journal_that_is_cut_or_empty_tells_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.json"
    journal = Journal(path)
    journal.open(PLAN)
    whole = path.read_bytes().rstrip(b"\0")
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert Journal(path).interrupted() is None
    journal.close()


def test_a_journal_that_was_overwritten_in_part_tells_of_nothing(tmp_path: Path) -> None:
    """Whatever part of it has reached the disk."""
    path = tmp_path / "journal.json"
    journal = Journal(path)
    journal.open(msgspec.structs.replace(PLAN, snapshot="another", steps=PLAN.steps * 2))
    journal.begin(4)
    journal.close()
    before = path.read_bytes()
    journal.open(PLAN)
    journal.close(keep=True)
    after = path.read_bytes()
    assert len(after) == len(before)
    found = journal.interrupted()
    assert found is not None
    assert (found.plan, found.begun) == (PLAN, 0)
    for cut in range(len(after.rstrip(b"\0"))):
        for mixed in (after[:cut] + before[cut:], before[:cut] + after[cut:]):
            path.write_bytes(mixed)
            assert journal.interrupted() == (found if mixed == after else None)


def test_a_plan_of_any_length_fits_into_the_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.json")
    for count in (3, 5000, 3):
        plan = msgspec.structs.replace(PLAN, steps=PLAN.steps[:1] * count)
        journal.open(plan)
        journal.begin(count - 1)
        assert journal.interrupted() == Interrupted(plan, count)
        journal.close()
        assert journal.interrupted() is None


def test_where_there_is_no_space_nothing_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even though the journal itself needs none."""
    journal = Journal(tmp_path / "journal.json")
    journal.open(PLAN)
    journal.close()
    fields = list(os.statvfs(tmp_path))
    fields[3] = fields[4] = 0  # f_bfree, f_bavail
    full = os.statvfs_result(fields)
    monkeypatch.setattr(os, "fstatvfs", lambda fd: full)
    with pytest.raises(HostError, match="No space left on device"):
        journal.open(PLAN)
    assert journal.interrupted() is None


@pytest.mark.parametrize("content", [b"x" * 100, b'{"plan": {}}\n' * 10])
def test_what_is_no_journal_is_no_trace_of_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "journal.json").write_bytes(content)
    with pytest.raises(InternalError, match="unreadable journal"):
        Journal(tmp_path / "journal.json").interrupted()


def test_after_a_power_loss_every_step_counts_as_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.json"
    journal = Journal(path)
    with monkeypatch.context() as patch:
        patch.setattr(journals, "_boot_id", lambda: "another boot")
        journal.open(PLAN)
    journal.close(keep=True)
    found = journal.interrupted()
    assert found is not None
    assert found.begun == len(PLAN.steps)
    journal.clear()
    assert journal.interrupted() is None
