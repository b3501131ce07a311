# SPDX-License-Identifier: LGPL-2.1-or-later
"""``xlsnap-conformance spec``: read clauses of the specification."""

from __future__ import annotations

import shutil
import sys
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from .options import complete_clauses

if TYPE_CHECKING:
    from ..clauses import Clause

PAGE = 88
"""Columns of a clause that is shown whole."""

_EPILOG = """\b
Examples:
  xlsnap-conformance spec                    all clauses, one line each
  xlsnap-conformance spec XLS-REVERT         those of a chapter
  xlsnap-conformance spec XLS-REVERT-001     one, with its rationale and source
  xlsnap-conformance spec --json
"""


@click.command("spec", short_help="Read clauses of the specification.", epilog=_EPILOG)
@click.argument("id", required=False, default="", shell_complete=complete_clauses)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(id: str, as_json: bool) -> None:
    """Show the clauses whose id begins with ID."""
    from ..clauses import load_clauses

    clauses = load_clauses()
    wanted = id.upper()
    found = [clause for clause in clauses.values() if clause.id.startswith(wanted)]
    chosen = [clauses[wanted]] if wanted in clauses else found
    if not chosen:
        raise click.UsageError(f"no clause's id begins with {id!r}")
    if as_json:
        import msgspec

        data = [asdict(clause) for clause in chosen]
        click.echo(msgspec.json.format(msgspec.json.encode(data), indent=2).decode())
    elif len(chosen) == 1:
        click.echo(_whole(chosen[0]))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
        for clause in chosen:
            click.echo(_row(clause, width))


def _row(clause: Clause, width: int) -> str:
    line = f"{clause.id:<16} {clause.level:<6} {' '.join(clause.text.split())}"
    return line if not width or len(line) <= width else f"{line[: width - 1]}…"


def _whole(clause: Clause) -> str:
    head = f"{clause.id}  {clause.level} · {', '.join(clause.profiles)} · {', '.join(clause.editions)}"
    parts = [head, clause.text]
    parts += [f"Rationale: {clause.rationale}"] if clause.rationale else []
    parts += [f"Source: {clause.source}"] if clause.source else []
    return "\n\n".join(_filled(part) for part in parts)


def _filled(paragraphs: str) -> str:
    """Return text filled to the width of the page, but for lists and examples, which keep their lines."""
    return "\n\n".join(
        part if part.lstrip().startswith(("-", "*", "    ", "|", "```")) else textwrap.fill(part, PAGE)
        for part in paragraphs.split("\n\n")
    )
