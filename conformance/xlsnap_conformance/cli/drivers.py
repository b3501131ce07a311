# SPDX-License-Identifier: LGPL-2.1-or-later
"""``xlsnap-conformance drivers``: list the drivers that come with the kit."""

from __future__ import annotations

import shlex

import click

from .options import toolstacks


@click.command("drivers", short_help="List drivers and mutants.")
def command() -> None:
    """List the drivers that come with the kit, and the mutants of the reference toolstack."""
    from ..drivers import BUILT_IN, plugged_in

    for name, words in BUILT_IN.items():
        click.echo(f"{name:<12} {shlex.join(words)}")
    for name, point in plugged_in().items():
        click.echo(f"{name:<12} {point.value} ({point.dist.name if point.dist else 'a package'})")
    click.echo(f"{'profile:FILE':<12} a TOML profile of commands")
    known = toolstacks()
    width = max(map(len, known), default=0)
    click.echo("\nmutants of the reference toolstack, for --mutant:")
    for name, mutant in known.items():
        click.echo(f"  {name:<{width}}  {mutant.description}")
