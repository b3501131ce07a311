# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mutants: toolstacks that are broken in one way each, to prove that the suite can fail.

Each is a small patch over the reference's plan, executor, host or store, and names the clauses that it
breaks, and the bug of a real toolstack that it resembles. The driver's option ``--mutant NAME`` makes the
whole process that toolstack. The suite must catch each by a clause of its own, and pass the reference.

Add one by writing a function that patches, with the decorator `mutant`, in the module of its operation:
``@mutant("XLS-REVERT-004", bug="…", test="memory-and-disks")``. ``part="model"`` is for patches of the
suite's own model, under which the suite must find fault with the reference. `elsewhere` enters what only a
test of this project can judge, because it breaks something that the suite cannot reach.
"""

from . import (
    branches,
    command_line,
    create,
    delete,
    external,
    failure,
    interrupted,
    language,
    live,
    merge,
    metadata,
    model,
    revert,
    wrong_model,
)
from .catalogue import CATALOGUE, Mutant

__all__ = [
    "CATALOGUE",
    "Mutant",
    "branches",
    "command_line",
    "create",
    "delete",
    "external",
    "failure",
    "interrupted",
    "language",
    "live",
    "merge",
    "metadata",
    "model",
    "revert",
    "wrong_model",
]
