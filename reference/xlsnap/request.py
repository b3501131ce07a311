# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a user asks `snapshot-create` for: configuration file and options, made one (pure)."""

from __future__ import annotations

import msgspec
from xlsnap_grammars import SnapshotConfig, SnapshotDisk

from .errors import ConfigConflictError


class SnapshotRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot to be made.

    ``name`` None asks for the default name; ``memory_path`` None with ``memory`` for the default place;
    ``disks`` None for all writable disks.
    """

    name: str | None = None
    description: str = ""
    memory: bool = True
    memory_path: str | None = None
    disks: tuple[SnapshotDisk, ...] | None = None


def combine(
    config: SnapshotConfig | None, *, name: str | None = None, disk_only: bool = False
) -> SnapshotRequest:
    """Join a configuration file and the options `-n` and `-D`.

    Without a file the default is memory and all writable disks; a file without ``memory`` means disk-only.

    :raise ConfigConflictError: if they disagree (xl man page, snapshot-create).
    """
    if config is None:
        return SnapshotRequest(name=name, memory=not disk_only)
    if name is not None and config.name is not None and name != config.name:
        raise ConfigConflictError(
            f"the configuration file names the snapshot {config.name!r}, option -n {name!r}",
            hint="give the name once",
        )
    memory = config.memory not in (None, "no")
    if disk_only and memory:
        raise ConfigConflictError(
            f"the configuration file has memory={config.memory!r}, option -D asks for disks only",
            hint="drop one of the two",
        )
    externals = [disk.vdev for disk in config.disks or () if disk.type == "external"]
    if disk_only and externals:
        raise ConfigConflictError(
            f"option -D makes internal snapshots, the file asks for an external one of {externals[0]}",
            hint="drop -D: a file without memory is disk-only already",
        )
    return SnapshotRequest(
        name=name if name is not None else config.name,
        description=config.description or "",
        memory=memory,
        memory_path=config.memory if memory and config.memory != "yes" else None,
        disks=config.disks,
    )
