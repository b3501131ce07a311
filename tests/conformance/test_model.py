# SPDX-License-Identifier: LGPL-2.1-or-later
"""The model: what must come of a step, without any domain."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xlsnap_conformance import coverage, expectations, model
from xlsnap_conformance import trace as do
from xlsnap_conformance.clauses import load_clauses
from xlsnap_conformance.model import World, apply
from xlsnap_conformance.oracles import Aspect, Finding
from xlsnap_conformance.protocol import DiskChoice
from xlsnap_conformance.trace import SCRATCH, DiskOf, DomainOf

TWO = DomainOf(disks=(DiskOf(vdev="hda"), DiskOf(vdev="xvda"), DiskOf(vdev="xvdb", readonly=True)))
RAW = DomainOf(disks=(DiskOf(vdev="hda"), DiskOf(vdev="hdb", format="raw")))


def play(*steps: do.Step, domain: DomainOf = TWO) -> World:
    world = World(domain)
    for step in steps:
        assert model.possible(world, step), step
        outcome = apply(world, step)
        assert outcome.refused is None, (step, outcome.refused)
        world = outcome.after
    return world


A = do.Set(key="a", value="1")
B = do.Set(key="a", value="2")
W = do.Write(vdev="hda", lba=1, word="one")
V = do.Write(vdev="hda", lba=1, word="two")


def test_memory_and_disks_come_back() -> None:
    world = play(A, W, do.Create(name="s"), B, V, do.Write(vdev="xvda", lba=2, word="x"), do.Revert(name="s"))
    assert world.variables == {"a": "1"}
    assert world.word("hda", 1) == "one"
    assert world.word("xvda", 2) is None
    assert world.state == "running"


def test_a_disk_that_is_not_part_of_the_snapshot_stays() -> None:
    chosen = (DiskChoice(vdev="hda"),)
    world = play(
        W,
        do.Create(name="s", disks=chosen),
        V,
        do.Write(vdev="xvda", lba=2, word="x"),
        do.Revert(name="s"),
    )
    assert (world.word("hda", 1), world.word("xvda", 2)) == ("one", "x")


def test_disk_only_is_a_power_cycle() -> None:
    world = play(A, W, do.Pause(), do.Create(name="s", memory="no"), do.Unpause(), B, V, do.Revert(name="s"))
    assert (world.variables, world.word("hda", 1), world.state) == ({}, "one", "running")


@pytest.mark.parametrize(("paused", "left", "state"), [(0, 0, "running"), (0, 1, "paused"), (1, 0, "paused")])
def test_run_state_comes_back(paused: int, left: int, state: str) -> None:
    before = [do.Pause()] if paused else []
    after = [do.Unpause()] if paused else [do.Pause()]
    world = play(*before, do.Create(name="s"), *after, do.Revert(name="s", paused=bool(left)))
    assert world.state == state


def test_memory_does_not_outlive_a_fresh_start() -> None:
    for restart in ([do.PowerCycle()], [do.Destroy(), do.Start()]):
        world = play(A, W, *restart)
        assert (world.variables, world.word("hda", 1)) == ({}, "one")


def test_tree() -> None:
    made = [do.Create(name="a"), do.Create(name="b"), do.Revert(name="a"), do.Create(name="c")]
    world = play(*made)
    assert {node.name: node.parent for node in world.tree().snapshots} == {"a": None, "b": "a", "c": "a"}
    world = play(*made, do.Create(name="d"), do.Delete(name="c"))
    assert {node.name: node.parent for node in world.tree().snapshots} == {"a": None, "b": "a", "d": "a"}
    assert [node.name for node in world.tree().snapshots if node.current] == ["d"]
    assert apply(world, do.Delete(name="d")).after.current == "a"


def test_a_dry_run_changes_nothing() -> None:
    world = play(A)
    assert apply(world, do.Create(name="s", dry_run=True)).after == world


def external(*vdevs: str, target: str | None = None, **more: str) -> tuple[DiskChoice, ...]:
    return tuple(DiskChoice(vdev=vdev, type="external", target=target, **more) for vdev in vdevs)


def test_external_or_internal_is_the_same_for_the_guest() -> None:
    steps = (A, W, do.Create(name="s"), B, V, do.Revert(name="s"), do.PowerCycle())
    out = tuple(
        msgspec.structs.replace(step, disks=external("hda", "xvda")) if isinstance(step, do.Create) else step
        for step in steps
    )
    inside, outside = play(*steps), play(*out)
    assert (inside.variables, inside.sectors, inside.state) == (
        outside.variables,
        outside.sectors,
        outside.state,
    )
    assert [(s.type, s.disks) for s in (*inside.snapshots, *outside.snapshots)] == [
        ("internal", ("hda", "xvda")),
        ("external", ("hda", "xvda")),
    ]


def test_types_of_a_snapshot() -> None:
    both = (*external("xvda"), DiskChoice(vdev="hda"))
    world = play(do.Create(name="mixed", disks=both), do.Create(name="memory", disks=()))
    assert [(s.type, s.disks, s.internal) for s in world.snapshots] == [
        ("any", ("hda", "xvda"), ("hda",)),
        ("internal", (), ()),
    ]
    assert play(do.Create(name="all", type="external")).snapshots[0].external == {"hda", "xvda"}


def test_over_a_raw_image_lies_a_qcow2_one() -> None:
    raw = DomainOf(disks=(DiskOf(vdev="hda", format="raw"),))
    world = play(do.Create(name="s", disks=external("hda")), do.Create(name="t"), domain=raw)
    merged = replace(world, formats={"hda": "raw"})
    assert apply(merged, do.Create(name="u")).refused
    assert not apply(merged, do.Create(name="u", disks=external("hda"))).refused


def test_disks_are_those_of_the_time_of_the_snapshot() -> None:
    domain = DomainOf(disks=(DiskOf(vdev="hda"), DiskOf(vdev="xvda"), DiskOf(vdev="xvdb", spare=True)))

    def vdevs(world: World) -> list[str]:
        return [disk.vdev for disk in world.disks]

    later = do.Start(disks=("hda", "xvdb"))
    world = play(do.Create(name="s"), do.Destroy(), later, do.Create(name="t"), domain=domain)
    assert vdevs(world) == ["hda", "xvdb"]
    assert [snapshot.disks for snapshot in world.snapshots] == [("hda", "xvda"), ("hda", "xvdb")]
    assert not model.possible(world, do.Write(vdev="xvda", lba=1, word="w"))
    assert vdevs(apply(world, do.Revert(name="s")).after) == ["hda", "xvda"]
    assert apply(world, do.Create(name="u", disks=(DiskChoice(vdev="xvda"),))).refused


TREE = [
    do.Create(name="a"),
    do.Create(name="b"),
    do.Create(name="c"),
    do.Revert(name="a"),
    do.Create(name="d"),
]


@pytest.mark.parametrize(
    ("step", "left", "current"),
    [
        (do.Delete(name="b", children=True), {"a": None, "d": "a"}, "d"),
        (do.Delete(name="b", children_only=True), {"a": None, "b": "a", "d": "a"}, "d"),
        (do.Delete(name="a", children=True), {}, None),
        (do.Delete(name="a", children_only=True), {"a": None}, "a"),
        (do.Delete(name="a"), {"b": None, "c": "b", "d": None}, "d"),
        (do.Delete(name="c", children=True), {"a": None, "b": "a", "d": "a"}, "d"),
    ],
)
def test_delete_with_children(step: do.Delete, left: dict[str, str | None], current: str | None) -> None:
    world = play(*TREE, step)
    assert {snapshot.name: snapshot.parent for snapshot in world.snapshots} == left
    assert world.current == current


def test_a_configuration_that_names_the_first_images_may_be_refused() -> None:
    again = do.Start(first_images=True)
    assert apply(play(S, do.Destroy()), again).permitted is None
    outcome = apply(play(do.Create(name="s", disks=external("hda")), do.Destroy()), again)
    assert outcome.refused is None
    assert outcome.permitted is not None
    assert outcome.permitted.clause == "XLS-CREATE-031"
    assert outcome.after.state == "running"


def test_discarded_sectors_are_zero() -> None:
    world = play(W, do.Write(vdev="hda", lba=9, word="x"), do.Destroy(), do.Zero(vdev="hda", lba=0, count=8))
    assert (world.word("hda", 1), world.word("hda", 9)) == (None, "x")
    assert not model.possible(play(), do.Zero(vdev="hda", lba=0, count=8))


def test_only_an_image_from_which_nothing_reads_gets_lost() -> None:
    out = external("hda")
    made = [do.Create(name="a", disks=out), do.Create(name="b", disks=out), do.Destroy()]
    assert not model.possible(play(*made), do.Lose(name="b", what="hda")), "the working state lies over it"
    world = play(*made[:2], do.Revert(name="a"), do.Destroy(), do.Lose(name="b", what="hda"))
    assert not model.possible(world, do.Lose(name="a", what="hda"))
    refused = apply(world, do.Revert(name="b")).refused
    assert refused is not None
    assert refused.clause == "XLS-REVERT-002"


S = do.Create(name="s")
LOST = (do.Create(name="s", memory=f"{SCRATCH}/m"), do.Lose(name="s", what="memory"))
# fmt: off
REFUSED: list[tuple[str, DomainOf, tuple[do.Step, ...], do.Step]] = [
    ("XLS-CREATE-001", TWO, (do.Destroy(),), S),
    ("XLS-CREATE-001", DomainOf(on_poweroff="preserve"), (do.PowerOff(),), S),
    ("XLS-CREATE-002", TWO, (S,), S),
    ("XLS-CREATE-002", TWO, (S,), do.Create(name="s", dry_run=True)),
    ("XLS-CREATE-003", TWO, (), do.Create(name="s", disks=(DiskChoice(vdev="hdd"),))),
    ("XLS-CREATE-004", TWO, (), do.Create(name="s", disks=(DiskChoice(vdev="hda"),) * 2)),
    ("XLS-CREATE-005", TWO, (), do.Create(name="s", disks=(DiskChoice(vdev="xvdb"),))),
    ("XLS-CREATE-006", RAW, (), S),
    ("XLS-CREATE-006", RAW, (), do.Create(name="s", disks=(DiskChoice(vdev="hdb"),))),
    ("XLS-CREATE-007", TWO, (do.PutFile(path=f"{SCRATCH}/f"),), do.Create(name="s", memory=f"{SCRATCH}/f")),
    ("XLS-CREATE-007", TWO, LOST[:1], do.Create(name="t", memory=f"{SCRATCH}/m")),
    ("XLS-CREATE-007", TWO, (), do.Create(name="s", memory="f")),
    ("XLS-FAIL-002", TWO, (do.PutLink(path=f"{SCRATCH}/proc"),),
     do.Create(name="s", memory=f"{SCRATCH}/proc/m")),
    ("XLS-CREATE-009", TWO, (), do.Create(name="s", memory=f"{SCRATCH}/missing/m")),
    ("XLS-CREATE-008", TWO, (), do.Create(name="s", memory="no", disks=())),
    ("XLS-FAIL-002", TWO, (), do.Create(name="s", memory=f"{SCRATCH}/{'m' * 256}")),
    ("XLS-CREATE-011", TWO, (do.Destroy(), do.PutTag(vdev="xvda", name="s"), do.Start()), S),
    ("XLS-CREATE-010", TWO, (), do.Create(name="s", disks=external("hda", target="relative"))),
    ("XLS-CREATE-010", TWO, (do.PutFile(path=f"{SCRATCH}/f"),),
     do.Create(name="s", disks=external("hda", target=f"{SCRATCH}/f"))),
    ("XLS-CREATE-010", TWO, (), do.Create(name="s", disks=external("hda", target=f"{SCRATCH}/xvda.qcow2"))),
    ("XLS-CREATE-010", TWO, (), do.Create(name="s", disks=external("hda", "xvda", target=f"{SCRATCH}/t"))),
    ("XLS-CREATE-010", TWO, (), do.Create(name="s", disks=external("hda", target=f"{SCRATCH}/no/t"))),
    ("XLS-CREATE-010", TWO, (do.Create(name="s", disks=external("hda", target=f"{SCRATCH}/t")),),
     do.Create(name="t", disks=external("hda", target=f"{SCRATCH}/t"))),
    ("XLS-CONF-015", TWO, (), do.Create(name="s", disks=external("hda", format="raw"))),
    ("XLS-CREATE-005", TWO, (), do.Create(name="s", disks=external("xvdb"))),
    ("XLS-CREATE-001", TWO, (do.Destroy(),), do.Create(name="s", disks=external("hda"))),
    ("XLS-CREATE-006", RAW, (do.Create(name="s", disks=external("hda")),), do.Create(name="t")),
    ("XLS-TERM-006", TWO, (do.Create(name="whole"),), do.Revert(name="who")),
    ("XLS-TERM-006", TWO, (S,), do.Delete(name="*")),
    ("XLS-TERM-006", TWO, (S,), do.Delete(name="1")),
    ("XLS-REVERT-001", TWO, (S,), do.Revert(name="S")),
    ("XLS-REVERT-002", TWO, LOST, do.Revert(name="s")),
    ("XLS-DELETE-001", TWO, (S,), do.Delete(name="s ")),
]
# fmt: on


@pytest.mark.parametrize(("clause", "domain", "before", "step"), REFUSED)
def test_what_is_refused_and_why(
    clause: str, domain: DomainOf, before: tuple[do.Step, ...], step: do.Step
) -> None:
    world = play(*before, domain=domain)
    outcome = apply(world, step)
    assert outcome.refused is not None
    assert outcome.refused.clause == clause
    assert outcome.after == world


def test_every_rule_has_a_case_here() -> None:
    names = {clause for clause, *_ in REFUSED} | {"XLS-TERM-002"}
    assert {rule.clause for rule in model.REFUSALS} == names


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-", "-n", "\n", "a\0", "\x85", "x" * 201, "é" * 101])
def test_bad_names(name: str) -> None:
    assert model.bad_name(name)
    refused = apply(play(), do.Create(name=name)).refused
    assert refused is not None
    assert refused.clause == "XLS-TERM-002"


@pytest.mark.parametrize("name", ["1", " ", "a b", "...", ".a", "a-", "x" * 200, "é" * 100, "☃", "'", "$(x)"])
def test_good_names(name: str) -> None:
    assert not model.bad_name(name)
    assert play(do.Create(name=name)).find(name)


@given(st.lists(st.sampled_from([A, B, W, V, *(do.Create(name=n) for n in "xyz"),
                                 *(do.Revert(name=n) for n in "xyz"), *(do.Delete(name=n) for n in "xyz"),
                                 do.Pause(), do.Unpause(), do.PowerCycle()])))  # fmt: skip
def test_snapshots_never_change_but_by_delete(steps: list[do.Step]) -> None:
    world = World(TWO)
    for step in steps:
        if not model.possible(world, step):
            continue
        after = apply(world, step).after
        gone = {step.name} if isinstance(step, do.Delete) else set()
        kept = [replace(s, parent=None) for s in world.snapshots if s.name not in gone]
        assert [replace(s, parent=None) for s in after.snapshots][: len(kept)] == kept
        parents = {s.parent for s in after.snapshots} | {after.current}
        assert parents <= {s.name for s in after.snapshots} | {None}
        world = after


# --- which clause an observation breaks --------------------------------------------------------------------


def test_all_clauses_that_can_be_broken_are_in_the_specification() -> None:
    known = load_clauses()
    assert set(expectations.all_clauses()) <= known.keys()
    inside, outside = coverage.generated(), coverage.generated("external", "mixed")
    assert not set(inside) & set(outside)
    assert "XLS-CREATE-025" in outside
    assert "XLS-REVERT-004" in inside
    assert "XLS-META-013" in coverage.metadata_clauses("external")
    assert "XLS-META-013" not in coverage.metadata_clauses()


def test_every_aspect_has_an_answer_for_every_step() -> None:
    for aspect in Aspect:
        for step in (A, S, do.Revert(name="s"), do.Delete(name="s"), do.List(), do.Check(), do.Destroy()):
            for world in (play(), play(S), play(do.Destroy())):
                for refused in (None, "input", "host"):
                    asked = msgspec.structs.replace(step, refused=refused)
                    assert expectations.broken_clauses(Finding(aspect, "", None, None), asked, world)


@pytest.mark.parametrize(
    ("aspect", "step", "vdev", "clause"),
    [
        (Aspect.VARIABLES, do.Revert(name="s"), None, "XLS-REVERT-003"),
        (Aspect.VARIABLES, do.Revert(name="disks"), None, "XLS-REVERT-007"),
        (Aspect.VARIABLES, do.Revert(name="1"), None, "XLS-TERM-003"),
        (Aspect.VARIABLES, do.Create(name="t"), None, "XLS-CREATE-021"),
        (Aspect.VARIABLES, do.Create(name="s", refused="input"), None, "XLS-FAIL-001"),
        (Aspect.SECTORS, do.Revert(name="disks"), "hda", "XLS-REVERT-004"),
        (Aspect.SECTORS, do.Revert(name="disks"), "xvda", "XLS-REVERT-008"),
        (Aspect.RUN_STATE, do.Revert(name="s", paused=True), None, "XLS-REVERT-006"),
        (Aspect.RUN_STATE, do.Create(name="t", refused="host"), None, "XLS-CREATE-023"),
        (Aspect.TAG_LEFT, do.Delete(name="s"), "hda", "XLS-DELETE-002"),
        (Aspect.TAG_LEFT, do.Create(name="t", dry_run=True), "hda", "XLS-CREATE-024"),
        (Aspect.LIST_DISKS, do.Create(name="t", disks=(DiskChoice(vdev="hda"),)), None, "XLS-CREATE-015"),
        (Aspect.NOT_LISTED, do.Delete(name="s"), None, "XLS-DELETE-006"),
        (Aspect.NOT_LISTED, do.Delete(name="s", children=True), None, "XLS-DELETE-016"),
        (Aspect.SECTORS, do.Revert(name="out"), "hda", "XLS-REVERT-004"),
        (Aspect.SECTORS, do.Revert(name="both"), "hda", "XLS-REVERT-017"),
        (Aspect.SECTORS, do.Revert(name="out"), "xvda", "XLS-REVERT-008"),
        (Aspect.SECTORS, do.Delete(name="s"), "hda", "XLS-DELETE-013"),
        (Aspect.SECTORS, do.PowerCycle(), "hda", "XLS-CREATE-027"),
        (Aspect.STATE_CHANGED, do.Revert(name="out"), "hda", "XLS-REVERT-015"),
        (Aspect.STATE_CHANGED, do.Start(first_images=True), "hda", "XLS-CREATE-031"),
        (Aspect.STATE_CHANGED, do.Create(name="t"), "hda", "XLS-CREATE-025"),
        (Aspect.OVERLAY_LEFT, do.Revert(name="out"), None, "XLS-REVERT-016"),
        (Aspect.OVERLAY_LEFT, do.Delete(name="out"), None, "XLS-DELETE-008"),
        (Aspect.OVERLAY_LEFT, do.Create(name="t", refused="host"), None, "XLS-CREATE-023"),
        (Aspect.DISK_IMAGE, do.Create(name="t", disks=external("hda")), "hda", "XLS-CREATE-027"),
        (Aspect.ACCEPTED, do.Create(name="t", disks=external("hda")), None, "XLS-CREATE-028"),
        (Aspect.ACCEPTED, do.Create(name="t", live=True), None, "XLS-LIVE-004"),
    ],
)
def test_the_same_observation_breaks_the_clause_of_the_operation(
    aspect: Aspect, step: do.Step, vdev: str | None, clause: str
) -> None:
    chosen = (DiskChoice(vdev="hda"),)
    before = play(
        S,
        do.Create(name="1"),
        do.Create(name="disks", memory="no", disks=chosen),
        do.Create(name="out", disks=external("hda")),
        do.Create(name="both", disks=(*chosen, *external("xvda"))),
    )
    finding = Finding(aspect, "", None, None, vdev)
    assert expectations.broken_clauses(finding, step, before)[0] == clause
