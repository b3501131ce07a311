# SPDX-License-Identifier: LGPL-2.1-or-later
"""Toolstacks whose metadata files or list are broken."""

from __future__ import annotations

import os
import time
from typing import Any

from xlsnap import layout, plan, store
from xlsnap import snapshot as snapshots
from xlsnap import stored as stored_files
from xlsnap.errors import DomainStateError, SnapshotDamagedError, UnknownDomainError
from xlsnap.snapshot import SnapshotType
from xlsnap.stored import StoredSnapshots
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


def _only_in_the_file(written: Any, listed: Any) -> None:
    """Change what metadata says, but not what is listed."""
    edit_metadata(written)
    wrap(
        Toolstack,
        "snapshot_list",
        lambda original, self, ref: [listed(snapshot) for snapshot in original(self, ref)],
    )


@mutant("XLS-META-004", test="test_metadata.py::test_metadata[descriptions]")
def local_time_in_the_file() -> None:
    """The file has the creation time in seconds of local time, an hour east."""
    _only_in_the_file(
        lambda snapshot: replace(snapshot, creation_time=snapshot.creation_time + 3600),
        lambda snapshot: replace(snapshot, creation_time=snapshot.creation_time - 3600),
    )


@mutant(
    "XLS-META-006",
    bug="a toolstack pauses a domain to snapshot it, and stores that",
    test="test_metadata.py::test_metadata[descriptions]",
)
def file_says_paused() -> None:
    """The file says that the domain was paused, as it was while the snapshot was taken."""
    _only_in_the_file(
        lambda snapshot: replace(snapshot, running=False, paused=True),
        lambda snapshot: replace(snapshot, running=True, paused=False),
    )


@mutant("XLS-META-008")
def file_written_in_place() -> None:
    """A metadata file is written under its own name, in two halves."""

    def write(original: Any, self: Any, paths: Any, name: str, content: bytes) -> None:
        layout.make_private_directory(paths.snapshots)
        with open(os.open(paths.metadata(name), os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            time.sleep(0.02)
            file.write(content[len(content) // 2 :])

    wrap(store.Store, "write_metadata", write)


@mutant("XLS-META-009", test="test_metadata.py::test_unknown_keys_are_kept")
def unknown_keys_dropped() -> None:
    """Keys of another toolstack are lost when a file is written again."""

    def keep(original: Any, snapshot: Any) -> bytes:
        mine = {key: value for key, value in snapshot.extra.items() if key.startswith("xlsnap_")}
        return bytes(original(replace(snapshot, extra=mine)))

    for module in (snapshots, plan.create, plan.delete, plan.observed):
        if hasattr(module, "to_json"):
            wrap(module, "to_json", keep)


@mutant("XLS-META-011", test="test_metadata.py::test_damaged_file_hides_nothing_else")
def damaged_file_stops_everything() -> None:
    """Where one metadata file cannot be understood no snapshot can be reverted to."""

    async def revert(original: Any, self: Toolstack, ref: str, *args: Any, **kwargs: Any) -> Any:
        self.snapshot_list(ref)
        return await original(self, ref, *args, **kwargs)

    wrap(Toolstack, "snapshot_revert", revert)


@mutant("XLS-META-011", test="test_metadata.py::test_damaged_file_hides_nothing_else")
def damaged_file_passed_over() -> None:
    """A snapshot whose metadata cannot be understood is treated as if it did not exist."""

    def stored(original: Any, self: Any, name: str) -> Any:
        try:
            return original(self, name)
        except SnapshotDamagedError:
            raise KeyError(name) from None

    wrap(StoredSnapshots, "__getitem__", stored)


@mutant("XLS-META-012", test="test_metadata.py::test_own_keys_have_one_prefix")
def keys_without_a_prefix() -> None:
    """Metadata has a key `parent` beside those with the prefix."""
    edit_metadata(
        lambda snapshot: replace(snapshot, extra={**snapshot.extra, "parent": snapshot.parent or ""})
    )


@mutant("XLS-META-014", test="test_metadata.py::test_defaults_may_be_left_out")
def all_fields_needed() -> None:
    """A metadata file in which a field is missing is not understood."""

    def read(original: Any, data: bytes, *, where: str) -> Any:
        snapshot = original(data, where=where)
        for field in ("description", "running", "blocked", "paused", "shutdown", "dying"):
            if f'"{field}"'.encode() not in data:
                raise SnapshotDamagedError(f"{where}: no {field}")
        return snapshot

    wrap(stored_files, "from_json", read)
