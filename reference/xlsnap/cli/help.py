# SPDX-License-Identifier: LGPL-2.1-or-later
"""``xlsnap help`` and ``xlsnap completion``."""

from __future__ import annotations

import click

from ..errors import InputError
from .settings import PROGRAM


@click.command("help", short_help="Show help.")
@click.argument("command", required=False)
@click.pass_context
def help_command(context: click.Context, command: str | None) -> None:
    """Show the help of COMMAND, or of all commands."""
    parent = context.parent
    assert parent is not None
    if command is None:
        click.echo(parent.get_help())
        return
    group = parent.command
    assert isinstance(group, click.Group)
    found = group.get_command(parent, command)
    if found is None:
        raise InputError(f"no command {command!r}", hint=f"{PROGRAM} help lists the commands")
    click.echo(found.get_help(click.Context(found, parent=parent, info_name=command)))


@click.command("completion", short_help="Print a script for shell completion.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that makes SHELL complete commands, domains and snapshots.

    \b
    Examples:
      eval "$(xlsnap completion bash)"
      xlsnap completion fish > ~/.config/fish/completions/xlsnap.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    parent = context.parent
    assert parent is not None
    click.echo(kind(parent.command, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE").source())
