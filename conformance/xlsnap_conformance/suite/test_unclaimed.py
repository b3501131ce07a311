# SPDX-License-Identifier: LGPL-2.1-or-later
"""What works though it is not claimed: it breaks no clause, but its author will want to know.

A driver should refuse what it does not claim as ``unsupported``; whatever else it does is no failure here.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from xlsnap_conformance.capabilities import CAPABILITIES
from xlsnap_conformance.unclaimed import shortest, works

from .conftest import Subjects, Tell
from .test_scenarios import TRACES

SECONDS = 30
"""When this time is over nothing more is tried."""


def test_what_is_not_claimed(
    subjects: Subjects, tell: Tell, record_property: Callable[[str, object], None]
) -> None:
    """Play the shortest trace of each capability that is not claimed."""
    claimed = subjects.get().capabilities
    end = time.monotonic() + SECONDS
    seen: dict[str, list[str]] = {}
    for capability in CAPABILITIES:
        if capability in claimed:
            continue
        trace = shortest(capability, claimed, TRACES.values())
        if trace is None:
            what = "not tried, no scenario shows it alone"
        elif time.monotonic() >= end:
            what = "not tried for want of time"
        elif works(trace, capability, subjects.get()):
            what = "works but is not claimed"
            record_property("unclaimed", capability)
        else:
            what = "does not work"
        seen.setdefault(what, []).append(capability)
    tell("; ".join(f"{what}: {', '.join(names)}" for what, names in seen.items()) or "everything is claimed")
