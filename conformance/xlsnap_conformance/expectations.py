# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which clauses are broken when something is not as the model says (pure).

The same observation means different things after different operations: a guest that reads another value
after a revert breaks a clause of revert, after a create one of create. `_CLAUSES` says which, as data. The
first clause is the nearest.
"""

from __future__ import annotations

from . import trace as do
from .oracles import Aspect
from .trace import Step

_OPERATIONS: dict[type[Step], str] = {
    do.Create: "create",
    do.Revert: "revert",
    do.Delete: "delete",
    do.List: "list",
}


def operation_of(step: Step) -> str:
    """Return the operation that a step belongs to, as the key of the table."""
    return _OPERATIONS.get(type(step), "domain")


Clauses = tuple[str, ...]

_CLAUSES: dict[Aspect, dict[str, Clauses]] = {
    Aspect.ACCEPTED: {
        "create": ("XLS-CREATE-001",),
        "revert": ("XLS-REVERT-001",),
        "delete": ("XLS-DELETE-001",),
        "list": ("XLS-LIST-001",),
        "domain": ("XLS-MODEL-001",),
    },
    Aspect.ERROR_KIND: {"domain": ("XLS-FAIL-001",)},
    Aspect.RUN_STATE: {
        "create": ("XLS-CREATE-RUNSTATE",),
        "revert": ("XLS-REVERT-RUNSTATE",),
        "delete": ("XLS-DELETE-CURRENT",),
        "refused": ("XLS-FAIL-UNCHANGED",),
        "domain": ("XLS-MODEL-001",),
    },
    Aspect.VARIABLES: {
        "create": ("XLS-CREATE-RUNSTATE",),
        "revert": ("XLS-REVERT-MEMORY",),
        "delete": ("XLS-DELETE-CURRENT",),
        "refused": ("XLS-FAIL-UNCHANGED",),
        "domain": ("XLS-MODEL-001",),
    },
    Aspect.SECTORS: {
        "create": ("XLS-CREATE-RUNSTATE",),
        "revert": ("XLS-REVERT-DISKS",),
        "delete": ("XLS-DELETE-CURRENT",),
        "refused": ("XLS-FAIL-UNCHANGED",),
        "domain": ("XLS-MODEL-001",),
    },
    Aspect.LIST_NAMES: {
        "create": ("XLS-LIST-001",),
        "revert": ("XLS-REVERT-KEEPS",),
        "delete": ("XLS-DELETE-METADATA",),
        "refused": ("XLS-FAIL-UNCHANGED",),
        "domain": ("XLS-LIST-001",),
    },
    Aspect.LIST_ORDER: {"domain": ("XLS-LIST-ORDER",)},
    Aspect.LIST_FIELDS: {"domain": ("XLS-LIST-FIELDS",)},
    Aspect.CREATION_TIME: {"domain": ("XLS-META-TIME",)},
    Aspect.DEFAULT_NAME: {"domain": ("XLS-CREATE-DEFAULTNAME",)},
    Aspect.TAG_MISSING: {
        "create": ("XLS-CREATE-DISKS",),
        "revert": ("XLS-REVERT-KEEPS",),
        "delete": ("XLS-DELETE-OTHERS",),
        "refused": ("XLS-FAIL-UNCHANGED",),
        "domain": ("XLS-MODEL-001",),
    },
    Aspect.TAG_LEFT: {
        "create": ("XLS-CREATE-SELECTION",),
        "delete": ("XLS-DELETE-TAG",),
        "refused": ("XLS-CREATE-ATOMIC",),
        "domain": ("XLS-MODEL-001",),
    },
    Aspect.TAG_TWICE: {"domain": ("XLS-CREATE-DUPLICATE",)},
    Aspect.IMAGE_SOUND: {"domain": ("XLS-MODEL-IMAGE",)},
    Aspect.METADATA_SET: {"domain": ("XLS-META-FILE",)},
    Aspect.METADATA_FIELDS: {"domain": ("XLS-META-FIELDS",)},
    Aspect.METADATA_MODE: {"domain": ("XLS-META-MODE",)},
    Aspect.MEMORY_IMAGE: {"domain": ("XLS-META-MEMORY",)},
    Aspect.LEFTOVER: {
        "delete": ("XLS-DELETE-MEMORY",),
        "refused": ("XLS-CREATE-ATOMIC",),
        "domain": ("XLS-META-FILE",),
    },
    Aspect.USER_FILE: {"domain": ("XLS-CREATE-MEMTAKEN",)},
}


def broken_clauses(aspect: Aspect, step: Step) -> Clauses:
    """Return the clauses that are broken when `aspect` is wrong after `step`."""
    table = _CLAUSES[aspect]
    if step.refused is not None and "refused" in table:
        return table["refused"]
    return table.get(operation_of(step), table["domain"])
