# SPDX-License-Identifier: LGPL-2.1-or-later
"""``xlsnap-conformance spec``: read clauses of the specification."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from .options import complete_clauses, mutants

if TYPE_CHECKING:
    from ..clauses import Clause
    from ..links import LinkedClause

PAGE = 88
"""Columns of a clause that is shown whole."""
SHOWN = 6
"""Tests that are shown which are for other clauses."""

_EPILOG = """\b
Examples:
  xlsnap-conformance spec                    all clauses, one line each
  xlsnap-conformance spec XLS-REVERT         those of a chapter
  xlsnap-conformance spec XLS-REVERT-001     one, with its rationale, source, tests and mutants
  xlsnap-conformance spec --json             all, with their tests and mutants
  xlsnap-conformance spec --links            clauses without tests or mutants, tests without clauses

\b
Exit status: 0, or 1 when --links finds what spec/debt.toml does not declare. The schema of --json is
specification.schema.json of the package.
"""


@click.command("spec", short_help="Read clauses of the specification.", epilog=_EPILOG)
@click.argument("id", required=False, default="", shell_complete=complete_clauses)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--links", is_flag=True, help="Print what has no test, no mutant or no clause.")
def command(id: str, as_json: bool, links: bool) -> int:
    """Show the clauses whose id begins with ID."""
    from ..clauses import find_clauses

    if links:
        if id or as_json:
            raise click.UsageError(
                "--links looks at the whole specification; it goes with no ID and no --json"
            )
        return _links()
    chosen = find_clauses(id)
    if not chosen:
        raise click.UsageError(f"no clause's id begins with {id!r}")
    if as_json:
        click.echo(_json(chosen))
    elif len(chosen) == 1:
        click.echo(_whole(chosen[0]))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
        for clause in chosen:
            click.echo(_row(clause, width))
    return 0


def _json(chosen: Sequence[Clause]) -> str:
    import msgspec

    from ..links import Specification
    from ..report.recorder import kit_version

    specification = Specification(kit=kit_version(), clauses=tuple(map(_linked, chosen)))
    return msgspec.json.format(msgspec.json.encode(specification), indent=2).decode()


def _linked(clause: Clause) -> LinkedClause:
    from ..collecting import collect
    from ..links import linked, load_debt

    return linked(clause, collect(), mutants().values(), load_debt())


def _links() -> int:
    """Print what lacks something; return 1 when the file of debts does not say the same."""
    from ..clauses import load_clauses
    from ..collecting import collect
    from ..links import DEBT, TITLES, gaps, load_debt, stale, undeclared

    found, debt = gaps(load_clauses(), collect(), mutants().values()), load_debt()
    new, old = undeclared(found, debt), stale(found, debt)
    for missing, names in found.items():
        click.echo(f"{TITLES[missing]}: {len(names)}")
        declared = debt.of(missing)
        width = max(map(len, names), default=0)
        for name in names:
            click.echo(f"  {name:<{width}}  {declared.get(name, 'NOT DECLARED')}")
    for names in old.values():
        for name in names:
            click.echo(f"{DEBT}: {name} lacks nothing any more, or does not exist: take it out")
    bad = sum(map(len, (*new.values(), *old.values())))
    click.echo(f"{bad} not as {DEBT} says" if bad else f"all as {DEBT} says")
    return 1 if bad else 0


def _row(clause: Clause, width: int) -> str:
    line = f"{clause.id:<16} {clause.level:<6} {' '.join(clause.text.split())}"
    return line if not width or len(line) <= width else f"{line[: width - 1]}…"


def _whole(clause: Clause) -> str:
    head = f"{clause.id}  {clause.level} · {', '.join(clause.profiles)} · {', '.join(clause.editions)}"
    parts = [head, clause.text]
    parts += [f"Rationale: {clause.rationale}"] if clause.rationale else []
    parts += [f"Source: {clause.source}"] if clause.source else []
    return "\n\n".join([*map(_filled, parts), *_belonging(_linked(clause))])


def _belonging(clause: LinkedClause) -> Iterator[str]:
    """Yield paragraphs on the tests and the mutants of a clause."""
    purpose = [test.id for test in clause.tests if test.purpose]
    watching = [test.id for test in clause.tests if not test.purpose]
    if purpose:
        yield "\n".join(["Tests:", *(f"  {id}" for id in purpose)])
    if watching:
        also = "also" if purpose else "only"
        named = (
            watching if len(watching) <= SHOWN else [*watching[:SHOWN], f"and {len(watching) - SHOWN} more"]
        )
        yield "\n".join([f"Tests that {also} look at it:", *(f"  {id}" for id in named)])
    if clause.mutants:
        width = max(len(mutant.name) for mutant in clause.mutants)
        rows = [f"  {mutant.name:<{width}}  {mutant.description}" for mutant in clause.mutants]
        yield "\n".join(["Mutants:", *rows])
    for missing, reason in clause.debt.items():
        yield _filled(f"No {missing}: {reason}.")


def _filled(paragraphs: str) -> str:
    """Return text filled to the width of the page, but for lists and examples, which keep their lines."""
    return "\n\n".join(
        part if part.lstrip().startswith(("-", "*", "    ", "|", "```")) else textwrap.fill(part, PAGE)
        for part in paragraphs.split("\n\n")
    )
