# SPDX-License-Identifier: LGPL-2.1-or-later
"""Commands on domains."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..domain import DomainConfig, DomainInfo
from ..errors import DomainStateError
from . import complete
from .settings import Settings, pass_settings, read_config, warn
from .text import shown

domain_argument = click.argument("domain", shell_complete=complete.domains)


def read_domain_config(path: str, overrides: tuple[str, ...] = ()) -> DomainConfig:
    """Read an xl.cfg; settings in `overrides` come last and win, as with xl."""
    content = read_config(path)
    if overrides:
        content += b"\n" + "\n".join(overrides).encode("utf-8", "surrogateescape") + b"\n"
    config = DomainConfig.from_text(content, filename=path, directory=Path(path).absolute().parent)
    for warning in config.warnings:
        warn(warning)
    return config


@click.command("create", short_help="Start a domain.")
@click.argument("configfile", type=click.Path())
@click.argument("settings_", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("-p", "paused", is_flag=True, help="Leave the domain paused.")
@click.option("-c", "attach", is_flag=True, help="Attach to the console.")
@click.option("-e", "_no_wait", is_flag=True, help="Accepted for xl's sake: nothing waits for the domain.")
@click.option("-q", "--quiet", is_flag=True, help="Do not say what is read.")
@pass_settings
def create(
    settings: Settings,
    configfile: str,
    settings_: tuple[str, ...],
    paused: bool,
    attach: bool,
    _no_wait: bool,
    quiet: bool,
) -> None:
    """Start the domain that CONFIGFILE describes (xl.cfg syntax). KEY=VALUE overrides a setting of it.

    A configuration without uuid continues the stopped domain of the same name, with its snapshots.

    \b
    Examples:
      xlsnap create vm.cfg
      xlsnap create -p vm.cfg 'memory=64'
      xlsnap -N create vm.cfg          only check the file, and show what was read
    """
    config = read_domain_config(configfile, settings_)
    if settings.dry_run:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(config), indent=4).decode())
        return
    if not quiet:
        click.echo(f"Parsing config from {shown(configfile)}", err=True)
    info = settings.run(lambda toolstack: toolstack.create(config, paused=paused))
    if attach:
        from .console import attach_console

        attach_console(settings, info.uuid)


def _row(info: DomainInfo) -> str:
    """Return a row as `xl list` prints it."""
    domid = "-" if info.domid is None else str(info.domid)
    letters = info.run_state.letters if info.run_state else "------"
    return (
        f"{shown(info.name):<40} {domid:>5} {info.memory_mib:>5} {info.vcpus:>5}     "
        f"{letters}  {info.cpu_seconds:>8.1f}"
    )


@click.command("list", short_help="List active domains.")
@click.argument("domain", required=False, shell_complete=complete.domains)
@click.option("-l", "--long", "as_long", is_flag=True, help="Print JSON, with configurations.")
@click.option(
    "-o", "output", type=click.Choice(["table", "json"]), default="table", help="Form of the output."
)
@pass_settings
def list_domains(settings: Settings, domain: str | None, as_long: bool, output: str) -> None:
    """List the active domains, or DOMAIN, which may be stopped.

    State letters: r running, b blocked, p paused, s shut down, c crashed, d dying.
    """
    settings.refuse_dry_run("list")
    infos = settings.run(lambda toolstack: toolstack.domains(domain))
    if as_long or output == "json":
        import msgspec

        from ..store import Store

        store = Store(settings.root)
        rows = [
            {
                **msgspec.to_builtins(info),
                **({"config": msgspec.to_builtins(record.config)} if as_long and record else {}),
            }
            for info in infos
            for record in (store.record(info.uuid),)
        ]
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=4).decode())
        return
    click.echo(f"{'Name':<40} {'ID':>5} {'Mem':>5} VCPUs\tState\tTime(s)")
    for info in infos:
        click.echo(_row(info))


@click.command("destroy", short_help="End a domain at once.")
@domain_argument
@pass_settings
def destroy(settings: Settings, domain: str) -> None:
    """End DOMAIN at once, as pulling the plug does. It stays known as long as it has snapshots."""
    settings.refuse_dry_run("destroy")
    settings.run(lambda toolstack: toolstack.destroy(domain))


@click.command("pause", short_help="Pause a domain.")
@domain_argument
@pass_settings
def pause(settings: Settings, domain: str) -> None:
    """Stop the virtual CPUs of DOMAIN."""
    settings.refuse_dry_run("pause")
    settings.run(lambda toolstack: toolstack.pause(domain))


@click.command("unpause", short_help="Let a paused domain run.")
@domain_argument
@pass_settings
def unpause(settings: Settings, domain: str) -> None:
    """Let the virtual CPUs of DOMAIN run."""
    settings.refuse_dry_run("unpause")
    settings.run(lambda toolstack: toolstack.unpause(domain))


@click.command("save", short_help="Write a domain's memory to a file.")
@domain_argument
@click.argument("file", type=click.Path())
@click.option("-c", "running", is_flag=True, help="Leave the domain running.")
@click.option("-p", "paused", is_flag=True, help="Leave the domain paused.")
@pass_settings
def save(settings: Settings, domain: str, file: str, running: bool, paused: bool) -> None:
    """Write memory and configuration of DOMAIN to FILE, which must not exist, and end the domain.

    Disks stay as they are: a save file fits only to the disks of its time.
    """
    settings.refuse_dry_run("save")
    if running and paused:
        raise click.UsageError("-c and -p exclude each other")
    path = os.path.abspath(file)
    if running:
        settings.run(lambda toolstack: toolstack.save(domain, path, leave="running"))
    elif paused:
        settings.run(lambda toolstack: toolstack.save(domain, path, leave="paused"))
    else:
        settings.run(lambda toolstack: toolstack.save(domain, path))


@click.command("restore", short_help="Start a domain from a save file.")
@click.argument("files", metavar="[CONFIGFILE] FILE", nargs=-1, required=True, type=click.Path())
@click.option("-p", "paused", is_flag=True, help="Leave the domain paused.")
@click.option("-c", "attach", is_flag=True, help="Attach to the console.")
@click.option("-e", "_no_wait", is_flag=True, help="Accepted for xl's sake.")
@pass_settings
def restore(settings: Settings, files: tuple[str, ...], paused: bool, attach: bool, _no_wait: bool) -> None:
    """Start the domain that was saved to FILE, with its own configuration or that of CONFIGFILE."""
    settings.refuse_dry_run("restore")
    if len(files) > 2:
        raise click.UsageError("too many files")
    config = read_domain_config(files[0]) if len(files) == 2 else None
    info = settings.run(lambda toolstack: toolstack.restore(files[-1], config=config, paused=paused))
    if attach:
        from .console import attach_console

        attach_console(settings, info.uuid)


@click.command("domid", short_help="Print the id of a domain.")
@domain_argument
@pass_settings
def domid(settings: Settings, domain: str) -> None:
    """Print the id of the active DOMAIN."""
    (info,) = settings.run(lambda toolstack: toolstack.domains(domain))
    if info.domid is None:
        raise DomainStateError(f"domain {info.name!r} is not running", hint="a stopped domain has no id")
    click.echo(info.domid)
