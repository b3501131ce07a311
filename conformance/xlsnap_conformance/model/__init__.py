# SPDX-License-Identifier: LGPL-2.1-or-later
"""The model: what a domain and its snapshots must be after each step (pure).

`world` says what there is, `refusals` which steps must be refused and why, `effects` what the others do.
`apply` puts them together. Nothing here is known of files of the implementation's choice: whether a snapshot
is internal or external makes no difference for what its domain reads, only for what may be asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from .. import trace as do
from ..trace import Step
from .effects import EFFECTS, possible
from .refusals import PERMITTED, REFUSALS, Refused, bad_name, first_refusal
from .world import ACTIVE, Place, RunState, Snapshot, World, choices

__all__ = [
    "ACTIVE",
    "PERMITTED",
    "REFUSALS",
    "Outcome",
    "Place",
    "Refused",
    "RunState",
    "Snapshot",
    "World",
    "apply",
    "bad_name",
    "choices",
    "possible",
]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What must come of a step: the world after it, and why it is refused if it is.

    ``permitted`` is a refusal that is right too; then the world stays as it was.
    """

    after: World
    refused: Refused | None = None
    permitted: Refused | None = None


def apply(world: World, step: Step, *, chosen: str | None = None) -> Outcome:
    """Say what must come of a step. `chosen` is the name of a snapshot that was created without one."""
    refused = first_refusal(REFUSALS, world, step)
    if refused is not None:
        return Outcome(world, refused)
    if isinstance(step, do.Create) and step.name is None:
        step = msgspec.structs.replace(step, name=chosen or "(unnamed)")
    after = EFFECTS[type(step)](world, step)
    return Outcome(after, permitted=first_refusal(PERMITTED, world, step))
