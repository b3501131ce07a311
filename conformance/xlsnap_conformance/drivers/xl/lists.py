# SPDX-License-Identifier: LGPL-2.1-or-later
"""What `xl` prints of domains and snapshots, as values of the protocol (pure)."""

from __future__ import annotations

import calendar
import json
import re
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from ... import protocol as p
from ..serving import Refused

# --- domains ----------------------------------------------------------------------------------------------

_ROW = re.compile(
    r"(?P<name>.*?) +(?P<domid>\d+) +\d+ +\d+ +(?P<letters>[rbpscd-]{6}) +[\d.]+ "
    r"(?P<uuid>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?: |$)"
)

_STATES: tuple[tuple[str, p.DomainState], ...] = (
    ("d", "shutdown"),
    ("s", "shutdown"),
    ("c", "shutdown"),
    ("p", "paused"),
)


def domains(text: str) -> tuple[p.ListedDomain, ...]:
    """Return the domains in the output of `xl list -v`, without dom0. One without a letter runs."""
    found = filter(None, (_ROW.match(line.replace("\t", " ")) for line in text.splitlines()))
    return tuple(
        p.ListedDomain(
            name=match["name"],
            uuid=match["uuid"],
            domid=int(match["domid"]),
            state=next((state for letter, state in _STATES if letter in match["letters"]), "running"),
        )
        for match in found
        if match["domid"] != "0"
    )


def disks(text: str, domain: str) -> tuple[p.DiskInUse, ...]:
    """Return the disks of a domain, by its name, in the output of `xl list -l`.

    :raise Refused: if it is not there, or the output is not what xl prints.
    """
    found = _json(text, "list -l")
    entries = found if isinstance(found, list) else [found]
    for entry in entries:
        config = entry.get("config", {}) if isinstance(entry, dict) else {}
        if config.get("c_info", {}).get("name") == domain:
            return tuple(
                p.DiskInUse(
                    vdev=disk["vdev"], path=disk.get("pdev_path") or "", format=disk.get("format", "raw")
                )
                for disk in config.get("disks", ())
            )
    raise Refused("bug", f"xl list -l does not show the domain {domain}, which xl list does")


# --- snapshots --------------------------------------------------------------------------------------------


def snapshots(text: str) -> tuple[p.ListedSnapshot, ...]:
    """Return the snapshots in the output of `xl snapshot-list -o json`: libxl's field names (XLS-CLI-008).

    :raise Refused: if it has another form.
    """
    found = _json(text, "snapshot-list -o json")
    if not isinstance(found, list):
        raise Refused("bug", "xl snapshot-list -o json prints no list")
    return tuple(map(_snapshot, found))


def _snapshot(item: Any) -> p.ListedSnapshot:
    try:
        flags = zip("rbpsd", ("running", "blocked", "paused", "shutdown", "dying"), strict=True)
        memory = item.get("memory") or None
        row = {
            "name": item["name"],
            "description": item.get("description", ""),
            "creation_time": item["creation_time"],
            "memory": memory,
            "disk_only": memory is None,
            "state": next((letter for letter, flag in flags if item.get(flag)), ""),
            "disks": [
                {"vdev": disk["device"], "type": "external" if disk.get("type") == "external" else "internal"}
                for disk in item.get("disks", ())
            ],
        }
        return msgspec.convert(row, p.ListedSnapshot)
    except (KeyError, TypeError, AttributeError, msgspec.ValidationError) as error:
        raise Refused("bug", f"xl snapshot-list -o json: a snapshot of another form: {error!r}") from None


_HEADINGS = ("TAG", "NAME", "DATE", "STATE", "DISK ONLY")


def table(text: str) -> tuple[p.ListedSnapshot, ...]:
    """Return the snapshots in the table of `xl snapshot-list` (XLS-CLI-009), with its dates in UTC.

    It tells neither disks nor descriptions, and names can have spaces: columns are where the headings are.

    :raise Refused: if it has another form.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return ()
    begins = [lines[0].find(heading) for heading in _HEADINGS]
    if -1 in begins or begins != sorted(begins):
        raise Refused("bug", f"xl snapshot-list prints no table: {lines[0]!r}")
    return tuple(_table_row(line, begins) for line in lines[1:])


def _table_row(line: str, begins: Sequence[int]) -> p.ListedSnapshot:
    ends = [*begins[1:], len(line)]
    _, name, date, letters, only = (line[begin:end].strip() for begin, end in zip(begins, ends, strict=True))
    try:
        created = calendar.timegm(time.strptime(date, "%Y-%m-%d %H:%M:%S"))
        row = {
            "name": name,
            "creation_time": created,
            "disk_only": {"yes": True, "no": False}[only.lower()],
            "state": letters.replace("-", ""),
        }
        return msgspec.convert(row, p.ListedSnapshot)
    except (ValueError, KeyError, msgspec.ValidationError) as error:
        raise Refused("bug", f"xl snapshot-list: a row of another form: {line!r} ({error})") from None


def _json(text: str, command: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Refused("bug", f"xl {command} prints no JSON: {error}") from None
