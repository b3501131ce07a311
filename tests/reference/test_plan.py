# SPDX-License-Identifier: LGPL-2.1-or-later
"""Plans: what is refused before anything is touched, and which steps come in which order."""

import itertools
from typing import Any

import msgspec
import pytest
from xlsnap import plan as planning
from xlsnap import steps as do
from xlsnap.chain import Need
from xlsnap.domain import DomainConfig, DomainRecord, Overlay, RunState
from xlsnap.errors import (
    BadNameError,
    DiskChoiceError,
    DomainStateError,
    MemoryPathError,
    NameTakenError,
    SnapshotDamagedError,
    UnknownSnapshotError,
)
from xlsnap.host import ImageState, Tag, check_tags_free
from xlsnap.plan import ObservedDisk, ObservedDomain
from xlsnap.plan.observed import SnapshotNeeds
from xlsnap.request import SnapshotRequest
from xlsnap.snapshot import DiskSnapshot, DomainSnapshot, SnapshotType
from xlsnap.steps import DiskImage, Plan
from xlsnap_grammars import DiskSpec, SnapshotDisk

NOW_NS = 1_700_000_000_000_000_042
HDA = DiskSpec(target="/img/a.qcow2", format="qcow2", vdev="hda", readwrite=True)
DISK = DiskImage("hda", "/img/a.qcow2", "qcow2")
HDB = DiskSpec(target="/img/b.qcow2", format="qcow2", vdev="hdb", readwrite=True)
RAW = DiskSpec(target="/img/c.raw", format="raw", vdev="hdc", readwrite=True)
READ_ONLY = DiskSpec(target="/img/d.qcow2", format="qcow2", vdev="hdd", readwrite=False)


def domain(
    *disks: DiskSpec, state: RunState | None = RunState.RUNNING, snapshots: tuple[DomainSnapshot, ...] = ()
) -> ObservedDomain:
    return ObservedDomain(
        uuid="u",
        name="d1",
        run_state=state,
        config=DomainConfig(name="d1", uuid="u", disks=disks),
        snapshots={snapshot.name: snapshot for snapshot in snapshots},
    )


def revert(observed: ObservedDomain, snapshot: DomainSnapshot, **options: Any) -> Plan:
    """Plan a revert as the toolstack does; new images get the names new-1, new-2, …"""
    chosen = planning.choose_returns(observed, snapshot)
    returns = [
        msgspec.structs.replace(item, path=f"/img/new-{number}") if item.needs_path else item
        for number, item in enumerate(chosen, start=1)
    ]
    found = tuple(ObservedDisk(image, tag_id="7") for image in planning.snapshot_disks(snapshot))
    return planning.plan_revert(observed, snapshot, returns=returns, **{"disks": found, **options})


