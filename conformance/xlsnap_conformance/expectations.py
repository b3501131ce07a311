# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which clauses are broken when something is not as the model says (pure).

The same observation means different things after different operations: a guest that reads another word
after a revert breaks a clause of revert, after a create one of create. `_CLAUSES` says which, as data; its
keys are those of `circumstances`. The first clause of each entry is the nearest.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import trace as do
from .model import REFUSALS, World, choices
from .oracles import Aspect, Finding
from .trace import Step

Clauses = tuple[str, ...]

_UNCHANGED = ("XLS-FAIL-001",)

_CLAUSES: dict[Aspect, dict[str, Clauses]] = {
    Aspect.ACCEPTED: {
        "create, live": ("XLS-LIVE-004", "XLS-CREATE-001"),
        "create, mixed": ("XLS-CREATE-030", "XLS-CREATE-001"),
        "create, raw image": ("XLS-CREATE-029", "XLS-CREATE-001"),
        "create, default target": ("XLS-CREATE-028", "XLS-CREATE-001"),
        "create, external": ("XLS-CREATE-026", "XLS-CREATE-001"),
        "create, name like another": ("XLS-TERM-004", "XLS-CREATE-001"),
        "create, nothing to write to": ("XLS-CREATE-019", "XLS-CREATE-001"),
        "create, some disks read-only": ("XLS-CREATE-014", "XLS-CREATE-001"),
        "create": ("XLS-CREATE-001", "XLS-TERM-001"),
        "revert, other disks": ("XLS-REVERT-013", "XLS-REVERT-011"),
        "revert, mixed": ("XLS-REVERT-017", "XLS-REVERT-011", "XLS-REVERT-009", "XLS-REVERT-010"),
        "revert": ("XLS-REVERT-011", "XLS-REVERT-009", "XLS-REVERT-010"),
        "delete, children": ("XLS-DELETE-016", "XLS-DELETE-007"),
        "delete": ("XLS-DELETE-007", "XLS-DELETE-009", "XLS-DELETE-010"),
        "any": ("XLS-MODEL-001",),
    },
    Aspect.ERROR_KIND: {"any": ("XLS-FAIL-003",)},
    Aspect.RUN_STATE: {
        "failing create": ("XLS-CREATE-023", "XLS-FAIL-001"),
        "refused revert": ("XLS-REVERT-002", "XLS-FAIL-001"),
        "refused": _UNCHANGED,
        "create": ("XLS-CREATE-020",),
        "revert, left paused": ("XLS-REVERT-006",),
        "revert, other disks": ("XLS-REVERT-013", "XLS-REVERT-005"),
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
        "create, external": ("XLS-CREATE-027", "XLS-CREATE-021"),
        "create": ("XLS-CREATE-021",),
        "revert, another disk": ("XLS-REVERT-008",),
        "revert, number as name": ("XLS-TERM-003", "XLS-REVERT-004"),
        "revert, mixed": ("XLS-REVERT-017", "XLS-REVERT-004", "XLS-REVERT-009", "XLS-MODEL-005"),
        "revert, external": ("XLS-REVERT-004", "XLS-REVERT-015", "XLS-REVERT-009", "XLS-MODEL-005"),
        "revert": ("XLS-REVERT-004", "XLS-REVERT-009", "XLS-MODEL-005"),
        "delete, with overlays": ("XLS-DELETE-013", "XLS-DELETE-012", "XLS-DELETE-005"),
        "delete": ("XLS-DELETE-005",),
        "fresh start, with overlays": ("XLS-CREATE-027", "XLS-MODEL-001"),
        "any": ("XLS-MODEL-001",),
    },
    Aspect.DISKS: {
        "refused": _UNCHANGED,
        "revert": ("XLS-REVERT-013",),
        "delete": ("XLS-DELETE-005",),
        "any": ("XLS-MODEL-001",),
    },
    Aspect.DISK_IMAGE: {
        "failing create": ("XLS-CREATE-023",),
        "refused": _UNCHANGED,
        "dry run": ("XLS-CREATE-024",),
        "create, external": ("XLS-CREATE-027", "XLS-CREATE-026"),
        "start, first images": ("XLS-CREATE-031", "XLS-CREATE-027"),
        "delete": ("XLS-DELETE-014",),
        "any": ("XLS-CREATE-027",),
    },
    Aspect.DISK_FORMAT: {"any": ("XLS-MODEL-007",)},
    Aspect.OVERLAY: {"any": ("XLS-CREATE-026",)},
    Aspect.OVERLAY_PLACE: {"any": ("XLS-CREATE-026",)},
    Aspect.OVERLAY_LEFT: {
        "failing create": ("XLS-CREATE-023",),
        "refused": _UNCHANGED,
        "dry run": ("XLS-CREATE-024",),
        "revert": ("XLS-REVERT-016",),
        "delete": ("XLS-DELETE-008",),
        "any": ("XLS-DELETE-008",),
    },
    Aspect.BACKING: {
        "create": ("XLS-CREATE-026",),
        "delete": ("XLS-DELETE-014",),
        "any": ("XLS-MODEL-007", "XLS-CREATE-026"),
    },
    Aspect.FIRST_IMAGE: {
        "delete, with overlays": ("XLS-DELETE-012", "XLS-MODEL-004"),
        "any": ("XLS-MODEL-004",),
    },
    Aspect.IMAGE_GONE: {
        "refused": _UNCHANGED,
        "create": ("XLS-CREATE-025",),
        "revert": ("XLS-REVERT-016", "XLS-REVERT-010"),
        "delete": ("XLS-DELETE-012", "XLS-DELETE-014"),
        "any": ("XLS-MODEL-005",),
    },
    Aspect.WRITES_BELOW: {
        "refused": _UNCHANGED,
        "start, first images": ("XLS-CREATE-031",),
        "revert": ("XLS-REVERT-015",),
        "delete": ("XLS-DELETE-013", "XLS-DELETE-006"),
        "any": ("XLS-CREATE-025",),
    },
    Aspect.STATE_CHANGED: {
        "refused": _UNCHANGED,
        "start, first images": ("XLS-CREATE-031", "XLS-CREATE-025"),
        "revert": ("XLS-REVERT-015", "XLS-CREATE-025", "XLS-DELETE-013"),
        "delete": ("XLS-DELETE-013", "XLS-DELETE-006"),
        "any": ("XLS-CREATE-025", "XLS-DELETE-013"),
    },
    Aspect.NOT_LISTED: {
        "refused": _UNCHANGED,
        "revert": ("XLS-REVERT-010",),
        "delete, children": ("XLS-DELETE-016", "XLS-DELETE-006"),
        "delete": ("XLS-DELETE-006",),
        "fresh start": ("XLS-MODEL-008",),
        "stopped": ("XLS-LIST-006",),
        "any": ("XLS-LIST-001",),
    },
    Aspect.LISTED_TOO_MUCH: {
        "failing create": ("XLS-LIST-003", "XLS-CREATE-023"),
        "refused": _UNCHANGED,
        "dry run": ("XLS-CREATE-024",),
        "delete, children": ("XLS-DELETE-016", "XLS-DELETE-004"),
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
    Aspect.LIST_TREE: {"any": ("XLS-LIST-012",)},
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
    Aspect.METADATA_EXTERNAL: {
        "create, default target": ("XLS-META-013", "XLS-CREATE-028"),
        "any": ("XLS-META-013",),
    },
    Aspect.METADATA_TYPE: {
        "create, external": ("XLS-META-015", "XLS-META-002"),
        "any": ("XLS-META-002", "XLS-META-015"),
    },
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
        yield from _types_of(step, before)
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
        if isinstance(step, do.Start) and step.first_images:
            yield "start, first images"
        if before.overlaid:
            yield "fresh start, with overlays"
        yield "fresh start"
    if isinstance(step, do.Revert):
        snapshot = before.find(step.name)
        if snapshot is not None and vdev is not None and vdev not in snapshot.disks:
            yield "revert, another disk"
        if snapshot is not None and set(snapshot.attached) != {disk.vdev for disk in before.disks}:
            yield "revert, other disks"
        if step.paused:
            yield "revert, left paused"
        if snapshot is not None and not snapshot.has_memory:
            yield "revert, disk-only"
        if step.name.isdecimal():
            yield "revert, number as name"
        if snapshot is not None and snapshot.external:
            if snapshot.internal:
                yield "revert, mixed"
            yield "revert, external"
    if isinstance(step, do.Delete):
        if step.name.isdecimal():
            yield "delete, number as name"
        if step.children or step.children_only:
            yield "delete, children"
        if before.overlaid:
            yield "delete, with overlays"
    yield operation
    if before.state == "stopped" or isinstance(step, do.Destroy):
        yield "stopped"
    yield "any"


def _types_of(step: do.Create, before: World) -> Iterator[str]:
    external = {disk.vdev: disk for disk in choices(before, step) if disk.type == "external"}
    if step.live:
        yield "create, live"
    if external and len(external) < len(choices(before, step)):
        yield "create, mixed"
    if any(disk.vdev in external and before.format_of(disk) == "raw" for disk in before.disks):
        yield "create, raw image"
    if any(disk.target is None for disk in external.values()):
        yield "create, default target"
    if external:
        yield "create, external"


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


def all_clauses() -> Clauses:
    """Return all clauses that are named here."""
    named = [rule.clause for rule in REFUSALS]
    named += [clause for table in _CLAUSES.values() for clauses in table.values() for clause in clauses]
    return tuple(dict.fromkeys(named))


OF_OVERLAYS: frozenset[Aspect] = frozenset(
    {
        *(Aspect.DISK_IMAGE, Aspect.OVERLAY, Aspect.OVERLAY_PLACE, Aspect.OVERLAY_LEFT, Aspect.BACKING),
        *(Aspect.IMAGE_GONE, Aspect.WRITES_BELOW, Aspect.STATE_CHANGED, Aspect.METADATA_EXTERNAL),
    }
)
"""What can be wrong only after an external snapshot was taken."""
