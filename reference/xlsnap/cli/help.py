# SPDX-License-Identifier: LGPL-2.1-or-later
"""``xlsnap help`` and ``xlsnap completion``."""

from __future__ import annotations

import click

from .complete import commands, script


@click.command("help", short_help="Show help.")
@click.argument("command", required=False, shell_complete=commands)
@click.pass_context
def help_command(context: click.Context, command: str | None) -> str:
    """Show the help of COMMAND, or of all commands.

    \b
    Example:
      xlsnap help snapshot-create
    """
    parent = context.find_root()
    if command is None:
        return parent.get_help()
    group = parent.command
    assert isinstance(group, click.Group)
    name, found, _ = group.resolve_command(parent, [command])
    assert found is not None
    return found.get_help(click.Context(found, parent=parent, info_name=name))


@click.command("completion", short_help="Print a script for shell completion.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> str:
    """Print a script that makes SHELL complete commands, domains and snapshots.

    \b
    Examples:
      eval "$(xlsnap completion bash)"         in ~/.bashrc
      eval "$(xlsnap completion zsh)"          in ~/.zshrc
      xlsnap completion fish > ~/.config/fish/completions/xlsnap.fish
    """
    return script(context.find_root().command, shell)
