# SPDX-License-Identifier: LGPL-2.1-or-later
"""What must be refused, and what may be: a table of reasons, each with its clause."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from .. import trace as do
from ..protocol import DiskChoice, ErrorKind
from ..trace import SCRATCH, DiskOf, Step
from .world import ACTIVE, World, choices

MAX_NAME_BYTES = 200
MAX_FILE_NAME_BYTES = 255


@dataclass(frozen=True, slots=True)
class Refused:
    """A step that must be refused. Any of ``kinds`` is right, the first is the best."""

    kinds: tuple[ErrorKind, ...]
    clause: str
    reason: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A reason to refuse a step: when `holds` says so, with an error of one of `kinds`, says `clause`."""

    step: type[Step] | tuple[type[Step], ...]
    kinds: tuple[ErrorKind, ...]
    clause: str
    reason: str
    holds: Callable[[World, Any], bool]


def first_refusal(rules: Iterable[Rule], world: World, step: Step) -> Refused | None:
    """Return the refusal of the first rule that holds, with the kinds of all that hold; None if none does."""
    holding = [rule for rule in rules if isinstance(step, rule.step) and rule.holds(world, step)]
    if not holding:
        return None
    kinds = tuple(dict.fromkeys(kind for rule in holding for kind in rule.kinds))
    return Refused(kinds, holding[0].clause, holding[0].reason)


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def bad_name(name: str) -> bool:
    """Say whether a string cannot be the name of a snapshot."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return True
    return (
        not 1 <= size <= MAX_NAME_BYTES
        or name in {".", ".."}
        or name.startswith("-")
        or "/" in name
        or _CONTROL.search(name) is not None
    )


def _names(world: World, step: do.Create, test: Callable[[DiskOf | None], bool]) -> bool:
    return any(test(world.disk(disk.vdev)) for disk in step.disks or ())


def _raw(world: World, step: do.Create) -> bool:
    internal = {choice.vdev for choice in choices(world, step) if choice.type == "internal"}
    return any(d.vdev in internal and d.writable and world.format_of(d) == "raw" for d in world.disks)


def _tags_wanted(world: World, step: do.Create) -> set[tuple[str, str]]:
    if step.name is None:
        return set()
    return {(choice.vdev, step.name) for choice in choices(world, step) if choice.type == "internal"}


def _points_at(world: World, text: str) -> bool:
    """Say whether a careless toolstack could take a text for one of the names."""
    places = {str(place) for place in range(len(world.snapshots) + 1)}
    return text in places or any(name.startswith(text) or fnmatch(name, text) for name in world.names())


def _has_path(step: do.Create) -> bool:
    return step.memory not in ("yes", "no")


def _too_long(path: str) -> bool:
    return len(path.rpartition("/")[2].encode()) > MAX_FILE_NAME_BYTES


def _directory(path: str) -> str:
    return path.rpartition("/")[0]


def _external(step: do.Create) -> Iterator[DiskChoice]:
    return (disk for disk in step.disks or () if disk.type == "external")


def _targets(step: do.Create) -> list[str]:
    return [disk.target for disk in _external(step) if disk.target is not None]


def _occupied(world: World) -> set[str]:
    """Return the paths at which something is for sure."""
    first = {disk.image for disk in world.domain.disks}
    return {*world.files, *world.memory_files, *world.targets, *first}


REFUSALS: tuple[Rule, ...] = (
    Rule(
        do.Create, ("state", "input"), "XLS-CREATE-001", "the domain is neither running nor paused",
        lambda world, step: world.state not in ACTIVE,
    ),
    Rule(
        do.Create, ("input",), "XLS-CREATE-002", "the name is taken",
        lambda world, step: step.name is not None and world.find(step.name) is not None,
    ),
    Rule(
        do.Create, ("input",), "XLS-TERM-002", "the name breaks the rules for names",
        lambda world, step: step.name is not None and bad_name(step.name),
    ),
    Rule(
        do.Create, ("input",), "XLS-CREATE-003", "a disk is named that the domain does not have",
        lambda world, step: _names(world, step, lambda disk: disk is None),
    ),
    Rule(
        do.Create, ("input",), "XLS-CREATE-004", "a disk is named twice",
        lambda world, step: len({disk.vdev for disk in step.disks or ()}) < len(step.disks or ()),
    ),
    Rule(
        do.Create, ("input",), "XLS-CREATE-005", "a read-only disk is named",
        lambda world, step: _names(world, step, lambda disk: disk is not None and not disk.writable),
    ),
    Rule(do.Create, ("input",), "XLS-CREATE-006", "a raw image cannot hold an internal snapshot", _raw),
    Rule(
        do.Create, ("input",), "XLS-CREATE-008", "there is neither memory nor a disk to snapshot",
        lambda world, step: step.memory == "no" and not choices(world, step),
    ),
    Rule(
        do.Create, ("input",), "XLS-CREATE-007", "the memory image's path is not absolute",
        lambda world, step: _has_path(step) and not step.memory.startswith(("/", SCRATCH)),
    ),
    Rule(
        do.Create, ("input",), "XLS-CREATE-007", "something exists where the memory image should go",
        lambda world, step: step.memory in _occupied(world),
    ),
    Rule(
        do.Create, ("host", "input", "state"), "XLS-CREATE-011", "an image has a tag of this name already",
        lambda world, step: not world.foreign_tags.isdisjoint(_tags_wanted(world, step)),
    ),
    Rule(
        do.Create, ("host", "input"), "XLS-FAIL-002", "no file can have a name as long as the memory image's",
        lambda world, step: _too_long(step.memory),
    ),
    Rule(
        do.Create, ("host", "input"), "XLS-FAIL-002", "no file can be made where the memory image should go",
        lambda world, step: _directory(step.memory) in world.links,
    ),
    Rule(
        do.Create, ("input", "host"), "XLS-CREATE-009", "the memory image should go to a missing directory",
        lambda world, step: step.memory.startswith(SCRATCH)
        and _directory(step.memory) not in {SCRATCH, *world.links},
    ),
    Rule(
        do.Create, ("input",), "XLS-CREATE-010", "an overlay's target is not absolute",
        lambda world, step: any(not target.startswith(("/", SCRATCH)) for target in _targets(step)),
    ),
    Rule(
        do.Create, ("input",), "XLS-CREATE-010", "something exists where an overlay should go",
        lambda world, step: not _occupied(world).isdisjoint(_targets(step)),
    ),
    Rule(
        do.Create, ("input",), "XLS-CREATE-010", "two disks have the same target",
        lambda world, step: len(set(_targets(step))) < len(_targets(step)),
    ),
    Rule(
        do.Create, ("input", "host"), "XLS-CREATE-010", "an overlay cannot be written where it should go",
        lambda world, step: any(
            target.startswith(SCRATCH) and (_directory(target) != SCRATCH or _too_long(target))
            for target in _targets(step)
        ),
    ),
    Rule(
        do.Create, ("input",), "XLS-CONF-015", "an overlay is of another format than qcow2",
        lambda world, step: any(disk.format not in (None, "qcow2") for disk in _external(step)),
    ),
    Rule(
        (do.Revert, do.Delete), ("input",), "XLS-TERM-006", "part of a name, a pattern or a place is no name",
        lambda world, step: world.find(step.name) is None and _points_at(world, step.name),
    ),
    Rule(
        do.Revert, ("input",), "XLS-REVERT-001", "there is no such snapshot",
        lambda world, step: world.find(step.name) is None,
    ),
    Rule(
        do.Revert, ("state", "input", "host"), "XLS-REVERT-002", "a part of the snapshot is lost",
        lambda world, step: bool((found := world.find(step.name)) and found.lost),
    ),
    Rule(
        do.Delete, ("input",), "XLS-DELETE-001", "there is no such snapshot",
        lambda world, step: world.find(step.name) is None,
    ),
)  # fmt: skip
"""All reasons to refuse a step. The first that holds gives the clause."""

PERMITTED: tuple[Rule, ...] = (
    Rule(
        do.Start, ("input", "state"), "XLS-CREATE-031", "a snapshot needs an image that is configured",
        lambda world, step: step.first_images and any(disk.vdev in world.overlaid for disk in world.disks),
    ),
)  # fmt: skip
"""Reasons for which a step may be refused, though it need not be."""