def make(
    observed: ObservedDomain, request: SnapshotRequest, memory: str | None = "/mem", **options: Any
) -> Plan:
    """Plan a snapshot as the toolstack does."""
    planning.check_can_snapshot(observed)
    snapshot = planning.describe(
        observed,
        request,
        name=planning.choose_name(observed, request, NOW_NS // 10**9),
        memory_path=memory if request.memory else None,
        disks=planning.choose_disks(observed, request),
        now_ns=NOW_NS,
    )
    return planning.plan_create(observed, snapshot, **options)


def kinds(plan: Plan) -> list[type]:
    return [type(step.do) for step in plan.steps]


# --- create ---------------------------------------------------------------------------------------------


def test_guest_that_saves_its_memory_itself_does_so_before_the_disk_snapshots() -> None:
    plan = make(domain(HDA), SnapshotRequest(name="s"), memory_first=True)
    assert kinds(plan)[:4] == [do.ResumeDomain, do.SaveMemory, do.TakeDiskSnapshots, do.ResumeDomain]
    assert plan.steps[0].undo == do.ResumeDomain(if_active=True)


def test_paused_guest_runs_only_to_save_its_memory() -> None:
    plan = make(domain(HDA, state=RunState.PAUSED), SnapshotRequest(name="s"), memory_first=True)
    assert kinds(plan)[:4] == [do.ResumeDomain, do.SaveMemory, do.TakeDiskSnapshots, do.SyncFile]
    assert plan.steps[0].undo == do.PauseDomain(if_active=True)
    assert not {do.PromoteSuccessor, do.StopDomain} & set(kinds(plan))


def test_guest_is_paused_for_disk_snapshots_alone_on_any_host() -> None:
    plan = make(domain(HDA), SnapshotRequest(name="s", memory=False), memory_first=True)
    assert kinds(plan)[:3] == [do.PauseDomain, do.TakeDiskSnapshots, do.ResumeDomain]


def test_disk_that_the_host_cannot_take_is_refused() -> None:
    with pytest.raises(DiskChoiceError, match="disk hda: no qdisk"):
        make(domain(HDA), SnapshotRequest(name="s"), disk_problems={"hda": "no qdisk"})


def test_create_pauses_over_disks_and_memory_and_writes_metadata_last() -> None:
    plan = make(domain(HDA, HDB), SnapshotRequest(name="s"))
    assert kinds(plan) == [
        *(do.PrepareMemory, do.PauseDomain, do.TakeDiskSnapshots, do.SaveMemory, do.ResumeDomain),
        *(do.SyncFile, do.UpdateDomain, do.WriteMetadata),
    ]
    take = plan.steps[2].do
    assert isinstance(take, do.TakeDiskSnapshots)
    assert [disk.vdev for disk in take.disks] == ["hda", "hdb"]


def test_files_are_written_while_qemu_is_busy() -> None:
    def done_beside(plan: Plan) -> list[type]:
        return [type(step.do) for step in plan.steps if step.beside]

    assert done_beside(make(domain(HDA), SnapshotRequest(name="s"))) == [
        *(do.PauseDomain, do.TakeDiskSnapshots),  # QEMU has been told of what is before them
        *(do.SyncFile, do.UpdateDomain),
    ]
    paused = domain(HDA, state=RunState.PAUSED)
    assert done_beside(make(paused, SnapshotRequest(name="s"))) == [do.TakeDiskSnapshots]
    assert done_beside(make(paused, SnapshotRequest(name="s", memory=False))) == []
    both = msgspec.structs.replace(
        WITH_MEMORY,
        disks=tuple(DiskSnapshot(device=d.vdev, name="s", path=d.target, format="qcow2") for d in (HDA, HDB)),  # type: ignore[arg-type]
    )
    plan = planning.plan_delete(domain(HDA, HDB, snapshots=(both,)), both)
    assert done_beside(plan) == [do.RemoveMemory, do.ForgetMetadata]
    alone = planning.plan_delete(domain(HDA, snapshots=(WITH_MEMORY,)), WITH_MEMORY)
    assert done_beside(alone) == []  # a failure at the first disk is taken back


def test_every_step_of_create_that_leaves_something_can_be_taken_back() -> None:
    plan = make(domain(HDA), SnapshotRequest(name="s"))
    undo = {type(step.do): type(step.undo) for step in plan.steps if step.undo}
    assert undo == {
        do.PrepareMemory: do.DropPreparations,
        do.PauseDomain: do.ResumeDomain,
        do.TakeDiskSnapshots: do.TakeBackDiskSnapshots,
        do.SaveMemory: do.RemoveMemory,
        do.UpdateDomain: do.UpdateDomain,
        do.WriteMetadata: do.ForgetMetadata,
    }
    assert not any(plan.is_irrevocable(taken) for taken in range(len(plan.steps) + 1))


def test_a_paused_domain_stays_paused_and_is_neither_paused_nor_resumed() -> None:
    plan = make(domain(HDA, state=RunState.PAUSED), SnapshotRequest(name="s", memory=False))
    assert kinds(plan) == [do.TakeDiskSnapshots, do.UpdateDomain, do.WriteMetadata]


def test_a_paused_domain_goes_on_in_a_successor_once_its_memory_is_saved() -> None:
    plan = make(domain(HDA, state=RunState.PAUSED), SnapshotRequest(name="s"))
    assert kinds(plan) == [
        *(do.PrepareMemory, do.TakeDiskSnapshots, do.SaveMemory, do.SyncFile),
        *(do.UpdateDomain, do.WriteMetadata),
        *(do.LoadSuccessor, do.StopDomain, do.PromoteSuccessor),
    ]
    promote = plan.steps[-1].do
    assert isinstance(promote, do.PromoteSuccessor)
    assert promote.paused
    assert promote.keep_domid
    assert [type(step.do) for step in plan.irrevocable_steps] == [do.StopDomain, do.PromoteSuccessor]
    assert not plan.is_irrevocable(7)
    assert plan.is_irrevocable(8)


@pytest.mark.parametrize("state", [RunState.SHUTDOWN, RunState.DYING, RunState.CRASHED, None])
def test_create_needs_a_running_blocked_or_paused_domain(state: RunState | None) -> None:
    with pytest.raises(DomainStateError, match="needs a running, blocked or paused domain"):
        make(domain(HDA, state=state), SnapshotRequest(name="s"))


def test_a_name_is_taken_once_and_a_number_is_a_name() -> None:
    known = domain(HDA, snapshots=(DomainSnapshot(name="1"),))
    with pytest.raises(NameTakenError):
        make(known, SnapshotRequest(name="1"))
    assert make(known, SnapshotRequest(name="2")).snapshot == "2"
    with pytest.raises(BadNameError):
        make(known, SnapshotRequest(name="a/b"))


def test_the_default_name_is_the_time() -> None:
    assert make(domain(HDA), SnapshotRequest()).snapshot == "1700000000"
    taken = domain(HDA, snapshots=(DomainSnapshot(name="1700000000"),))
    assert make(taken, SnapshotRequest()).snapshot == "1700000001"


def test_all_writable_disks_are_chosen_unless_some_are_named() -> None:
    observed = domain(HDA, READ_ONLY, HDB)
    assert [disk.image.vdev for disk in planning.choose_disks(observed, SnapshotRequest())] == ["hda", "hdb"]
    only_b = SnapshotRequest(disks=(SnapshotDisk(vdev="hdb", type="internal", target=None, format=None),))
    assert [disk.image.vdev for disk in planning.choose_disks(observed, only_b)] == ["hdb"]


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (["hdd"], "read-only"),
        (["hdz"], "no disk 'hdz'"),
        (["hda", "hda"], "named twice"),
        (["hdc"], "only qcow2 holds internal snapshots"),
        (None, "only qcow2 holds internal snapshots"),
    ],
)
def test_disks_that_cannot_be_chosen(wanted: list[str] | None, reason: str) -> None:
    disks = None
    if wanted is not None:
        disks = tuple(SnapshotDisk(vdev=vdev, type="internal", target=None, format=None) for vdev in wanted)
    with pytest.raises(DiskChoiceError, match=reason):
        make(domain(HDA, RAW, READ_ONLY), SnapshotRequest(name="s", disks=disks))


