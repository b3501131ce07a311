# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which clauses are broken when something is not as the model says (pure).

The same observation means different things after different operations: a guest that reads another word
after a revert breaks a clause of revert, after a create one of create. `_CLAUSES` says which, as data; its
keys are those of `circumstances`. The first clause of each entry is the nearest.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from . import trace as do
from .model import REFUSALS, World, apply
from .oracles import Aspect, Finding
from .trace import Step, Trace

Clauses = tuple[str, ...]

_UNCHANGED = ("XLS-FAIL-001",)

_CLAUSES: dict[Aspect, dict[str, Clauses]] = {
    Aspect.ACCEPTED: {
        "create, name like another": ("XLS-TERM-004", "XLS-CREATE-001"),
        "create, nothing to write to": ("XLS-CREATE-019", "XLS-CREATE-001"),
        "create, some disks read-only": ("XLS-CREATE-014", "XLS-CREATE-001"),
        "create": ("XLS-CREATE-001", "XLS-TERM-001"),
        "revert": ("XLS-REVERT-011", "XLS-REVERT-009", "XLS-REVERT-010"),
        "delete": ("XLS-DELETE-007", "XLS-DELETE-009"),
        "any": ("XLS-MODEL-001",),
    },
    Aspect.ERROR_KIND: {"any": ("XLS-FAIL-003",)},
    Aspect.RUN_STATE: {
        "failing create": ("XLS-CREATE-023", "XLS-FAIL-001"),
        "refused revert": ("XLS-REVERT-002", "XLS-FAIL-001"),
        "refused": _UNCHANGED,
        "create": ("XLS-CREATE-020",),
        "revert, left paused": ("XLS-REVERT-006",),
        "revert, disk-only": ("XLS-REVERT-007",),
        "revert": ("XLS-REVERT-005",),
        "delete": ("XLS-DELETE-005",),
        "list": ("XLS-LIST-008",),
        "any": ("XLS-MODEL-001",),
    },
    Aspect.IDENTITY: {"any": ("XLS-REVERT-012",)},
    Aspect.VARIABLES: {
        "refused": _UNCHANGED,
        "create": ("XLS-CREATE-021",),
        "revert, disk-only": ("XLS-REVERT-007",),
        "revert, number as name": ("XLS-TERM-003", "XLS-REVERT-003"),
        "revert": ("XLS-REVERT-003", "XLS-REVERT-009", "XLS-MODEL-005"),
        "delete": ("XLS-DELETE-005",),
        "any": ("XLS-MODEL-001",),
    },
    Aspect.SECTORS: {
        "refused": _UNCHANGED,
        "create": ("XLS-CREATE-021",),
        "revert, another disk": ("XLS-REVERT-008",),
        "revert, number as name": ("XLS-TERM-003", "XLS-REVERT-004"),
        "revert": ("XLS-REVERT-004", "XLS-REVERT-009", "XLS-MODEL-005"),
        "delete": ("XLS-DELETE-005",),
        "any": ("XLS-MODEL-001",),
    },
    Aspect.NOT_LISTED: {
        "refused": _UNCHANGED,
        "revert": ("XLS-REVERT-010",),
        "delete": ("XLS-DELETE-006",),
        "fresh start": ("XLS-MODEL-008",),
        "stopped": ("XLS-LIST-006",),
        "any": ("XLS-LIST-001",),
    },
    Aspect.LISTED_TOO_MUCH: {
        "failing create": ("XLS-LIST-003", "XLS-CREATE-023"),
        "refused": _UNCHANGED,
        "dry run": ("XLS-CREATE-024",),
        "delete": ("XLS-DELETE-004",),
        "list, empty": ("XLS-LIST-011", "XLS-LIST-001"),
        "any": ("XLS-LIST-001",),
    },
    Aspect.LIST_FAILS: {
        "list, empty": ("XLS-LIST-011",),
        "stopped": ("XLS-LIST-006",),
        "any": ("XLS-LIST-001",),
    },
    Aspect.LIST_ORDER: {"any": ("XLS-LIST-002",)},
    Aspect.LIST_FIELDS: {
        "create, disk-only": ("XLS-CREATE-017", "XLS-LIST-004"),
        "any": ("XLS-LIST-004",),
    },
    Aspect.LIST_TIME: {
        "create": ("XLS-CREATE-018", "XLS-LIST-004"),
        "any": ("XLS-MODEL-005", "XLS-CREATE-018"),
    },
    Aspect.LIST_DESCRIPTION: {
        "create": ("XLS-CREATE-013", "XLS-LIST-005"),
        "any": ("XLS-MODEL-005", "XLS-CREATE-013", "XLS-LIST-005"),
    },
    Aspect.LIST_DISKS: {
        "create, chosen disks": ("XLS-CREATE-015",),
        "create": ("XLS-CREATE-014",),
        "any": ("XLS-LIST-005",),
    },
    Aspect.DEFAULT_NAME: {"any": ("XLS-CREATE-012",)},
    Aspect.TAG_MISSING: {
        "refused": _UNCHANGED,
        "create, chosen disks": ("XLS-CREATE-015", "XLS-MODEL-003"),
        "create": ("XLS-CREATE-014", "XLS-MODEL-003"),
        "revert": ("XLS-REVERT-010", "XLS-REVERT-009"),
        "delete, number as name": ("XLS-TERM-003", "XLS-DELETE-006"),
        "delete": ("XLS-DELETE-006",),
        "any": ("XLS-MODEL-003",),
    },
    Aspect.TAG_LEFT: {
        "failing create": ("XLS-CREATE-023", "XLS-MODEL-003"),
        "refused": ("XLS-FAIL-001", "XLS-MODEL-003"),
        "dry run": ("XLS-CREATE-024",),
        "create, chosen disks": ("XLS-CREATE-015", "XLS-MODEL-003"),
        "delete": ("XLS-DELETE-002", "XLS-MODEL-003"),
        "any": ("XLS-MODEL-003",),
    },
    Aspect.TAG_TWICE: {"any": ("XLS-MODEL-003", "XLS-CREATE-002")},
    Aspect.FOREIGN_TAG: {"refused create": ("XLS-CREATE-011", "XLS-MODEL-004"), "any": ("XLS-MODEL-004",)},
    Aspect.IMAGE_SOUND: {"any": ("XLS-MODEL-002",)},
    Aspect.METADATA_SET: {"any": ("XLS-META-001",)},
    Aspect.METADATA_FIELDS: {"any": ("XLS-META-002",)},
    Aspect.METADATA_DISKS: {"any": ("XLS-META-003",)},
    Aspect.CREATION_TIME: {"any": ("XLS-META-004",)},
    Aspect.METADATA_MEMORY: {"any": ("XLS-META-005",)},
    Aspect.METADATA_STATE: {"any": ("XLS-META-006",)},
    Aspect.METADATA_MODE: {"any": ("XLS-META-007",)},
    Aspect.DEFAULT_MEMORY: {
        "revert": ("XLS-REVERT-009", "XLS-REVERT-010"),
        "delete": ("XLS-DELETE-006",),
        "any": ("XLS-META-010",),
    },
    Aspect.MEMORY_IMAGE: {
        "refused": _UNCHANGED,
        "create": ("XLS-CREATE-016",),
        "revert": ("XLS-REVERT-009", "XLS-REVERT-010"),
        "delete": ("XLS-DELETE-006",),
        "any": ("XLS-MODEL-001",),
    },
    Aspect.MEMORY_LEFT: {
        "failing create": ("XLS-CREATE-023",),
        "refused": _UNCHANGED,
        "dry run": ("XLS-CREATE-024",),
        "create, disk-only": ("XLS-CREATE-017",),
        "create, memory at a path": ("XLS-CREATE-016",),
        "delete": ("XLS-DELETE-003", "XLS-DELETE-008"),
        "any": ("XLS-DELETE-008",),
    },
    Aspect.FILE_LEFT: {
        "failing create": ("XLS-CREATE-023",),
        "refused": _UNCHANGED,
        "dry run": ("XLS-CREATE-024",),
        "delete": ("XLS-DELETE-004", "XLS-DELETE-008"),
        "any": ("XLS-META-001", "XLS-DELETE-008"),
    },
    Aspect.USER_FILE: {"refused create": ("XLS-CREATE-007", "XLS-MODEL-004"), "any": ("XLS-MODEL-004",)},
}


