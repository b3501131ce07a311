# SPDX-License-Identifier: LGPL-2.1-or-later
"""What `xl list` prints, as values (pure)."""

from __future__ import annotations

import re

import msgspec

from ..domain import RunState


class Row(msgspec.Struct, frozen=True):
    """A domain as `xl list -v` has it; ``cpu_seconds`` is CPU time used."""

    name: str
    domid: int
    run_state: RunState
    cpu_seconds: float
    uuid: str


_ROW = re.compile(
    r"(?P<name>.*?) +(?P<domid>\d+) +\d+ +\d+ +(?P<letters>[rbpscd-]{6}) +(?P<seconds>[\d.]+) "
    r"(?P<uuid>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?: |$)"
)

_STRONGEST_FIRST = "dcspbr"
"""Several letters can be set: one that has shut down may also be paused."""


def parse_rows(text: str) -> list[Row]:
    """Return the domains in the output of `xl list -v`, without dom0."""
    found = (_ROW.match(line.replace("\t", " ")) for line in text.splitlines())
    rows = (
        Row(
            match["name"],
            int(match["domid"]),
            run_state(match["letters"]),
            float(match["seconds"]),
            match["uuid"],
        )
        for match in found
        if match
    )
    return [row for row in rows if row.domid != 0]


def run_state(letters: str) -> RunState:
    """Return the state in the column of `xl list`; one that waits for a processor has no letter, and runs."""
    return next((RunState(letter) for letter in _STRONGEST_FIRST if letter in letters), RunState.RUNNING)