def test_there_must_be_something_to_snapshot() -> None:
    with pytest.raises(DiskChoiceError, match="no writable disk"):
        make(domain(READ_ONLY), SnapshotRequest(name="s", memory=False))
    steps = [do.PrepareMemory, do.PauseDomain, do.SaveMemory]
    assert kinds(make(domain(READ_ONLY), SnapshotRequest(name="s")))[:3] == steps


def test_a_tag_that_is_not_ours_is_named() -> None:
    free = ImageState(DISK, tags=(Tag("s", "other"),))
    check_tags_free("d1", "s", [free])
    taken = ImageState(DISK, tags=(Tag("1", "s"),))
    with pytest.raises(NameTakenError, match="already has a snapshot 's'"):
        check_tags_free("d1", "s", [free, taken])


def test_undoing_spares_tags_that_were_there_before() -> None:
    undo = make(domain(HDA), SnapshotRequest(name="s", memory=False)).steps[1].undo
    assert isinstance(undo, do.TakeBackDiskSnapshots)
    assert undo.since_ns == NOW_NS


def test_a_memory_image_that_cannot_be_is_refused() -> None:
    observed = domain(HDA)
    snapshot = DomainSnapshot(name="s", memory="/mem")
    with pytest.raises(MemoryPathError, match="exists already"):
        planning.plan_create(observed, snapshot, memory_problem="exists already")


