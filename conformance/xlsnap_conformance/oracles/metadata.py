# SPDX-License-Identifier: LGPL-2.1-or-later
"""The metadata files, read straight from JSON, and the memory images beside them.

::

    snapshotdata-d.NAME.libxl-json    one file a snapshot, mode 0600
    NAME.save                         its memory image, if it was asked for with memory="yes"
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..model import Place, Snapshot, World
from ..trace import SCRATCH
from . import Aspect, Finding
from .chains import Chains, Key

PREFIX = "snapshotdata-d."
SUFFIX = ".libxl-json"
MEMORY_SUFFIX = ".save"

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700

_FLAGS = ("running", "blocked", "paused", "shutdown", "dying")


@dataclass(frozen=True, slots=True)
class Files:
    """A metadata directory as it was found: file name to mode, and the content of the metadata files."""

    directory: Path
    mode: int | None
    modes: Mapping[str, int]
    texts: Mapping[str, bytes]

    def parsed(self, name: str) -> dict[str, Any] | None:
        """Return the metadata of a snapshot, or None if there is none or it is not a JSON object."""
        try:
            value = json.loads(self.texts[f"{PREFIX}{name}{SUFFIX}"])
        except (KeyError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def disks(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the disks of all snapshots that have a device, each with the snapshot's name."""
        for filename in self.texts:
            name = filename[len(PREFIX) : -len(SUFFIX)]
            for disk in _disks(self.parsed(name) or {}):
                if isinstance(disk.get("device"), str):
                    yield name, disk

    def tags(self) -> dict[Key, str]:
        """Return (snapshot, vdev) to the tag inside the image, as the metadata names it."""
        return {
            (name, disk["device"]): disk["name"]
            for name, disk in self.disks()
            if isinstance(disk.get("name"), str)
        }

    def places(self) -> dict[Key, Place]:
        """Return (snapshot, vdev) to the image that holds the state, as the metadata names it."""
        return {
            (name, disk["device"]): Place(os.path.realpath(disk["path"]), disk["format"])
            for name, disk in self.disks()
            if isinstance(disk.get("path"), str) and isinstance(disk.get("format"), str)
        }


def read(directory: Path) -> Files:
    """Look at a metadata directory; one that does not exist is empty."""
    modes: dict[str, int] = {}
    texts: dict[str, bytes] = {}
    try:
        mode = stat.S_IMODE(directory.lstat().st_mode)
        for path in sorted(directory.iterdir()):
            modes[path.name] = stat.S_IMODE(path.lstat().st_mode)
            if path.name.startswith(PREFIX) and path.name.endswith(SUFFIX):
                texts[path.name] = path.read_bytes()
    except FileNotFoundError:
        return Files(directory, None, modes, texts)
    return Files(directory, mode, modes, texts)


Times = Mapping[str, tuple[int, int]]
"""Snapshot to the seconds since the epoch between which it was made."""


def check(
    world: World, files: Files, chains: Chains, scratch: Path, times: Times | None = None
) -> Iterator[Finding]:
    """Compare the metadata directory with the model."""
    wanted = {f"{PREFIX}{snapshot.name}{SUFFIX}" for snapshot in world.snapshots}
    memory = {f"{name}{MEMORY_SUFFIX}" for name in world.memory_names}
    found = set(files.modes)
    if wanted - found:
        yield Finding(
            Aspect.METADATA_SET, "a snapshot has no metadata file", sorted(wanted), sorted(files.texts)
        )
    if memory - found:
        summary = "a snapshot has no memory image"
        yield Finding(Aspect.DEFAULT_MEMORY, summary, sorted(memory), sorted(found - set(files.texts)))
    if more := found - wanted - memory:
        summary = f"{sorted(more)[0]} belongs to no snapshot"
        left = all(name.endswith(MEMORY_SUFFIX) for name in more)
        aspect = Aspect.MEMORY_LEFT if left else Aspect.FILE_LEFT
        yield Finding(aspect, summary, sorted(wanted | memory), sorted(found))
    yield from _modes(files)
    for snapshot in world.snapshots:
        if f"{PREFIX}{snapshot.name}{SUFFIX}" in found:
            yield from _content(snapshot, files, chains, scratch, times)


