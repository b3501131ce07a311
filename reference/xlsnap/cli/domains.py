# SPDX-License-Identifier: LGPL-2.1-or-later
"""Commands on domains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from .. import hosts
from ..domain import DomainConfig, DomainInfo, DomainRecord
from ..errors import ConfigFileError, DomainStateError
from ..store import Store
from ..toolstack import Toolstack
from . import complete
from .settings import Settings, pass_settings, read_config, warn
from .starting import starting_options
from .text import complain, json_text, padded, shown

domain_argument = click.argument("domain", shell_complete=complete.domains)


def _attach(settings: Settings, info: DomainInfo) -> None:
    from .console import attach_console

    attach_console(settings, info.uuid)


def read_domain_config(settings: Settings, path: str, overrides: tuple[str, ...] = ()) -> DomainConfig:
    """Read an xl.cfg for the host that was chosen; settings in `overrides` come last and win, as with xl.

    :raise ConfigFileError: with all that is wrong with it.
    """
    content = read_config(path)
    if overrides:
        added = "\n".join(overrides).encode("utf-8", "surrogateescape") + b"\n"
        _check_overrides(added)
        content += b"\n" + added
    xen = hosts.choose(settings.host) == "xen"
    directory = Path(path).absolute().parent
    config = DomainConfig.from_text(content, filename=path, directory=directory, xen=xen)
    for warning in config.warnings:
        warn(warning)
    return config


def _check_overrides(added: bytes) -> None:
    """Report errors in settings of the command line as such."""
    from xlsnap_grammars import ConfigError, parse_config

    try:
        parse_config(added, filename="<command line>")
    except ConfigError as error:
        details = tuple(str(diagnostic) for diagnostic in error.diagnostics)
        raise ConfigFileError(
            "not valid settings on the command line", hint="quote twice: 'name=\"vm\"'", details=details
        ) from error


@click.command("create", short_help="Start a domain.")
@click.argument("configfile", type=click.Path())
@click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1)
@starting_options
@click.option("-q", "--quiet", is_flag=True, help="Do not say what is read.")
@click.option("-n", "--dryrun", "dry_run", is_flag=True, help="Only check the file and show what was read.")
@pass_settings
def create(
    settings: Settings,
    configfile: str,
    overrides: tuple[str, ...],
    paused: bool,
    attach: bool,
    quiet: bool,
    dry_run: bool,
) -> str | None:
    """Start the domain that CONFIGFILE describes (xl.cfg syntax). KEY=VALUE overrides a setting of it.

    A configuration without uuid continues the stopped domain of the same name, with its snapshots.

    \b
    Examples:
      xlsnap create vm.cfg
      xlsnap create -p vm.cfg memory=64 'name="copy"'
      xlsnap create -n vm.cfg
    """
    if not quiet:
        complain(f"Parsing config from {configfile}")
    config = read_domain_config(settings, configfile, overrides)
    if dry_run or settings.dry_run:
        return json_text(config)
    info = settings.run(lambda toolstack: toolstack.create(config, paused=paused))
    for warning in info.warnings:
        warn(warning)
    if attach:
        _attach(settings, info)
    return None


# --- what there is --------------------------------------------------------------------------------------


@click.command("list", short_help="List active domains.")
@click.argument("domain", required=False, shell_complete=complete.domains)
@click.option("-a", "--all", "everything", is_flag=True, help="Also stopped domains that have snapshots.")
@click.option("-l", "--long", "as_long", is_flag=True, help="Print JSON, with configurations.")
@click.option(
    "-o", "output", type=click.Choice(["table", "json"]), default="table", help="Form of the output."
)
@pass_settings
def list_domains(settings: Settings, domain: str | None, everything: bool, as_long: bool, output: str) -> str:
    """List the active domains, or DOMAIN, which may be stopped.

    State letters: r running, b blocked, p paused, s shut down, c crashed, d dying.

    \b
    Examples:
      xlsnap list
      xlsnap list --all
      xlsnap list -o json vm
    """
    store = Store(settings.root)
    infos = settings.run(lambda toolstack: _infos(toolstack, domain, everything))
    if as_long:
        return json_text([_with_config(info, store.record(info.uuid)) for info in infos])
    if output == "json":
        return json_text(infos)
    return "\n".join(
        [f"{'Name':<40} {'ID':>5} {'Mem':>5} {'VCPUs':>5}\tState\tTime(s)", *(_row(info) for info in infos)]
    )


def _with_config(info: DomainInfo, record: DomainRecord | None) -> dict[str, Any]:
    config = {"config": record.config} if record else {}
    return {**msgspec.structs.asdict(info), **config}


async def _infos(toolstack: Toolstack, domain: str | None, everything: bool) -> list[DomainInfo]:
    if domain is not None or not everything:
        return await toolstack.domains(domain)
    return [info for key in toolstack.store.domain_keys() for info in await toolstack.domains(key.uuid)]


def _row(info: DomainInfo) -> str:
    """Return a row as `xl list` prints it; a stopped domain has no id and no state."""
    domid = "-" if info.domid is None else str(info.domid)
    letters = info.run_state.letters if info.run_state else "------"
    return (
        f"{padded(shown(info.name), 40)} {domid:>5} {info.memory_mib:>5} {info.vcpus:>5}     "
        f"{letters}  {info.cpu_seconds:>8.1f}"
    )


@click.command("domid", short_help="Print the id of a domain.")
@domain_argument
@pass_settings
def domid(settings: Settings, domain: str) -> str:
    """Print the id of the active DOMAIN.

    \b
    Example:
      xlsnap domid vm
    """
    (info,) = settings.run(lambda toolstack: toolstack.domains(domain))
    if info.domid is None:
        raise DomainStateError(f"domain {info.name!r} is not running", hint="a stopped domain has no id")
    return str(info.domid)


# --- run state ------------------------------------------------------------------------------------------


@click.command("destroy", short_help="End a domain at once.")
@domain_argument
@pass_settings
def destroy(settings: Settings, domain: str) -> None:
    """End DOMAIN at once, as pulling the plug does. It stays known as long as it has snapshots.

    \b
    Example:
      xlsnap destroy vm
    """
    settings.refuse_dry_run("destroy")
    settings.run(lambda toolstack: toolstack.destroy(domain))


@click.command("pause", short_help="Pause a domain.")
@domain_argument
@pass_settings
def pause(settings: Settings, domain: str) -> None:
    """Stop the virtual CPUs of DOMAIN. A paused domain stays paused.

    \b
    Example:
      xlsnap pause vm
    """
    settings.refuse_dry_run("pause")
    settings.run(lambda toolstack: toolstack.pause(domain))


@click.command("unpause", short_help="Let a paused domain run.")
@domain_argument
@pass_settings
def unpause(settings: Settings, domain: str) -> None:
    """Let the virtual CPUs of DOMAIN run.

    \b
    Example:
      xlsnap unpause vm
    """
    settings.refuse_dry_run("unpause")
    settings.run(lambda toolstack: toolstack.unpause(domain))


# --- save files -----------------------------------------------------------------------------------------


@click.command("save", short_help="Write a domain's memory to a file.")
@domain_argument
@click.argument("file", type=click.Path())
@click.option("-c", "running", is_flag=True, help="Leave the domain running.")
@click.option("-p", "paused", is_flag=True, help="Leave the domain paused.")
@pass_settings
def save(settings: Settings, domain: str, file: str, running: bool, paused: bool) -> None:
    """Write memory and configuration of DOMAIN to FILE, which must not exist, and end the domain.

    Disks stay as they are: a save file fits only the disks of its time. Take a snapshot to keep both.

    \b
    Examples:
      xlsnap save vm vm.save
      xlsnap save -c vm vm.save
    """
    settings.refuse_dry_run("save")
    if running and paused:
        raise click.UsageError("-c and -p exclude each other")
    if running:
        settings.run(lambda toolstack: toolstack.save(domain, file, leave="running"))
    elif paused:
        settings.run(lambda toolstack: toolstack.save(domain, file, leave="paused"))
    else:
        settings.run(lambda toolstack: toolstack.save(domain, file))


@click.command("restore", short_help="Start a domain from a save file.")
@click.argument("files", metavar="[CONFIGFILE] FILE", nargs=-1, required=True, type=click.Path())
@starting_options
@pass_settings
def restore(settings: Settings, files: tuple[str, ...], paused: bool, attach: bool) -> None:
    """Start the domain that was saved to FILE, with its own configuration or that of CONFIGFILE.

    \b
    Examples:
      xlsnap restore vm.save
      xlsnap restore -p vm.cfg vm.save
    """
    settings.refuse_dry_run("restore")
    if len(files) > 2:
        raise click.UsageError("too many arguments: [CONFIGFILE] FILE are expected")
    config = read_domain_config(settings, files[0]) if len(files) == 2 else None
    info = settings.run(lambda toolstack: toolstack.restore(files[-1], config=config, paused=paused))
    if attach:
        _attach(settings, info)
