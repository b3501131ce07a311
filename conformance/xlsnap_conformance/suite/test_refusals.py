# SPDX-License-Identifier: LGPL-2.1-or-later
"""Requests that must be refused and must change nothing, as far as traces cannot say them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from xlsnap_conformance import protocol as p
from xlsnap_conformance import trace as do
from xlsnap_conformance.failures import ConformanceFailure, ImplementationError
from xlsnap_conformance.scenario import Scenario
from xlsnap_conformance.subject import Subject

from .conftest import Need, Tell

UNKNOWN_DOMAIN: dict[str, tuple[str, str, Callable[[str], p.Request[Any]]]] = {
    "list": ("XLS-LIST-007", "XLS-LIST-001", lambda domain: p.SnapshotList(domain=domain)),
    "create": (
        "XLS-FAIL-002",
        "XLS-CREATE-001",
        lambda domain: p.SnapshotCreate(domain=domain, name="other"),
    ),
    "revert": (
        "XLS-FAIL-002",
        "XLS-REVERT-011",
        lambda domain: p.SnapshotRevert(domain=domain, name="known"),
    ),
    "delete": (
        "XLS-FAIL-002",
        "XLS-DELETE-007",
        lambda domain: p.SnapshotDelete(domain=domain, name="known"),
    ),
    "pause": ("XLS-FAIL-008", "XLS-FAIL-008", lambda domain: p.DomainPause(domain=domain)),
    "power cycle": ("XLS-FAIL-008", "XLS-FAIL-008", lambda domain: p.DomainPowerCycle(domain=domain)),
    "console": ("XLS-FAIL-008", "XLS-FAIL-008", lambda domain: p.DomainConsole(domain=domain)),
    "disks": ("XLS-FAIL-008", "XLS-FAIL-008", lambda domain: p.DomainDisks(domain=domain)),
    "destroy": ("XLS-FAIL-008", "XLS-FAIL-008", lambda domain: p.DomainDestroy(domain=domain)),
}
"""Requests for a domain; the clause that is broken when an unknown one is no error, and when ours is one."""


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(operation, marks=pytest.mark.clauses(*clauses, "XLS-FAIL-003", "XLS-FAIL-008"))
        for operation, (*clauses, _) in UNKNOWN_DOMAIN.items()
    ],
)
def test_unknown_domain(operation: str, subject: Subject, scenario: Scenario, need: Need, tell: Tell) -> None:
    """It is an error and makes nothing; the same request for the domain that exists works."""
    need("memory")
    if operation in ("revert", "delete", "pause"):
        need(operation)
    clause, wrong_refusal, request = UNKNOWN_DOMAIN[operation]
    scenario.play(do.Create(name="known"))
    nobody = f"{scenario.domain.name}-nobody"
    try:
        subject.call(request(nobody))
    except ImplementationError as error:
        if error.kind not in ("input", "state"):
            raise ConformanceFailure(
                ("XLS-FAIL-003",),
                f"{operation} of an unknown domain is told to be the fault of another",
                expected="input",
                observed=str(error),
            ) from error
        tell(str(error))
    else:
        raise ConformanceFailure(
            (clause, "XLS-FAIL-008", "XLS-FAIL-002"),
            f"{operation} of an unknown domain is no error",
            expected="refused: there is no such domain",
            observed="accepted",
        )
    state = subject.call(p.DomainStateOf(domain=nobody)).state
    listed = [domain.name for domain in subject.call(p.DomainList()).domains]
    if state != "absent" or nobody in listed:
        raise ConformanceFailure(
            ("XLS-FAIL-008",),
            f"{operation} of an unknown domain has made one",
            expected="absent",
            observed=state,
        )
    scenario.play(do.Check())
    scenario.accepts(request(scenario.domain.name), (wrong_refusal,))


BAD_PLACES = {
    "directory": "XLS-CREATE-007",
    "dangling link": "XLS-CREATE-007",
    "missing directory": "XLS-CREATE-009",
}


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(what, marks=pytest.mark.clauses(clause, "XLS-FAIL-001", "XLS-FAIL-002"))
        for what, clause in BAD_PLACES.items()
    ],
)
@pytest.mark.needs("memory-path")
def test_memory_path_that_cannot_be_used(what: str, scenario: Scenario, tell: Tell) -> None:
    path = scenario.domain.scratch / "memory"
    scenario.play(do.Create(name="works", memory=f"{do.SCRATCH}/other"))
    before = path
    if what == "directory":
        path.mkdir()
    elif what == "dangling link":
        path.symlink_to(scenario.domain.scratch / "nowhere")
        scenario.ignore(path)
    else:
        path = path / "memory"
    request = p.SnapshotCreate(domain=scenario.domain.name, name="wrong", memory=str(path))
    clause = BAD_PLACES[what]
    kinds: tuple[p.ErrorKind, ...] = ("input", "host")
    tell(scenario.refuses(request, clause, f"the memory image's path is a {what}", kinds=kinds))
    stays = what != "missing directory"
    if os.path.lexists(before) != stays:
        summary = "what was there was removed" if stays else "the directory was made"
        raise ConformanceFailure((clause,), summary, expected=what, observed=os.path.lexists(before))
    scenario.finish()


CONFLICTS: dict[str, p.SnapshotCreate] = {
    "name and -n": p.SnapshotCreate(domain="", config='name = "one"\nmemory = "yes"\n', name="other"),
    "memory and -D": p.SnapshotCreate(domain="", config='name = "one"\nmemory = "yes"\n', disk_only=True),
}


@pytest.mark.parametrize("conflict", CONFLICTS)
@pytest.mark.clauses("XLS-CLI-002", "XLS-FAIL-001")
@pytest.mark.needs("snapshot-config", "memory")
def test_file_and_options_contradict(conflict: str, scenario: Scenario, tell: Tell) -> None:
    request = _for(scenario, CONFLICTS[conflict])
    agreeing = p.SnapshotCreate(domain=scenario.domain.name, config=request.config, name="one", dry_run=True)
    if "dry-run" in scenario.subject.capabilities:
        scenario.accepts(agreeing, ("XLS-CLI-002",))
    tell(scenario.refuses(request, "XLS-CLI-002", "file and options contradict each other"))


def _for(scenario: Scenario, request: p.SnapshotCreate) -> p.SnapshotCreate:
    """Return the request for the scenario's domain."""
    return p.SnapshotCreate(
        domain=scenario.domain.name,
        config=request.config,
        name=request.name,
        disk_only=request.disk_only,
        dry_run=request.dry_run,
    )


