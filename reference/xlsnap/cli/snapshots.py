# SPDX-License-Identifier: LGPL-2.1-or-later
"""The four snapshot commands (proposal v4, xl(1))."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigFileError, UnknownSnapshotError
from ..snapshot import DomainSnapshot, to_json
from ..store import Store
from . import complete
from .settings import Settings, pass_settings, read_config, warn
from .starting import starting_options
from .text import json_text, local_time, shown, table

if TYPE_CHECKING:
    from xlsnap_grammars import SnapshotConfig

domain_argument = click.argument("domain", shell_complete=complete.domains)


name_option = click.option(
    "-n", "--name", metavar="NAME", required=True, shell_complete=complete.snapshots, help="The snapshot."
)


# --- create ---------------------------------------------------------------------------------------------


@click.command("snapshot-create", short_help="Take a snapshot of a domain.")
@click.argument(
    "arguments",
    metavar="[CONFIGFILE] DOMAIN",
    nargs=-1,
    required=True,
    shell_complete=complete.config_or_domain,
)
@click.option("-n", "--name", metavar="NAME", help="Name of the snapshot [seconds since the epoch].")
@click.option("-D", "--disk-only", is_flag=True, help="No memory: only the disks.")
@click.option("-N", "dry_run", is_flag=True, help="Dry run: show the snapshot that would be made.")
@pass_settings
def create(
    settings: Settings, arguments: tuple[str, ...], name: str | None, disk_only: bool, dry_run: bool
) -> str | None:
    """Take a snapshot of DOMAIN: memory and all writable disks, or what CONFIGFILE asks for.

    CONFIGFILE (xl.snapshot.conf) and options can be combined unless they contradict each other.

    \b
    Examples:
      xlsnap snapshot-create vm
      xlsnap snapshot-create -n before vm
      xlsnap snapshot-create -D -n disks vm
      xlsnap snapshot-create /etc/xen/snap.conf -n before vm
    """
    if len(arguments) > 2:
        raise click.UsageError("too many arguments: [CONFIGFILE] DOMAIN are expected")
    from ..request import combine

    domain = arguments[-1]
    config = read_snapshot_config(arguments[0]) if len(arguments) == 2 else None
    request = combine(config, name=name, disk_only=disk_only)
    only_show = dry_run or settings.dry_run
    snapshot = settings.run(lambda toolstack: toolstack.snapshot_create(domain, request, dry_run=only_show))
    if only_show:
        return json_text(_plain(snapshot))
    return f"Domain snapshot {snapshot.name} created" if request.name is None else None


def read_snapshot_config(path: str) -> SnapshotConfig:
    """Read an xl.snapshot.conf and print its warnings.

    :raise ConfigFileError: with all that is wrong with it.
    """
    from xlsnap_grammars import ConfigError, parse_snapshot_config

    try:
        config = parse_snapshot_config(read_config(path), filename=path)
    except ConfigError as error:
        details = tuple(str(diagnostic) for diagnostic in error.diagnostics)
        raise ConfigFileError(f"{path}: not a valid snapshot configuration", details=details) from error
    for warning in config.warnings:
        warn(str(warning))
    return config


# --- list -----------------------------------------------------------------------------------------------


@click.command("snapshot-list", short_help="List the snapshots of a domain.")
@domain_argument
@click.option("-n", "--name", metavar="NAME", shell_complete=complete.snapshots, help="Only this snapshot.")
@click.option("-l", "--long", "as_long", is_flag=True, help="Also show description and disks.")
@click.option(
    "-o", "output", type=click.Choice(["table", "json"]), default="table", help="Form of the output."
)
@pass_settings
def list_snapshots(settings: Settings, domain: str, name: str | None, as_long: bool, output: str) -> str:
    """List the snapshots of DOMAIN, which may be stopped, by creation time.

    \b
    Examples:
      xlsnap snapshot-list vm
      xlsnap snapshot-list -l -n before vm
      xlsnap snapshot-list -o json vm
    """
    store = Store(settings.root)
    snapshots = store.list_snapshots(store.find(domain))
    if name is not None:
        snapshots = [snapshot for snapshot in snapshots if snapshot.name == name]
        if not snapshots:
            raise UnknownSnapshotError(f"domain {domain!r} has no snapshot {name!r}")
    if output == "json":
        return json_text([_plain(snapshot) for snapshot in snapshots])
    return "\n\n".join(_long(snapshot) for snapshot in snapshots) if as_long else _short(snapshots)


def _plain(snapshot: DomainSnapshot) -> Any:
    """Return a snapshot as the values that its metadata file has."""
    import msgspec

    return msgspec.json.decode(to_json(snapshot))


def _short(snapshots: list[DomainSnapshot]) -> str:
    rows = [
        (
            str(tag),
            snapshot.name,
            local_time(snapshot.creation_time),
            snapshot.state_letters,
            "yes" if snapshot.disk_only else "no",
        )
        for tag, snapshot in enumerate(snapshots, start=1)
    ]
    return table(("TAG", "NAME", "DATE", "STATE", "DISK ONLY"), rows)


def _long(snapshot: DomainSnapshot) -> str:
    lines = [
        f"name:          {shown(snapshot.name)}",
        f"description:   {shown(snapshot.description)}".rstrip(),
        f"creation time: {local_time(snapshot.creation_time)}",
        f"state:         {snapshot.state_letters}",
        f"disk only:     {'yes' if snapshot.disk_only else 'no'}",
        f"memory image:  {shown(snapshot.memory or '-')}",
        "disks:",
        *(
            f"  {shown(disk.device)}: {disk.type.value}, {shown(disk.format)}, {shown(disk.path)}"
            for disk in snapshot.disks
        ),
    ]
    return "\n".join(lines)


# --- revert and delete ----------------------------------------------------------------------------------


@click.command("snapshot-revert", short_help="Return a domain to a snapshot.")
@domain_argument
@name_option
@starting_options
@pass_settings
def revert(settings: Settings, domain: str, name: str, paused: bool, attach: bool) -> None:
    """Return DOMAIN, active or stopped, to a snapshot. Its present state is lost.

    A snapshot without memory is a power cycle: the domain starts afresh on the disks of the snapshot.

    \b
    Examples:
      xlsnap snapshot-revert -n before vm
      xlsnap snapshot-revert -p -n before vm
    """
    settings.refuse_dry_run("snapshot-revert")
    info = settings.run(lambda toolstack: toolstack.snapshot_revert(domain, name, paused=paused))
    if attach:
        from .console import attach_console

        attach_console(settings, info.uuid)


@click.command("snapshot-delete", short_help="Delete a snapshot of a domain.")
@domain_argument
@name_option
@pass_settings
def delete(settings: Settings, domain: str, name: str) -> None:
    """Delete a snapshot of DOMAIN, active or stopped: disk snapshots, memory image and metadata.

    \b
    Example:
      xlsnap snapshot-delete -n before vm
    """
    settings.refuse_dry_run("snapshot-delete")
    settings.run(lambda toolstack: toolstack.snapshot_delete(domain, name))
