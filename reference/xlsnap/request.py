# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a user asks `snapshot-create` for: configuration file and options, made one (pure)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
from xlsnap_grammars import SnapshotConfig, SnapshotDisk

from .errors import ConfigConflictError


class SnapshotRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot to be made.

    ``name`` None asks for the default name; ``memory_path`` None with ``memory`` for the default place;
    ``disks`` None for all writable disks, whose snapshots are then of the ``type`` (None: internal). With
    ``live`` the guest runs on while its memory is written.

    :raise ConfigConflictError: if it asks for a live snapshot without memory.
    """

    name: str | None = None
    description: str = ""
    memory: bool = True
    memory_path: str | None = None
    disks: tuple[SnapshotDisk, ...] | None = None
    type: Literal["internal", "external"] | None = None
    live: bool = False

    def __post_init__(self) -> None:
        if self.live and not self.memory:
            raise ConfigConflictError(
                "a live snapshot needs memory: disks alone hardly pause the guest",
                hint="leave live out, or ask for memory",
            )


def combine(
    config: SnapshotConfig | None, *, name: str | None = None, disk_only: bool = False, live: bool = False
) -> SnapshotRequest:
    """Join a configuration file and the options `-n`, `-D` and `--live`.

    Without a file the default is memory and all writable disks; a file without ``memory`` means disk-only.

    :raise ConfigConflictError: if they disagree (xl man page, snapshot-create).
    """
    if disk_only and live:
        raise ConfigConflictError(
            "option -D asks for disks only, --live for the memory of a running guest",
            hint="drop one of the two",
        )
    if config is None:
        return SnapshotRequest(name=name, memory=not disk_only, live=live)
    if conflict := next(_conflicts(config, name, disk_only, live), None):
        raise conflict
    memory = config.memory not in (None, "no")
    return SnapshotRequest(
        name=name if name is not None else config.name,
        description=config.description or "",
        memory=memory,
        memory_path=config.memory if memory and config.memory != "yes" else None,
        disks=config.disks,
        type=config.type,
        live=live or bool(config.live),
    )


def _conflicts(
    config: SnapshotConfig, name: str | None, disk_only: bool, live: bool
) -> Iterator[ConfigConflictError]:
    """Yield what a configuration file and the options contradict each other in."""
    memory = config.memory not in (None, "no")
    if name is not None and config.name is not None and name != config.name:
        yield ConfigConflictError(
            f"the configuration file names the snapshot {config.name!r}, option -n {name!r}",
            hint="give the name once",
        )
    if disk_only and memory:
        yield ConfigConflictError(
            f"the configuration file has memory={config.memory!r}, option -D asks for disks only",
            hint="drop one of the two",
        )
    if disk_only and config.disks is None and config.type == "external":
        yield ConfigConflictError(
            "option -D makes internal snapshots, the configuration file has type='external'",
            hint="drop -D: a file without memory is disk-only already",
        )
    externals = [disk.vdev for disk in config.disks or () if disk.type == "external"]
    if disk_only and externals:
        yield ConfigConflictError(
            f"option -D makes internal snapshots, the file asks for an external one of {externals[0]}",
            hint="drop -D: a file without memory is disk-only already",
        )
    if live and config.live is False:
        yield ConfigConflictError(
            "the configuration file has live=0, option --live asks for a live snapshot",
            hint="drop one of the two",
        )
    if live and not memory:
        yield ConfigConflictError(
            "option --live saves the memory of a running guest, the configuration file asks for disks only",
            hint='drop --live, or add memory = "yes" to the file',
        )
