# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which clauses a test can find broken: what it names, and what counts when it has passed.

A scenario that needs more than core says nothing of core: an implementation without external snapshots would
otherwise be told that it lacks something of core. Only the clauses that such a scenario is for count.
"""

from __future__ import annotations

import msgspec

from . import trace as do
from .clauses import Clause, load_clauses
from .expectations import OF_OVERLAYS, Clauses, all_clauses, broken_clauses
from .model import World, apply
from .oracles import Aspect, Finding
from .trace import Trace
from .wording import capabilities

BEYOND_CORE: tuple[str, ...] = ("external", "mixed", "live", "delete-children")
"""Capabilities that core does not ask for."""


def needs(clause: Clause) -> str | None:
    """Return the capability beyond core without which nothing can be said of a clause."""
    if "live" in clause.profiles:
        return "live"
    if "mixed" in clause.profiles:
        return "mixed"
    without = {"disk-internal", "config"}.intersection(clause.profiles)
    return "external" if "disk-external" in clause.profiles and not without else None


ORDER = "XLS-LIST-002"
"""The clause that needs the capability ``list-order``; only scenarios that are for it count."""


def is_of_metadata(clause: str) -> bool:
    """Say whether a clause can be found broken only where the implementation keeps metadata files."""
    return clause.startswith("XLS-META-")


def _not_of_all(clause: str) -> bool:
    return is_of_metadata(clause) or clause == ORDER


def clauses_of(trace: Trace) -> Clauses:
    """Return all clauses that playing a trace can find broken: those that it is for come first.

    Clauses of metadata files are left out (see `metadata_clauses`), and that of the list's order.
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
            able = [aspect for aspect in Aspect if outcome.after.overlaid or aspect not in OF_OVERLAYS]
            for finding in (Finding(aspect, "", None, None, vdev) for aspect in able for vdev in vdevs):
                found |= dict.fromkeys(broken_clauses(finding, step, before))
        before = outcome.after
    return tuple(clause for clause in found if clause in trace.clauses or not _not_of_all(clause))


def counted(trace: Trace) -> Clauses:
    """Return the clauses of a trace that its result is a result of."""
    able = {capability for clause in trace.clauses if (capability := needs(load_clauses()[clause]))}
    able |= capabilities(trace).intersection(BEYOND_CORE)
    found = dict.fromkeys(trace.clauses)
    found |= dict.fromkeys(clause for clause in clauses_of(trace) if _counts(clause, frozenset(able)))
    return tuple(found)


def generated(*able: str) -> Clauses:
    """Return the clauses of generated scenarios; with these capabilities beyond core, only theirs."""
    return tuple(
        clause
        for clause in all_clauses()
        if clause not in _FIXED_ONLY and not _not_of_all(clause) and _counts(clause, frozenset(able))
    )


def metadata_clauses(*able: str) -> Clauses:
    """Return the clauses of metadata files that all scenarios test, or those of capabilities beyond core."""
    wanted = (clause for clause in all_clauses() if is_of_metadata(clause))
    return tuple(sorted(clause for clause in wanted if _counts(clause, frozenset(able))))


_FIXED_ONLY = frozenset({"XLS-DELETE-016", "XLS-CREATE-031", "XLS-REVERT-013"})
"""Clauses of things that no generated scenario does."""


def _counts(clause: str, able: frozenset[str]) -> bool:
    known = load_clauses()[clause]
    return needs(known) in able if able else needs(known) is None