def test_the_configuration_goes_into_the_metadata() -> None:
    observed = domain(HDA)
    plan = make(observed, SnapshotRequest(name="s", description="why"))
    write = plan.steps[-1].do
    assert isinstance(write, do.WriteMetadata)
    data = msgspec.json.decode(write.content)
    assert msgspec.convert(data["xlsnap_config"], DomainConfig) == observed.config
    assert data["description"] == "why"
    assert data["creation_time"] == 1_700_000_000
    assert data["running"] is True
    assert data["paused"] is False


# --- revert ---------------------------------------------------------------------------------------------

WITH_MEMORY = DomainSnapshot(
    name="s",
    memory="/mem",
    running=True,
    disks=(DiskSnapshot(device="hda", name="s", path="/img/a.qcow2", format="qcow2"),),
)
DISK_ONLY = msgspec.structs.replace(WITH_MEMORY, memory=None)


def test_revert_loads_the_memory_before_it_stops_the_domain() -> None:
    plan = revert(domain(HDA), WITH_MEMORY)
    assert kinds(plan) == [
        *(do.LoadSuccessor, do.StopDomain, do.ApplyDiskSnapshots, do.PromoteSuccessor),
        do.UpdateDomain,
    ]
    assert not plan.is_irrevocable(1)
    assert plan.is_irrevocable(2)
    assert [type(step.do) for step in plan.irrevocable_steps] == kinds(plan)[1:]


def test_revert_uses_the_id_that_belongs_to_the_name() -> None:
    state = ImageState(DISK, tags=(Tag("1", "other"), Tag("2", "1"), Tag("s", "x")))
    disk = DiskSnapshot(device="hda", name="1", path=DISK.path, format="qcow2")
    assert planning.observe_disk(disk, state) == ObservedDisk(DISK, tag_id="2")
    assert "no snapshot is named 's'" in str(planning.observe_disk(WITH_MEMORY.disks[0], state).problem)
    twice = ImageState(DISK, tags=(Tag("1", "s"), Tag("2", "s")))
    assert "2 snapshots are named" in str(planning.observe_disk(WITH_MEMORY.disks[0], twice).problem)


@pytest.mark.parametrize(("was_paused", "asked", "result"), [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 1)])
def test_revert_restores_the_run_state(was_paused: bool, asked: bool, result: bool) -> None:
    snapshot = msgspec.structs.replace(WITH_MEMORY, running=not was_paused, paused=bool(was_paused))
    promote = revert(domain(HDA), snapshot, paused=bool(asked)).steps[-2].do
    assert isinstance(promote, do.PromoteSuccessor)
    assert promote.paused == bool(result)


def test_reverting_a_disk_only_snapshot_is_a_power_cycle() -> None:
    plan = revert(domain(HDA), DISK_ONLY)
    assert kinds(plan) == [do.StopDomain, do.ApplyDiskSnapshots, do.StartDomain, do.UpdateDomain]
    assert plan.is_irrevocable(1)


def test_a_stopped_domain_reverts_by_the_same_steps() -> None:
    stopped = revert(domain(HDA, state=None), WITH_MEMORY)
    assert kinds(stopped) == kinds(revert(domain(HDA), WITH_MEMORY))


def test_the_disk_list_of_the_snapshot_comes_back() -> None:
    then = DomainConfig(name="old name", uuid="u", disks=(HDA,))
    snapshot = msgspec.structs.replace(WITH_MEMORY, extra={"xlsnap_config": msgspec.to_builtins(then)})
    load = revert(domain(HDA, HDB), snapshot).steps[0].do
    assert isinstance(load, do.LoadSuccessor)
    assert load.config.disks == (HDA,)
    assert load.config.name == "d1"


def test_revert_names_everything_that_is_missing() -> None:
    missing = (ObservedDisk(DISK, problem="no tag"),)
    with pytest.raises(SnapshotDamagedError, match="memory image: gone; disk hda: no tag"):
        revert(domain(HDA), WITH_MEMORY, disks=missing, memory_problem="gone")


def test_an_unknown_snapshot_is_named() -> None:
    with pytest.raises(UnknownSnapshotError, match="no snapshot 'x'"):
        domain(HDA).snapshot("x")


