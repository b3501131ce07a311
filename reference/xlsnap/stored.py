# SPDX-License-Identifier: LGPL-2.1-or-later
"""Snapshots as their metadata files have them: one by one, or all with what is wrong with some."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import msgspec

from .errors import HostError, SnapshotDamagedError, XlsnapError
from .layout import COMPLETE_PREFIX, HIDDEN_PREFIX, DomainPaths, name_of_metadata
from .snapshot import DomainSnapshot, from_json


class StoredSnapshots(Mapping[str, DomainSnapshot]):
    """The complete snapshots of a domain, read from their files one by one as they are asked for.

    An operation on one snapshot costs the same however many there are, and does not fail for the damage of
    another. With `hidden` they are those that are not complete, or being deleted.
    """

    def __init__(self, paths: DomainPaths, *, hidden: bool = False) -> None:
        self._path = paths.hidden_metadata if hidden else paths.metadata
        prefix = HIDDEN_PREFIX if hidden else COMPLETE_PREFIX
        try:
            filenames = os.listdir(paths.snapshots)
        except FileNotFoundError:
            filenames = []
        except OSError as error:
            raise HostError(f"cannot read {paths.snapshots}: {error.strerror}") from error
        self._names = {name for item in filenames if (name := name_of_metadata(item, prefix)) is not None}

    def __getitem__(self, name: str) -> DomainSnapshot:
        if name not in self._names:
            raise KeyError(name)
        path = self._path(name)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise KeyError(name) from None
        except OSError as error:
            raise HostError(f"cannot read {path}: {error.strerror}") from error
        snapshot = from_json(content, where=str(path))
        if snapshot.name != name:
            raise SnapshotDamagedError(f"{path} describes snapshot {snapshot.name!r}")
        return snapshot

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class DamagedSnapshot(msgspec.Struct, frozen=True):
    """A snapshot of which not even the metadata can be read, and why."""

    name: str
    error: XlsnapError


class Listing(msgspec.Struct, frozen=True):
    """All snapshots of a domain: those that can be read by creation time, the others by name."""

    snapshots: tuple[DomainSnapshot, ...] = ()
    damaged: tuple[DamagedSnapshot, ...] = ()


def listing(stored: StoredSnapshots) -> Listing:
    """Read all snapshots, as far as they can be read; one that is deleted meanwhile is none."""
    found, damaged = [], []
    for name in sorted(stored):
        try:
            found.append(stored[name])
        except KeyError:
            continue
        except XlsnapError as error:
            damaged.append(DamagedSnapshot(name, error))
    return Listing(tuple(sorted(found, key=lambda snapshot: snapshot.sort_key)), tuple(damaged))
