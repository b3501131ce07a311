# SPDX-License-Identifier: LGPL-2.1-or-later
"""``xlsnap-conformance merge``: one report from those of several machines."""

from __future__ import annotations

import sys
from pathlib import Path

import click

_EPILOG = """\b
Examples:
  xlsnap-conformance run --shard 1/2 --seed 7 --report one     (on one machine)
  xlsnap-conformance run --shard 2/2 --seed 7 --report two     (on another)
  xlsnap-conformance merge one two --report whole

\b
A report that is missing or cannot be read costs the tests of its shard and no others.
Exit status: that of a run of all tests on one machine.
"""


@click.command("merge", short_help="Make one report of those of several machines.", epilog=_EPILOG)
@click.argument("paths", nargs=-1, required=True, metavar="REPORT...", type=click.Path(path_type=Path))
@click.option(
    "--report",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write the whole report to DIR.",
)
def command(paths: tuple[Path, ...], report: Path) -> int:
    """Make one report of the shards in REPORT..., directories of 'run --report' or their report.json."""
    from ..merging import merge
    from ..report import write
    from ..report.table import show
    from ..report.terminal import console
    from ..results import Run, load

    runs: list[Run] = []
    for path in paths:
        try:
            runs.append(load(path))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            click.echo(f"warning: {path}: {reason}; its shard counts as lost", err=True)
    if not runs:
        raise click.ClickException("none of the reports can be read")
    whole = merge(runs)
    write(whole, report)
    show(console(sys.stdout), whole, report)
    return whole.exit_code