# --- delete ---------------------------------------------------------------------------------------------


def test_delete_hides_the_snapshot_first_and_forgets_it_last() -> None:
    plan = planning.plan_delete(domain(HDA), WITH_MEMORY)
    assert kinds(plan) == [do.HideMetadata, do.DropDiskSnapshots, do.RemoveMemory, do.ForgetMetadata]
    assert not plan.is_irrevocable(1)
    assert plan.is_irrevocable(2)
    assert type(plan.steps[0].undo) is do.ShowMetadata


# --- save and restore -----------------------------------------------------------------------------------


def test_save_leaves_the_domain_as_asked() -> None:
    running = domain(HDA)
    assert kinds(planning.plan_save(running, "/f", leave="destroy"))[-1] is do.StopDomain
    assert do.ResumeDomain in kinds(planning.plan_save(running, "/f", leave="running"))
    assert kinds(planning.plan_save(running, "/f", leave="paused"))[-1] is do.PromoteSuccessor


def test_plans_survive_the_journal() -> None:
    for plan in (
        make(domain(HDA, state=RunState.PAUSED), SnapshotRequest(name="s")),
        revert(domain(HDA), WITH_MEMORY),
        revert(domain(HDA), DISK_ONLY),
        planning.plan_delete(domain(HDA), WITH_MEMORY),
    ):
        assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan


# --- external snapshots -----------------------------------------------------------------------------------

EXTERNAL_A = SnapshotDisk(vdev="hda", type="external", target="/img/a.1.qcow2", format="qcow2")
OVER_A = Overlay("/img/a.1.qcow2", DISK.path, "qcow2")


def external(name: str, path: str, *, parent: str | None = None) -> DomainSnapshot:
    disk = DiskSnapshot(device="hda", name=name, path=path, format="qcow2", type=SnapshotType.EXTERNAL)
    extra = {} if parent is None else {"xlsnap_parent": parent}
    return DomainSnapshot(name=name, disks=(disk,), type=SnapshotType.EXTERNAL, extra=extra)


def chained(*snapshots: DomainSnapshot, overlays: tuple[Overlay, ...] = (OVER_A,)) -> ObservedDomain:
    """A domain whose disk is the last of some overlays."""
    disk = DiskSpec(target=overlays[-1].path, format="qcow2", vdev="hda")
    needs = {
        item.name: SnapshotNeeds(
            item.parent, tuple(Need(disk.device, disk.path, disk.type) for disk in item.disks)
        )
        for item in snapshots
    }
    return msgspec.structs.replace(
        domain(disk, snapshots=snapshots), needs=needs, overlays=overlays, current=snapshots[-1].name
    )


def test_overlays_are_made_before_the_guest_is_paused_and_taken_back_after_it_runs() -> None:
    plan = make(domain(HDA, RAW), SnapshotRequest(name="s", disks=(EXTERNAL_A,)))
    before = [do.CreateOverlays, do.PrepareMemory, do.PauseDomain, do.TakeDiskSnapshots]
    assert kinds(plan)[:4] == before
    assert plan.steps[0].do == do.CreateOverlays(overlays=(OVER_A,))
    assert plan.steps[0].undo == do.RemoveImages(paths=(OVER_A.path,))
    update = plan.steps[-2].do
    assert isinstance(update, do.UpdateDomain)
    assert [disk.target for disk in update.config.disks] == [OVER_A.path, RAW.target]
    assert update.current == "s"


def test_a_live_snapshot_is_prepared_while_the_guest_runs() -> None:
    observed = domain(HDA, RAW)
    request = SnapshotRequest(name="s", disks=(EXTERNAL_A,), memory=True)
    chosen = planning.choose_disks(observed, request)
    snapshot = planning.describe(observed, request, name="s", memory_path="/mem", disks=chosen, now_ns=NOW_NS)
    plan = planning.plan_create(observed, snapshot, live=True)
    assert kinds(plan)[:4] == [do.CreateOverlays, do.PrepareLive, do.PauseDomain, do.TakeDiskSnapshots]
    overlaid = (do.OverlaidDisk(DISK, OVER_A.path),)
    assert plan.steps[1].do == do.PrepareLive(path="/mem", overlaid=overlaid)
    assert plan.steps[1].undo == do.DropPreparations(path="/mem", overlaid=overlaid)
    paused = msgspec.structs.replace(observed, run_state=RunState.PAUSED)
    assert do.PrepareLive not in kinds(planning.plan_create(paused, snapshot, live=True))


