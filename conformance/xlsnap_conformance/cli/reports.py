# SPDX-License-Identifier: LGPL-2.1-or-later
"""``xlsnap-conformance report``: show a run again, from its JSON."""

from __future__ import annotations

import sys
from pathlib import Path

import click

FORMATS = ("table", "html", "junit", "markdown", "svg", "badge", "json")

_EPILOG = """\b
Examples:
  xlsnap-conformance report out
  xlsnap-conformance report out/report.json --format markdown >> "$GITHUB_STEP_SUMMARY"
  xlsnap-conformance report out --format html --output page.html
"""


@click.command("report", short_help="Show a run again, in another format.", epilog=_EPILOG)
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
def command(path: Path, form: str, output: Path | None) -> None:
    """Show the run in PATH, a directory of 'run --report' or its report.json."""
    from ..results import load

    run = load(path)
    if form == "table":
        from ..report.table import show
        from ..report.terminal import console

        if output is None:
            show(console(sys.stdout), run)
        else:
            with output.open("w", encoding="utf-8") as stream:
                show(console(stream), run)
        return
    from ..report import render

    text = render(run, form)
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
