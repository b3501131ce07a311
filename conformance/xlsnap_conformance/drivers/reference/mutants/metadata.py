# SPDX-License-Identifier: LGPL-2.1-or-later
"""Toolstacks whose metadata files or list are broken."""

from __future__ import annotations

from typing import Any

from xlsnap import layout, store
from xlsnap.errors import DomainStateError, UnknownDomainError
from xlsnap.snapshot import SnapshotType
from xlsnap.toolstack import Toolstack

from .catalogue import edit_description, edit_metadata, mutant, replace, wrap


@mutant("XLS-META-003", bug="xl, July 2014: the path is blanked when it is stored")
def path_blanked() -> None:
    """Metadata does not tell which image holds a disk's snapshot."""

    def blank(snapshot: Any) -> Any:
        return replace(snapshot, disks=tuple(replace(disk, path="") for disk in snapshot.disks))

    edit_metadata(blank)


@mutant("XLS-META-007")
def metadata_for_all_to_read() -> None:
    """Metadata files have mode 0644."""

    def write(original: Any, self: Any, paths: Any, name: str, content: bytes) -> None:
        original(self, paths, name, content)
        paths.metadata(name).chmod(0o644)

    wrap(store.Store, "write_metadata", write)


@mutant("XLS-LIST-002")
def newest_first() -> None:
    """The list begins with the newest."""
    wrap(Toolstack, "snapshot_list", lambda original, self, ref: list(reversed(original(self, ref))))


@mutant("XLS-LIST-006")
def not_listed_when_stopped() -> None:
    """The snapshots of a stopped domain are not listed."""

    def listed(original: Any, self: Toolstack, ref: str) -> Any:
        if not self.host.is_active(self.resolve(ref)):
            raise DomainStateError(f"domain {ref!r} is not running")
        return original(self, ref)

    wrap(Toolstack, "snapshot_list", listed)


@mutant("XLS-LIST-004")
def run_state_not_listed() -> None:
    """The list tells of every snapshot that the domain was running."""

    def listed(original: Any, self: Toolstack, ref: str) -> Any:
        return [replace(snapshot, running=True, paused=False) for snapshot in original(self, ref)]

    wrap(Toolstack, "snapshot_list", listed)


@mutant("XLS-LIST-007", test="test_refusals.py::test_unknown_domain[list]")
def unknown_domain_is_empty() -> None:
    """The list of a domain that does not exist is empty."""

    def listed(original: Any, self: Toolstack, ref: str) -> Any:
        try:
            return original(self, ref)
        except UnknownDomainError:
            return []

    wrap(Toolstack, "snapshot_list", listed)


@mutant("XLS-CREATE-018")
def creation_time_in_local_time() -> None:
    """The creation time is off by an hour."""
    edit_description(lambda snapshot: replace(snapshot, creation_time=snapshot.creation_time + 3600))


@mutant("XLS-META-001")
def backup_beside_the_metadata() -> None:
    """A second copy of the metadata is left beside it."""

    def write(original: Any, self: Any, paths: Any, name: str, content: bytes) -> None:
        original(self, paths, name, content)
        backup = paths.metadata(name).with_suffix(".bak")
        backup.write_bytes(content)
        backup.chmod(0o600)

    wrap(store.Store, "write_metadata", write)


@mutant("XLS-META-002")
def type_not_told() -> None:
    """The type of the snapshot is "any"."""
    edit_metadata(lambda snapshot: replace(snapshot, type=SnapshotType.ANY))


@mutant("XLS-META-005")
def memory_path_relative() -> None:
    """The path of the memory image is relative to its directory."""

    def shorten(snapshot: Any) -> Any:
        return replace(snapshot, memory=snapshot.memory and snapshot.memory.rpartition("/")[2])

    edit_metadata(shorten)


@mutant("XLS-META-010")
def memory_image_of_another_name() -> None:
    """The memory image is NAME.mem."""
    layout.MEMORY_SUFFIX = ".mem"


@mutant("XLS-LIST-011")
def empty_list_is_an_error() -> None:
    """A domain without snapshots cannot be listed."""

    def listed(original: Any, self: Toolstack, ref: str) -> Any:
        found = original(self, ref)
        if not found:
            raise DomainStateError(f"domain {ref!r} has no snapshots")
        return found

    wrap(Toolstack, "snapshot_list", listed)


@mutant("XLS-LIST-009", test="test_domains.py::test_order_within_a_second")
def order_by_name_within_a_second() -> None:
    """Snapshots of the same second are listed by name."""

    def listed(original: Any, self: Toolstack, ref: str) -> Any:
        return sorted(original(self, ref), key=lambda snapshot: (snapshot.creation_time, snapshot.name))

    wrap(Toolstack, "snapshot_list", listed)


@mutant("XLS-MODEL-008")
def forgotten_by_a_fresh_start() -> None:
    """A fresh start of the domain forgets its snapshots."""

    async def create(original: Any, self: Toolstack, config: Any, **kwargs: Any) -> Any:
        info = await original(self, config, **kwargs)
        for snapshot in self.snapshot_list(info.uuid):
            await self.snapshot_delete(info.uuid, snapshot.name)
        return info

    wrap(Toolstack, "create", create)
