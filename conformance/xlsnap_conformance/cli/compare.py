# SPDX-License-Identifier: LGPL-2.1-or-later
"""``xlsnap-conformance compare``: several runs side by side."""

from __future__ import annotations

import sys
from pathlib import Path

import click

_EPILOG = """\b
Examples:
  xlsnap-conformance compare mine theirs
  xlsnap-conformance compare v1 v2 v3 --format html --output comparison.html

\b
Exit status: 0, whatever differs.
"""


@click.command("compare", short_help="Show several runs side by side.", epilog=_EPILOG)
@click.argument("paths", nargs=-1, required=True, metavar="REPORT...", type=click.Path(path_type=Path))
@click.option(
    "--format", "form", type=click.Choice(("table", "html", "markdown")), default="table", show_default=True
)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
def command(paths: tuple[Path, ...], form: str, output: Path | None) -> None:
    """Show the runs in REPORT... side by side: verdicts, and the clauses that they disagree about."""
    from ..report.comparison import compare, html_page, markdown, table
    from ..report.terminal import console
    from ..results import load

    comparison = compare([load(path) for path in paths])
    if form == "table":
        if output is None:
            table(console(sys.stdout), comparison)
        else:
            with output.open("w", encoding="utf-8") as stream:
                table(console(stream), comparison)
        return
    text = html_page(comparison) if form == "html" else markdown(comparison)
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
