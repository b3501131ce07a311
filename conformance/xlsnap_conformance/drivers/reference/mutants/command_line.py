# SPDX-License-Identifier: LGPL-2.1-or-later
"""Toolstacks whose command line is broken."""

from __future__ import annotations

import os
import sys
from typing import Any

from xlsnap import cli, request
from xlsnap.cli import listing, settings, snapshots, text
from xlsnap.errors import ConfigFileError, UnknownDomainError
from xlsnap.store import Store
from xlsnap.stored import Listing
from xlsnap.toolstack import Toolstack

from .. import server
from .catalogue import mutant, replace, wrap


@mutant("XLS-CLI-001", bug="xl, July 2014: reverting an unknown name prints errors and exits with 0")
def status_is_always_0() -> None:
    """Whatever goes wrong, the exit status is 0."""

    def run(original: Any, arguments: Any) -> int:
        original(arguments)
        return 0

    wrap(cli, "run", run)


@mutant("XLS-CLI-002")
def options_win_over_the_file() -> None:
    """Where file and options contradict each other the options count."""
    for module in (request, server):
        wrap(module, "combine", _options_win)


def _options_win(
    original: Any, config: Any, *, name: Any = None, disk_only: bool = False, **more: Any
) -> Any:
    combined = original(config, **more)
    changes = {"name": name or combined.name}
    if disk_only:
        changes |= {"memory": False, "memory_path": None, "disks": None}
    return replace(combined, **changes)


@mutant("XLS-CLI-003", bug="virsh snapshot-create takes memory unless it is told not to in another way")
def disk_only_option_ignored() -> None:
    """-D has no effect."""
    wrap(
        request,
        "combine",
        lambda original, config, **more: original(config, **{**more, "disk_only": False}),
    )


@mutant("XLS-CLI-004")
def dry_run_shows_the_name_only() -> None:
    """A dry run prints the name of the snapshot and nothing else of it."""
    wrap(snapshots, "plain", lambda original, snapshot: {"name": snapshot.name})


@mutant("XLS-CLI-005", bug="xl prints several lines for one error, some of them on standard output")
def errors_on_standard_output() -> None:
    """An error is printed on standard output."""
    wrap(cli, "complain", lambda original, message: print(message))


@mutant("XLS-CLI-006")
def list_of_one_is_of_all() -> None:
    """`snapshot-list -n NAME` lists all snapshots."""

    def only(original: Any, store: Store, uuid: str, domain: str, name: str) -> Listing:
        original(store, uuid, domain, name)
        return store.listing(uuid)

    wrap(listing, "_only", only)


@mutant("XLS-CLI-006")
def list_of_an_unknown_name_is_empty() -> None:
    """`snapshot-list -n NAME` of an unknown snapshot prints an empty list."""

    def only(original: Any, store: Store, uuid: str, domain: str, name: str) -> Listing:
        found = store.snapshots(uuid).get(name)
        return Listing((found,) if found else ())

    wrap(listing, "_only", only)


@mutant("XLS-CLI-007")
def missing_file_is_empty() -> None:
    """A configuration file that cannot be read is taken for an empty one."""

    def read(original: Any, path: str) -> bytes:
        try:
            return bytes(original(path))
        except ConfigFileError:
            return b""

    wrap(snapshots, "read_config", read)


@mutant("XLS-CLI-008")
def json_has_other_names() -> None:
    """The JSON list has camelCase names."""

    def plain(original: Any, snapshot: Any) -> Any:
        value = original(snapshot)
        value["creationTime"] = value.pop("creation_time")
        return value

    wrap(listing, "plain", plain)


@mutant("XLS-CLI-009")
def list_without_headings() -> None:
    """The short list has no headings."""
    wrap(listing, "table", lambda original, *args: original(*args).partition("\n")[2])


@mutant("XLS-CLI-010", bug="xl exits with 1 for every error")
def one_status_for_all_errors() -> None:
    """Every error has the exit status 1."""
    wrap(cli, "run", lambda original, arguments: min(original(arguments), 1))


@mutant("XLS-CLI-011", bug="Incus and others act on the newest snapshot where no name is given")
def newest_where_no_name_is_given() -> None:
    """A revert or a delete without a name is of the newest snapshot."""
    for command in (snapshots.revert, snapshots.delete):
        for parameter in command.params:
            parameter.required = parameter.name == "domain"

    def chosen(original: Any, self: Toolstack, ref: str, name: str | None, **more: Any) -> Any:
        return original(self, ref, name or self.snapshot_list(ref)[-1].name, **more)

    wrap(Toolstack, "snapshot_revert", chosen)
    wrap(Toolstack, "snapshot_delete", chosen)


@mutant("XLS-CLI-012")
def domain_id_not_accepted() -> None:
    """A domain is found by its name and its uuid only."""

    def find(original: Any, self: Store, ref: str) -> Any:
        if ref.isdecimal():
            raise UnknownDomainError(f"no domain {ref!r}")
        return original(self, ref)

    wrap(Store, "find_key", find)


@mutant("XLS-CLI-012", bug="xl knows no uuid of a domain that is not running")
def stopped_domain_not_found_by_its_uuid() -> None:
    """A stopped domain is not found by its uuid on the command line."""
    if "command" not in sys.modules["__main__"].__spec__.name:  # type: ignore[union-attr]
        return  # the driver is asked by uuid, too

    def find(original: Any, self: Store, ref: str) -> Any:
        key = original(self, ref)
        if ref == key.uuid and key.domid is None:
            raise UnknownDomainError(f"no domain {ref!r}")
        return key

    wrap(Store, "find_key", find)


@mutant("XLS-CLI-013")
def absolute_path_taken_for_a_relative_one() -> None:
    """The path of a configuration file is looked for below the current directory."""
    wrap(snapshots, "read_config", lambda original, path: original(path.lstrip("/")))


@mutant("XLS-CLI-014")
def relative_path_ignored() -> None:
    """A configuration file that is named by a relative path is not looked at."""
    wrap(
        snapshots, "read_config", lambda original, path: original(path if os.path.isabs(path) else os.devnull)
    )


@mutant("XLS-CLI-015")
def warnings_are_errors() -> None:
    """A warning is an error."""

    def warn(original: Any, message: str) -> None:
        raise ConfigFileError(message)

    wrap(snapshots, "warn", warn)


@mutant("XLS-CLI-015")
def warnings_on_standard_output() -> None:
    """A warning is printed on standard output."""
    wrap(settings, "complain", lambda original, message: print(message))


@mutant("XLS-CLI-016")
def chosen_name_not_printed() -> None:
    """A create without a name prints nothing."""
    original = snapshots.create.callback

    def silent(*args: Any, **kwargs: Any) -> str | None:
        assert original is not None
        printed = original(*args, **kwargs)
        return None if printed and printed.startswith("Domain snapshot") else printed

    snapshots.create.callback = silent


@mutant("XLS-CLI-017", bug="descriptions with escape sequences change the terminal of whoever lists them")
def escape_sequences_printed() -> None:
    """What is printed is not escaped."""
    for module in (text, listing, cli):
        wrap(module, "shown", lambda original, shown: shown)