def _modes(files: Files) -> Iterator[Finding]:
    if files.mode not in (None, DIRECTORY_MODE):
        yield Finding(
            Aspect.METADATA_MODE, "the metadata directory has another mode", "0700", f"{files.mode:04o}"
        )
    for name, mode in files.modes.items():
        if mode != FILE_MODE:
            yield Finding(Aspect.METADATA_MODE, f"{name} has another mode", "0600", f"{mode:04o}")


def _content(
    snapshot: Snapshot, files: Files, chains: Chains, scratch: Path, times: Times | None
) -> Iterator[Finding]:
    value = files.parsed(snapshot.name)
    if value is None:
        summary = f"the metadata of {snapshot.name!r} is not a JSON object"
        content = files.texts[f"{PREFIX}{snapshot.name}{SUFFIX}"]
        yield Finding(
            Aspect.METADATA_FIELDS, summary, "a JSON object", content[:200].decode(errors="replace")
        )
        return
    states = [flag for flag in _FLAGS if value.get(flag) is True]
    running = states in (["running"], ["blocked"])
    default = str(files.directory / f"{snapshot.name}{MEMORY_SUFFIX}")
    memory = {"no": None, "yes": default}.get(snapshot.memory, snapshot.memory.replace(SCRATCH, str(scratch)))
    disks = {vdev: _disk(snapshot, vdev, chains) for vdev in snapshot.disks}
    found = {
        disk.get("device"): _told(disk, disks.get(str(disk.get("device")), _FIELDS)) for disk in _disks(value)
    }
    external = any(found.get(vdev) != disks[vdev] for vdev in snapshot.external)
    for aspect, key, expected, observed in (
        (Aspect.METADATA_FIELDS, "name", snapshot.name, value.get("name")),
        (Aspect.METADATA_FIELDS, "description", snapshot.description, value.get("description") or ""),
        (Aspect.METADATA_TYPE, "type", snapshot.type, value.get("type", "any")),
        (Aspect.METADATA_MEMORY, "memory", memory, value.get("memory")),
        (Aspect.METADATA_STATE, "run state", [snapshot.state], ["running"] if running else states),
        (Aspect.METADATA_EXTERNAL if external else Aspect.METADATA_DISKS, "disks", disks, found),
    ):
        if observed != expected:
            yield Finding(aspect, f"the metadata of {snapshot.name!r} has other {key}", expected, observed)
    created = value.get("creation_time")
    first, last = (times or {}).get(snapshot.name, (0, 1 << 63))
    if not isinstance(created, int) or not first <= created <= last:
        summary = f"the metadata of {snapshot.name!r} has another creation_time"
        yield Finding(Aspect.CREATION_TIME, summary, f"seconds, {first} to {last}", created)


_FIELDS = ("type", "format", "path")


def _disk(snapshot: Snapshot, vdev: str, chains: Chains) -> dict[str, str]:
    """Return what the metadata must tell of a disk."""
    place = chains.places[snapshot.name, vdev]
    told = {"type": "internal", "format": place.format, "path": place.path}
    if vdev not in snapshot.external:
        return told
    overlay = chains.overlays.get((snapshot.name, vdev))
    return {**told, "type": "external"} | ({"file": overlay} if overlay else {})


def _told(disk: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Return what the metadata tells of a disk; absolute paths without symbolic links."""
    paths = {key for key in ("path", "file") if str(disk.get(key)).startswith("/")}
    return {key: os.path.realpath(disk[key]) if key in paths else disk.get(key) for key in keys}


def _disks(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    disks = value.get("disks")
    return [disk for disk in disks if isinstance(disk, dict)] if isinstance(disks, list) else []