# Text of a configuration, and the clause that forbids it. `GOOD` is what each of them varies.
GOOD = 'name = "good"\ndescription = "as it should be"\nmemory = "yes"\ndisk = [ "vdev=hda" ]\n'
BAD_CONFIGURATIONS: dict[str, tuple[str, str]] = {
    "bare word": ("XLS-CONF-002", 'name = "a"\nmemory = yes\n'),
    "upper-case key": ("XLS-CONF-003", 'Name = "a"\nmemory = "yes"\n'),
    "key with a dash": ("XLS-CONF-003", 'na-me = "a"\n'),
    "two commas": ("XLS-CONF-004", 'name = "a"\ndisk = [ "vdev=hda",, ]\n'),
    "carriage returns": ("XLS-CONF-001", 'name = "a"\r\nmemory = "yes"\r\n'),
    "open string": ("XLS-CONF-001", 'name = "a\n'),
    "name is a list": ("XLS-CONF-010", 'name = [ "a" ]\nmemory = "yes"\n'),
    "memory is a word": ("XLS-CONF-012", 'name = "a"\nmemory = "maybe"\n'),
    "memory is relative": ("XLS-CONF-012", 'name = "a"\nmemory = "a.save"\n'),
    "disk is a string": ("XLS-CONF-014", 'name = "a"\nmemory = "yes"\ndisk = "vdev=hda"\n'),
    "relative target": (
        "XLS-CONF-027",
        'name = "a"\nmemory = "yes"\ndisk = [ "vdev=hda,target=overlay.qcow2" ]\n',
    ),
    "raw overlay": (
        "XLS-CONF-015",
        'name = "a"\nmemory = "yes"\ndisk = [ "format=raw,vdev=hda,target=/nowhere/overlay.img" ]\n',
    ),
    "unknown type": ("XLS-CONF-016", 'name = "a"\nmemory = "yes"\ntype = "both"\n'),
    "one bad disk": ("XLS-CONF-018", 'name = "a"\nmemory = "yes"\ndisk = [ "vdev=hda", "colour=red" ]\n'),
    "empty name": ("XLS-TERM-002", 'name = ""\nmemory = "yes"\n'),
}


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(what, marks=pytest.mark.clauses(clause, "XLS-FAIL-001"))
        for what, (clause, _) in BAD_CONFIGURATIONS.items()
    ],
)
@pytest.mark.needs("snapshot-config", "memory")
def test_bad_configuration(what: str, scenario: Scenario, tell: Tell) -> None:
    clause, text = BAD_CONFIGURATIONS[what]
    scenario.accepts(p.SnapshotCreate(domain=scenario.domain.name, config=GOOD), (clause,))
    scenario.accepts(p.SnapshotDelete(domain=scenario.domain.name, name="good"), (clause,))
    bad = p.SnapshotCreate(domain=scenario.domain.name, config=text)
    tell(scenario.refuses(bad, clause, f"the configuration is not valid: {what}"))