def test_one_transaction_has_internal_and_external_disks() -> None:
    request = SnapshotRequest(name="s", disks=(SnapshotDisk("hdb", "internal"), EXTERNAL_A))
    (take,) = [
        step.do for step in make(domain(HDA, HDB), request).steps if type(step.do) is do.TakeDiskSnapshots
    ]
    assert take.disks == (DiskImage("hdb", "/img/b.qcow2", "qcow2"),)
    assert take.overlaid == (do.OverlaidDisk(DISK, OVER_A.path),)


def test_raw_disks_can_be_snapshotted_externally_and_the_type_is_that_of_all_disks() -> None:
    request = SnapshotRequest(name="s", type="external")
    chosen = planning.choose_disks(domain(HDA, RAW, READ_ONLY), request)
    assert [(disk.image.vdev, disk.overlay) for disk in chosen] == [("hda", ""), ("hdc", "")]


@pytest.mark.parametrize(
    ("disks", "reason"),
    [
        ((SnapshotDisk("hda", "external", "/x", "raw"),), "format raw is not possible"),
        (
            (SnapshotDisk("hda", "external", "/x"), SnapshotDisk("hdb", "external", "/x")),
            "two disks have the target /x",
        ),
    ],
)
def test_overlays_that_cannot_be(disks: tuple[SnapshotDisk, ...], reason: str) -> None:
    with pytest.raises(DiskChoiceError, match=reason):
        make(domain(HDA, HDB), SnapshotRequest(name="s", disks=disks))


def test_the_default_path_is_beside_the_first_image_and_never_too_long() -> None:
    images = chained(external("s", DISK.path)).images()
    paths = planning.overlay_candidates(images, DiskImage("hda", OVER_A.path, "qcow2"), "s 2")
    assert [next(paths), next(paths)] == ["/img/a.s 2.qcow2", "/img/a.s 2.2.qcow2"]
    (long,) = itertools.islice(planning.overlay_candidates(images, DISK, "ü" * 200), 1)
    assert len(long.rpartition("/")[2].encode()) <= 255


def test_reverting_goes_on_with_a_new_overlay_and_the_old_one_goes() -> None:
    plan = revert(chained(external("s", DISK.path)), external("s", DISK.path))
    assert kinds(plan) == [
        *(do.CreateOverlays, do.StopDomain, do.StartDomain, do.UpdateDomain, do.RemoveImages),
    ]
    assert plan.steps[-1].do == do.RemoveImages(paths=(OVER_A.path,))
    assert plan.is_irrevocable(2)
    assert not plan.is_irrevocable(1)


def test_an_overlay_that_another_snapshot_needs_stays() -> None:
    newer = external("t", OVER_A.path, parent="s")
    over = Overlay("/img/a.2.qcow2", OVER_A.path, "qcow2")
    plan = revert(chained(external("s", DISK.path), newer, overlays=(OVER_A, over)), external("s", DISK.path))
    assert plan.steps[-1].do == do.RemoveImages(paths=(over.path,))


def test_an_internal_snapshot_in_an_image_that_others_need_is_copied() -> None:
    """Reverted in place it would change what lies over the image (virt-manager #811 from the other side)."""
    observed = chained(DISK_ONLY, external("t", DISK.path))
    (chosen,) = planning.choose_returns(observed, DISK_ONLY)
    assert chosen.how == "copy"
    copy = revert(observed, DISK_ONLY).steps[0].do
    assert isinstance(copy, do.CopySnapshot)
    assert copy.copy.copy_of == DISK.path


