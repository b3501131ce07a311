# SPDX-License-Identifier: LGPL-2.1-or-later
"""`libxl_domain_snapshot` and `libxl_disk_snapshot` as values, and their JSON form.

Field names are libxl's (proposal v4, libxl_types.idl of July 2014). Unknown keys are kept, so that a file
that another toolstack wrote loses nothing when we rewrite it; keys of our own start with ``xlsnap_``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import msgspec

from .errors import SnapshotDamagedError


class SnapshotType(enum.Enum):
    """`libxl_snapshot_type`: ANY = 0, INTERNAL = 1, EXTERNAL = 2; JSON has the words."""

    ANY = "any"
    INTERNAL = "internal"
    EXTERNAL = "external"


CONFIG_KEY = "xlsnap_config"
"""Our key for the domain's configuration at the time of the snapshot: revert needs it."""

ORDER_KEY = "xlsnap_order"
"""Our key that orders snapshots of one second: nanoseconds since the epoch."""


PARENT_KEY = "xlsnap_parent"
"""Our key for the name of the snapshot that the domain's state came from; absent for a first one."""


class DiskSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """`libxl_disk_snapshot`: the state of one disk in a snapshot.

    ``device`` is the vdev, ``name`` the tag inside the image (internal), ``path`` the image that holds the
    state, ``file`` the delta that the domain went on with (external), ``format`` that of ``path``.
    """

    device: str
    name: str
    path: str
    format: str
    type: SnapshotType = SnapshotType.INTERNAL
    file: str | None = None
    extra: Mapping[str, Any] = {}


class DomainSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """`libxl_domain_snapshot`: memory image and disk snapshots of one instant.

    ``creation_time`` is in seconds since the epoch; ``memory`` the absolute path of the memory image, None
    for a disk-only snapshot; of the five run states at most one is true, none for a snapshot that was
    taken of a stopped domain.
    """

    name: str
    description: str = ""
    creation_time: int = 0
    memory: str | None = None
    type: SnapshotType = SnapshotType.INTERNAL
    running: bool = False
    blocked: bool = False
    paused: bool = False
    shutdown: bool = False
    dying: bool = False
    disks: tuple[DiskSnapshot, ...] = ()
    extra: Mapping[str, Any] = {}

    @property
    def parent(self) -> str | None:
        """The snapshot that the domain's state came from, if it is known."""
        parent = self.extra.get(PARENT_KEY)
        return parent if isinstance(parent, str) else None

    @property
    def disk_only(self) -> bool:
        """Whether there is no memory image."""
        return self.memory is None

    @property
    def state_letters(self) -> str:
        """The run state as `xl list` shows it: ``r-----``, ``--p---``."""
        flags = (self.running, self.blocked, self.paused, self.shutdown, False, self.dying)
        return "".join(letter if on else "-" for letter, on in zip("rbpscd", flags, strict=True))

    @property
    def sort_key(self) -> tuple[int, int, str]:
        """Orders by creation time, within one second by our finer key, then by name."""
        order = self.extra.get(ORDER_KEY)
        return (self.creation_time, order if isinstance(order, int) else 0, self.name)


_RawDisks = list[dict[str, Any]]
_DISK_FIELDS = ("device", "name", "file", "format", "path", "type")
_DOMAIN_FIELDS = (
    *("name", "description", "creation_time", "memory", "type"),
    *("running", "blocked", "paused", "shutdown", "dying", "disks"),
)


def _to_builtins(value: Any, fields: tuple[str, ...]) -> dict[str, Any]:
    known = {field: getattr(value, field) for field in fields}
    if "disks" in known:
        known["disks"] = [_to_builtins(disk, _DISK_FIELDS) for disk in known["disks"]]
    return {**{key: item for key, item in known.items() if item is not None}, **value.extra}


def to_json(snapshot: DomainSnapshot) -> bytes:
    """Return the metadata file's content: libxl's JSON, one key a line, with a final newline."""
    raw = msgspec.json.encode(_to_builtins(snapshot, _DOMAIN_FIELDS))
    return msgspec.json.format(raw, indent=4) + b"\n"


def from_json(data: bytes, *, where: str) -> DomainSnapshot:
    """Read a metadata file's content; `where` names it in errors.

    :raise SnapshotDamagedError: if it is not JSON or not of the form.
    """
    try:
        raw = msgspec.json.decode(data, type=dict[str, Any])
        disks = tuple(_disk_from(item) for item in msgspec.convert(raw.get("disks") or [], _RawDisks))
        known = {key: raw[key] for key in _DOMAIN_FIELDS if key != "disks" and raw.get(key) is not None}
        extra = {key: item for key, item in raw.items() if key not in _DOMAIN_FIELDS}
        snapshot = msgspec.convert(known, DomainSnapshot)
        return msgspec.structs.replace(snapshot, disks=disks, extra=extra)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SnapshotDamagedError(f"{where}: not snapshot metadata: {error}") from error


def _disk_from(raw: Mapping[str, Any]) -> DiskSnapshot:
    known = {key: raw[key] for key in _DISK_FIELDS if raw.get(key) is not None}
    extra = {key: item for key, item in raw.items() if key not in _DISK_FIELDS}
    return msgspec.structs.replace(msgspec.convert(known, DiskSnapshot), extra=extra)