def circumstances(step: Step, before: World, vdev: str | None = None) -> Iterator[str]:
    """Yield the keys of the table that fit to a step, the most special first.

    :param before: the world before the step.
    :param vdev: the disk that the finding is about.
    """
    operation = _OPERATIONS.get(type(step), "domain")
    if step.refused is not None:
        if step.refused == "host":
            yield f"failing {operation}"
        yield f"refused {operation}"
        yield "refused"
    if isinstance(step, do.Create):
        if step.dry_run:
            yield "dry run"
        if step.memory == "no":
            yield "create, disk-only"
        elif step.memory != "yes":
            yield "create, memory at a path"
        if step.disks is not None:
            yield "create, chosen disks"
        if step.name is not None and step.name.casefold() in {name.casefold() for name in before.names()}:
            yield "create, name like another"
        if not any(disk.writable for disk in before.domain.disks):
            yield "create, nothing to write to"
        if step.disks is None and not all(disk.writable for disk in before.domain.disks):
            yield "create, some disks read-only"
    if isinstance(step, do.List) and not before.snapshots:
        yield "list, empty"
    if isinstance(step, do.PowerCycle | do.Start):
        yield "fresh start"
    if isinstance(step, do.Revert):
        snapshot = before.find(step.name)
        if snapshot is not None and vdev is not None and vdev not in snapshot.disks:
            yield "revert, another disk"
        if step.paused:
            yield "revert, left paused"
        if snapshot is not None and not snapshot.has_memory:
            yield "revert, disk-only"
        if step.name.isdecimal():
            yield "revert, number as name"
    if isinstance(step, do.Delete) and step.name.isdecimal():
        yield "delete, number as name"
    yield operation
    if before.state == "stopped" or isinstance(step, do.Destroy):
        yield "stopped"
    yield "any"


