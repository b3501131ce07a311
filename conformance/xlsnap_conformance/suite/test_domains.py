# SPDX-License-Identifier: LGPL-2.1-or-later
"""What takes more than one domain, another name for it, or a guest that works meanwhile."""

from __future__ import annotations

import time

import pytest

from xlsnap_conformance import protocol as p
from xlsnap_conformance import trace as do
from xlsnap_conformance.failures import ConformanceFailure, HarnessError
from xlsnap_conformance.protocol import CAPABILITIES
from xlsnap_conformance.scenario import Scenario
from xlsnap_conformance.subject import Subject, qemu_img_create
from xlsnap_conformance.trace import DiskOf, DomainOf
from xlsnap_conformance.wording import describe

from .conftest import Need, NewScenario, Tell
from .counting import TWO_DISKS, counters_agree


@pytest.mark.clauses("XLS-EDITION-001")
def test_edition_is_told(subject: Subject, tell: Tell) -> None:
    hello = subject.driver.hello
    unknown = set(hello.capabilities) - set(CAPABILITIES)
    if unknown:
        raise ConformanceFailure(
            ("XLS-EDITION-001",),
            "capabilities are claimed that nobody knows",
            expected=list(CAPABILITIES),
            observed=sorted(unknown),
        )
    tell(f"edition {hello.edition}, {len(hello.capabilities)} capabilities")


ELSEWHERE = ("XLS-MODEL-006", "XLS-TERM-005")


@pytest.mark.clauses(*ELSEWHERE)
def test_domains_do_not_touch_each_other(new_scenario: NewScenario, need: Need, tell: Tell) -> None:
    """Two domains with snapshots of the same names."""
    for capability in ("memory", "revert", "delete"):
        need(capability)
    one, other = new_scenario(DomainOf()), new_scenario(DomainOf())
    for scenario, value in ((one, "one"), (other, "other")):
        scenario.play(do.Set(key="who", value=value))
        scenario.play(do.Write(vdev="hda", lba=1, word=value))
        scenario.play(do.Create(name="same"), also=ELSEWHERE)
        scenario.play(do.Set(key="who", value="changed"))
    for step in (do.Revert(name="same"), do.Create(name="more"), do.Delete(name="same"), do.Destroy()):
        one.play(step)
        other.undisturbed(ELSEWHERE, f"after something was done to another domain ({describe(step)})")
    other.play(do.Revert(name="same"))
    other.finish()
    tell(f"{other.checks} observations of the other domain as if it were alone")


@pytest.mark.clauses("XLS-LIST-009")
def test_order_within_a_second(scenario: Scenario, need: Need, tell: Tell) -> None:
    need("memory")
    need("list-order")
    names = ["c", "a", "d", "b"]
    for name in names:
        scenario.play(do.Create(name=name))
    listed = scenario.accepts(p.SnapshotList(domain=scenario.domain.name), ("XLS-LIST-009",)).snapshots
    if [snapshot.name for snapshot in listed] != names:
        raise ConformanceFailure(
            ("XLS-LIST-009",),
            "snapshots of the same second are not listed as they were made",
            expected=names,
            observed=[snapshot.name for snapshot in listed],
            trace=scenario.trace(),
        )
    tell(f"{names} within {listed[-1].creation_time - listed[0].creation_time} s")


@pytest.mark.clauses("XLS-MODEL-007")
def test_raw_image_that_looks_like_qcow2(new_scenario: NewScenario, tell: Tell) -> None:
    """A guest could write such a header into its raw disk, with the name of any file of the host in it."""
    scenario = new_scenario(DomainOf(disks=(DiskOf(vdev="hda", format="raw"),)))
    before = scenario.domain.guest().disks()[0]
    scenario.play(do.Destroy())
    image = scenario.domain.image("hda")
    forged = scenario.domain.scratch / "forged"
    qemu_img_create(forged, size_kib=64 << 10)
    content = forged.read_bytes()
    forged.unlink()
    with image.open("r+b") as file:
        file.write(content[: image.stat().st_size])
    scenario.play(do.Start())
    after = scenario.domain.guest().disks()[0]
    if after != before:
        raise ConformanceFailure(
            ("XLS-MODEL-007",),
            "the format of a raw image was guessed from its content",
            expected=f"a disk of {before} sectors",
            observed=f"a disk of {after} sectors",
        )
    tell(f"the guest still has {after} sectors")


@pytest.mark.clauses("XLS-LIST-006")
def test_list_by_uuid(scenario: Scenario, subject: Subject, need: Need, tell: Tell) -> None:
    need("list-stopped")
    scenario.play(do.Create(name="before", memory="no" if "memory" not in subject.capabilities else "yes"))
    for state in ("running", "stopped"):
        if state == "stopped":
            scenario.play(do.Destroy())
        listed = scenario.accepts(p.SnapshotList(domain=scenario.domain.uuid), ("XLS-LIST-006",)).snapshots
        if [snapshot.name for snapshot in listed] != ["before"]:
            raise ConformanceFailure(
                ("XLS-LIST-006",),
                f"the list of the {state} domain, named by its uuid, is not that of its name",
                expected=["before"],
                observed=[snapshot.name for snapshot in listed],
                trace=scenario.trace(),
            )
    tell("the list of the uuid, running and stopped, is that of the name")


