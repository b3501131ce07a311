# SPDX-License-Identifier: LGPL-2.1-or-later
"""The commands that change snapshots (proposal v4, xl(1))."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..errors import ConfigFileError
from . import complete
from .listing import plain
from .progress import Progress
from .settings import Settings, pass_settings, read_config, warn
from .starting import starting_options
from .text import json_text

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
@click.option("--live", is_flag=True, help="Let the domain run on while its memory is written.")
@click.option("-N", "dry_run", is_flag=True, help="Dry run: show the snapshot that would be made.")
@pass_settings
def create(
    settings: Settings,
    arguments: tuple[str, ...],
    name: str | None,
    disk_only: bool,
    live: bool,
    dry_run: bool,
) -> str | None:
    """Take a snapshot of DOMAIN: memory and all writable disks, or what CONFIGFILE asks for.

    CONFIGFILE (xl.snapshot.conf) and options can be combined unless they contradict each other. A live
    snapshot is of one instant too; the command ends when its memory image is complete.

    \b
    Examples:
      xlsnap snapshot-create vm
      xlsnap snapshot-create -n before vm
      xlsnap snapshot-create --live -n before vm
      xlsnap snapshot-create -D -n disks vm
      xlsnap snapshot-create /etc/xen/snap.conf -n before vm
    """
    if len(arguments) > 2:
        raise click.UsageError("too many arguments: [CONFIGFILE] DOMAIN are expected")
    from ..request import combine

    domain = arguments[-1]
    config = read_snapshot_config(arguments[0]) if len(arguments) == 2 else None
    request = combine(config, name=name, disk_only=disk_only, live=live)
    only_show = dry_run or settings.dry_run
    snapshot = settings.run(lambda toolstack: toolstack.snapshot_create(domain, request, dry_run=only_show))
    if only_show:
        return json_text(plain(snapshot))
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
@click.option("--children", is_flag=True, help="Also all snapshots that descend from it.")
@click.option("--children-only", is_flag=True, help="Only the snapshots that descend from it.")
@pass_settings
def delete(settings: Settings, domain: str, name: str, children: bool, children_only: bool) -> None:
    """Delete a snapshot of DOMAIN, active or stopped: disk snapshots, memory image and metadata.

    Images of external snapshots that nobody needs apart any more are merged, which can take a while. A merge
    that fails loses nothing: it is a warning, and the next deletion tries it again.

    \b
    Examples:
      xlsnap snapshot-delete -n before vm
      xlsnap snapshot-delete --children -n before vm
    """
    settings.refuse_dry_run("snapshot-delete")
    if children and children_only:
        raise click.UsageError("--children and --children-only exclude each other")
    with Progress.on_stderr() as progress:
        warnings = settings.run(
            lambda toolstack: toolstack.snapshot_delete(
                domain, name, children=children, children_only=children_only, progress=progress
            )
        )
    for warning in warnings:
        warn(warning)
