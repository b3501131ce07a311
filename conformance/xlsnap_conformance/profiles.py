# SPDX-License-Identifier: LGPL-2.1-or-later
"""Profiles of a run: which clauses it is about, and how hard the suite tries.

Every profile that the specification names (``core``, ``memory`` …) can be run by its name. `EXTRA` are those
that exist for the run only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Effort(StrEnum):
    """How long generated scenarios are searched for a failure."""

    QUICK = "quick"
    NORMAL = "normal"
    DEEP = "deep"


EFFORTS: dict[Effort, tuple[int, int]] = {
    Effort.QUICK: (2, 15),
    Effort.NORMAL: (8, 30),
    Effort.DEEP: (60, 60),
}
"""Number of scenarios for each shape, and of actions in each."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A choice of clauses and an effort; ``group`` is the specification's profile, None for all clauses."""

    name: str
    group: str | None
    effort: Effort
    text: str

    def wants(self, groups: Iterable[str]) -> bool:
        """Return whether a clause of these profiles of the specification belongs to the run."""
        return self.group is None or self.group in groups


EXTRA = (
    Profile("quick", "core", Effort.QUICK, "the clauses of core, with few generated scenarios"),
    Profile("all", None, Effort.NORMAL, "every clause"),
    Profile("deep", None, Effort.DEEP, "every clause, with many long generated scenarios"),
)


def available(groups: Iterable[str]) -> dict[str, Profile]:
    """Return all profiles by name; ``groups`` are the profiles that the specification names."""
    named = [
        Profile(group, group, Effort.NORMAL, f"the clauses of the specification's profile {group}")
        for group in sorted(groups)
    ]
    return {profile.name: profile for profile in (*EXTRA, *named)}