@pytest.mark.clauses("XLS-LIST-002")
def test_list_by_creation_time(scenario: Scenario, subject: Subject, need: Need, tell: Tell) -> None:
    """Of snapshots of one second any order is right: these are of two."""
    need("list-order")
    memory = "yes" if "memory" in subject.capabilities else "no"
    for name in ("b", "a"):
        scenario.play(do.Create(name=name, memory=memory))
        time.sleep(1.1)
    scenario.play(do.List())
    tell("a snapshot of a later second comes after the one of an earlier second, whatever their names")


@pytest.mark.clauses("XLS-LIST-008")
def test_listing_changes_nothing(scenario: Scenario, need: Need, tell: Tell) -> None:
    need("memory")
    scenario.play(do.Set(key="a", value="1"))
    scenario.play(do.Create(name="first"))
    scenario.play(do.Set(key="a", value="2"))
    for _ in range(5):
        scenario.play(do.List())
    scenario.play(do.Pause())
    for _ in range(3):
        scenario.play(do.List())
    scenario.play(do.Unpause())
    scenario.finish()
    tell(f"listed 5 times running and 3 times paused, {scenario.checks} observations as the model says")


@pytest.mark.clauses("XLS-REVERT-012")
def test_identity_outlives_revert(scenario: Scenario, need: Need, tell: Tell) -> None:
    need("memory")
    need("revert")
    scenario.play(do.Create(name="before"))
    for _ in range(2):
        scenario.play(do.Revert(name="before"))
        scenario.play(do.Check())
    tell(f"after two reverts {scenario.domain.name} has the uuid {scenario.domain.uuid}")


@pytest.mark.clauses("XLS-REVERT-003", "XLS-CREATE-021")
def test_all_memory_comes_back(scenario: Scenario, need: Need, tell: Tell) -> None:
    """Not only a few variables: 256 KiB of memory, compared by checksum."""
    need("memory")
    need("revert")
    guest = scenario.domain.guest()
    guest.memory_fill(1)
    before = guest.memory_sum()
    scenario.play(do.Create(name="before"))
    scenario.expect_memory(before, "XLS-CREATE-021", "create changed the guest's memory")
    scenario.domain.guest().memory_fill(2)
    if scenario.domain.guest().memory_sum() == before:
        raise HarnessError("the guest's memory did not change: nothing would be shown")
    scenario.play(do.Revert(name="before"))
    scenario.expect_memory(before, "XLS-REVERT-003", "the guest's memory is not what it was")
    tell("256 KiB of memory came back")


@pytest.mark.clauses("XLS-CREATE-022")
def test_memory_and_disk_are_of_one_instant(new_scenario: NewScenario, need: Need, tell: Tell) -> None:
    need("memory")
    need("revert")
    scenario = new_scenario(TWO_DISKS)
    request = p.SnapshotCreate(domain=scenario.domain.name)
    tell(counters_agree(scenario, request, "XLS-CREATE-022"))


@pytest.mark.clauses("XLS-REVERT-014")
def test_a_domain_is_named_by_name_and_uuid_after_a_revert(
    scenario: Scenario, subject: Subject, need: Need, tell: Tell
) -> None:
    """Its id may be another one; the list shows it once, and both names lead to it."""
    need("memory")
    need("revert")
    scenario.play(do.Create(name="before"))
    ids = [_listed(subject, scenario).domid]
    for _ in range(2):
        scenario.play(do.Revert(name="before"))
        ids.append(_listed(subject, scenario).domid)
        for name in (scenario.domain.name, scenario.domain.uuid):
            told = scenario.accepts(p.DomainStateOf(domain=name), ("XLS-REVERT-014",)).state
            if told != "running":
                raise ConformanceFailure(
                    ("XLS-REVERT-014", "XLS-REVERT-012"),
                    "after a revert the domain is not found by its name or uuid",
                    expected="running",
                    observed=told,
                )
    tell(f"domain ids {ids}" if None not in ids else "domain ids are not told")


def _listed(subject: Subject, scenario: Scenario) -> p.ListedDomain:
    domains = subject.call(p.DomainList()).domains
    found = [domain for domain in domains if domain.name == scenario.domain.name]
    if len(found) != 1:
        raise ConformanceFailure(
            ("XLS-REVERT-014", "XLS-REVERT-012"),
            "the domain is not listed once",
            expected=1,
            observed=len(found),
        )
    return found[0]