_OPERATIONS: dict[type[Step], str] = {
    do.Create: "create",
    do.Revert: "revert",
    do.Delete: "delete",
    do.List: "list",
}


def broken_clauses(finding: Finding, step: Step, before: World) -> Clauses:
    """Return the clauses that `finding` breaks after `step`."""
    table = _CLAUSES[finding.aspect]
    return next(table[key] for key in circumstances(step, before, finding.vdev) if key in table)


def clauses_of(trace: Trace) -> Clauses:
    """Return all clauses that playing a trace can find broken: those that it is for come first.

    Clauses of metadata files are left out: see `METADATA_CLAUSES`.
    """
    found = dict.fromkeys(trace.clauses)
    before = World(trace.domain)
    for step in trace.steps:
        outcome = apply(before, step)
        if outcome.refused is not None:
            found[outcome.refused.clause] = None
            step = msgspec.structs.replace(step, refused=outcome.refused.kinds[0])
        if not isinstance(step, do.Set | do.Write | do.PutFile | do.PutTag):
            vdevs = [None, *(disk.vdev for disk in trace.domain.disks)]
            for finding in (Finding(aspect, "", None, None, vdev) for aspect in Aspect for vdev in vdevs):
                found |= dict.fromkeys(broken_clauses(finding, step, before))
        before = outcome.after
    return tuple(clause for clause in found if clause not in METADATA_CLAUSES)


def all_clauses() -> Clauses:
    """Return all clauses that a generated scenario can find broken, but those of metadata files."""
    named = [rule.clause for rule in REFUSALS]
    named += [clause for table in _CLAUSES.values() for clauses in table.values() for clause in clauses]
    return tuple(clause for clause in dict.fromkeys(named) if clause not in METADATA_CLAUSES)


METADATA_CLAUSES: frozenset[str] = frozenset(
    clause
    for table in _CLAUSES.values()
    for clauses in table.values()
    for clause in clauses
    if clause.startswith("XLS-META-")
)
"""Clauses that a scenario can find broken only where the implementation keeps metadata files."""