def test_a_disk_that_is_not_in_the_snapshot_keeps_its_image() -> None:
    observed = chained(external("s", DISK.path))
    extra = {"xlsnap_config": msgspec.to_builtins(DomainConfig(name="d1", disks=(HDA, HDB)))}
    snapshot = DomainSnapshot(name="m", memory="/mem", extra=extra)
    kept, lost = planning.choose_returns(observed, snapshot)
    assert (kept.how, kept.image.path) == ("keep", OVER_A.path)
    assert (lost.how, lost.image.path) == ("keep", str(HDB.target))


def test_nothing_is_removed_when_metadata_cannot_be_read() -> None:
    observed = msgspec.structs.replace(chained(external("s", DISK.path)), unreadable=("t",))
    assert do.RemoveImages not in kinds(revert(observed, external("s", DISK.path)))


def test_what_descends_goes_before_what_it_descends_from() -> None:
    needs = {
        "a": SnapshotNeeds(),
        **{name: SnapshotNeeds(parent) for name, parent in ("ba", "ca", "db", "xx", "yz", "zy")},
    }
    assert planning.descendants(needs, "a") == ["d", "b", "c"]
    assert planning.descendants(needs, "x") == []
    assert planning.descendants(needs, "y") == ["z"]


def test_children_of_a_deleted_snapshot_come_from_its_parent() -> None:
    first, middle, last = (external(name, DISK.path, parent=parent) for name, parent in ("a-", "ba", "cb"))
    plan = planning.plan_delete(chained(first, middle, last), middle)
    (child,) = [step.do for step in plan.steps if isinstance(step.do, do.ReplaceMetadata)]
    assert msgspec.json.decode(child.content)["xlsnap_parent"] == "a"


def test_the_guest_waits_from_the_switch_until_the_upper_image_is_gone() -> None:
    observed = msgspec.structs.replace(chained(external("s", "/elsewhere")))
    (merge,) = observed.images().merges()
    plan = planning.plan_merge(observed, merge)
    assert kinds(plan) == [
        *(do.CopyDown, do.PauseDomain, do.SwitchDown, do.UpdateDomain, do.RemoveImages, do.ResumeDomain),
    ]
    assert not plan.is_irrevocable(2)
    assert plan.is_irrevocable(3)


def test_a_snapshot_whose_image_was_merged_has_its_state_in_the_lower_one() -> None:
    over = Overlay("/img/a.2.qcow2", OVER_A.path, "qcow2")
    observed = chained(external("t", OVER_A.path), overlays=(OVER_A, over))
    merge = next(observed.images().merges())
    plan = planning.plan_merge(observed, merge)
    assert kinds(plan) == [do.CopyDown, do.ReplaceMetadata, do.LayOver, do.RemoveImages]
    replaced = plan.steps[1].do
    assert isinstance(replaced, do.ReplaceMetadata)
    assert msgspec.json.decode(replaced.content)["disks"][0]["path"] == DISK.path
    assert plan.steps[2].do == do.LayOver(overlay=over.path, base=DISK)


def test_after_a_merge_the_lower_image_is_the_one_that_is_needed() -> None:
    """Were it not known, the next merge would give up the state of a snapshot."""
    third = Overlay("/img/a.2.qcow2", OVER_A.path, "qcow2")
    observed = chained(external("t", OVER_A.path), overlays=(OVER_A, third))
    merge = next(observed.images().merges())
    assert merge.base.path == DISK.path
    relaid = (Overlay(third.path, DISK.path, "qcow2"),)
    record = DomainRecord(uuid="u", name="d1", config=observed.config, overlays=relaid, current="t")
    after = planning.with_one_image_less(observed, merge, record)
    assert after.images().states == {DISK.path: "hda"}
    assert list(after.images().merges()) == []


def test_a_domain_is_never_started_on_an_image_that_is_needed() -> None:
    observed = chained(external("s", DISK.path))
    first_day = DomainConfig(name="d1", disks=(HDA,))
    adopted, warnings = planning.adopt_images(observed, first_day, fresh=True)
    assert adopted.disks[0].target == OVER_A.path
    assert len(warnings) == 1
    with pytest.raises(DiskChoiceError, match="is needed by a snapshot"):
        planning.adopt_images(observed, first_day, fresh=False)
    other = DomainConfig(name="d1", disks=(HDB,))
    assert planning.adopt_images(observed, other, fresh=True) == (other, [])
