# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an implementation may or may not be able to do. What it claims is tested, the rest is `unsupported`.

| capability | what can be done |
|---|---|
| memory | snapshots with memory |
| memory-path | with the memory image at a path of the user's |
| disk-only | without memory |
| disk-selection | of some of the disks |
| external | external snapshots of disks, whose overlays go where the user wants or to a place of its choice |
| external-memory-path, external-disk-only, external-disk-selection | as above, where all disks are external |
| external-revert | returning to a snapshot with external disks |
| mixed | internal and external disks in one snapshot |
| live | the guest goes on while its memory is being written; claimed only where the host allows it |
| snapshot-config | snapshots from an xl.snapshot.conf |
| dry-run | showing what would be done |
| list-order | the list is in order of creation |
| list-stopped, revert-stopped, delete-stopped | list, revert, delete of a stopped domain |
| revert | returning to a snapshot |
| revert-paused | with the domain left paused |
| delete | deleting a snapshot |
| delete-children | deleting a snapshot together with all that descend from it, or only those |
| metadata-files | metadata in libxl's JSON |
| pause | pause and unpause |
| shutdown-state | a domain that has powered off can be kept (``on_poweroff="preserve"``) |
| cli | xl's command line for snapshots |
| parse | telling what a text in the language of configuration files means |
| concurrency | several drivers in one directory at a time: two operations at once |
| crash | a driver, on this machine, may be killed in the middle of an operation: the next one recovers |
"""

from __future__ import annotations

from typing import Literal, get_args

Capability = Literal[
    "memory",
    "memory-path",
    "disk-only",
    "disk-selection",
    "external",
    "external-memory-path",
    "external-disk-only",
    "external-disk-selection",
    "external-revert",
    "mixed",
    "live",
    "snapshot-config",
    "dry-run",
    "list-order",
    "list-stopped",
    "revert",
    "revert-paused",
    "revert-stopped",
    "delete",
    "delete-stopped",
    "delete-children",
    "metadata-files",
    "pause",
    "shutdown-state",
    "cli",
    "parse",
    "concurrency",
    "crash",
]

CAPABILITIES: tuple[str, ...] = get_args(Capability)

OF_PROFILE: dict[str, Capability] = {
    "disk-external": "external",
    "mixed": "mixed",
    "memory": "memory",
    "live": "live",
    "metadata-files": "metadata-files",
    "crash": "crash",
    "concurrency": "concurrency",
    "cli": "cli",
}
"""What must be claimed by whoever claims a profile of the specification. The others ask for no single one."""