@pytest.mark.clauses("XLS-CONF-013", "XLS-CREATE-018")
@pytest.mark.needs("snapshot-config", "memory")
def test_creation_time_cannot_be_set(scenario: Scenario, tell: Tell) -> None:
    text = 'name = "now"\nmemory = "yes"\ncreationtime = "12345"\n'
    scenario.accepts(p.SnapshotCreate(domain=scenario.domain.name, config=text), ("XLS-CONF-013",))
    (row,) = scenario.accepts(p.SnapshotList(domain=scenario.domain.name), ("XLS-LIST-001",)).snapshots
    if row.creation_time == 12345:
        raise ConformanceFailure(
            ("XLS-CONF-013", "XLS-CREATE-018"),
            "the user could set the creation time",
            expected="the time of creation",
            observed=row.creation_time,
        )
    tell(f"12345 was asked for, {row.creation_time} is told")


@pytest.mark.clauses("XLS-CONF-012")
def test_a_file_that_does_not_speak_of_memory_is_disk_only(
    scenario: Scenario, need: Need, tell: Tell
) -> None:
    for capability in ("snapshot-config", "memory", "disk-only"):
        need(capability)
    found = {}
    for name, more in (("with", 'memory = "yes"\n'), ("without", ""), ("no", 'memory = "no"\n')):
        request = p.SnapshotCreate(domain=scenario.domain.name, config=f'name = "{name}"\n{more}')
        scenario.accepts(request, ("XLS-CONF-012",))
        listed = scenario.accepts(p.SnapshotList(domain=scenario.domain.name), ("XLS-LIST-001",)).snapshots
        found[name] = next((each.disk_only for each in listed if each.name == name), None)
    if found != {"with": False, "without": True, "no": True}:
        raise ConformanceFailure(
            ("XLS-CONF-012",),
            "a file that does not speak of memory makes another snapshot than a disk-only one",
            expected={"with": False, "without": True, "no": True},
            observed=found,
        )
    tell(f"disk-only: {found}")


@pytest.mark.clauses("XLS-CONF-005")
@pytest.mark.needs("snapshot-config", "disk-only")
def test_last_setting_counts(scenario: Scenario, tell: Tell) -> None:
    text = 'name = "first"\nname = "last"\nmemory = "yes"\nmemory = "no"\n'
    request = p.SnapshotCreate(domain=scenario.domain.name, config=text)
    made = scenario.accepts(request, ("XLS-CONF-005",)).name
    (row,) = scenario.accepts(p.SnapshotList(domain=scenario.domain.name), ("XLS-LIST-001",)).snapshots
    if (made, row.name, row.disk_only) != ("last", "last", True):
        raise ConformanceFailure(
            ("XLS-CONF-005",),
            "when a key is set twice the last setting must count",
            expected={"name": "last", "disk_only": True},
            observed={"name": row.name, "disk_only": row.disk_only},
        )
    tell(f"{row.name!r}, disk-only: {row.disk_only}")
