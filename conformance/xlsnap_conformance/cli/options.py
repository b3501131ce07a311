# SPDX-License-Identifier: LGPL-2.1-or-later
"""Options that several commands have, with their shell completion."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from ..drivers.reference.mutants import Mutant

REFERENCE = "reference"


def _profiles(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from ..clauses import load_clauses
    from ..profiles import available

    profiles = available({group for clause in load_clauses().values() for group in clause.profiles})
    return [CompletionItem(p.name, help=p.text) for p in profiles.values() if p.name.startswith(incomplete)]


def complete_clauses(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the clause ids that begin so."""
    from ..clauses import load_clauses

    return [id for id in load_clauses() if id.startswith(incomplete.upper())]


def _drivers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from ..drivers import BUILT_IN, PROFILE, plugged_in

    return [name for name in (*BUILT_IN, *plugged_in(), PROFILE) if name.startswith(incomplete)]


def _mutants(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in toolstacks() if name.startswith(incomplete)]


def mutants() -> dict[str, Mutant]:
    """Return all mutants by name."""
    from ..drivers.reference.mutants import CATALOGUE

    return CATALOGUE


def toolstacks() -> dict[str, Mutant]:
    """Return those that break the reference toolstack in its driver."""
    return {name: each for name, each in mutants().items() if each.break_it and each.part == "toolstack"}


def with_mutant(driver: str, mutant: str | None) -> str:
    """Return the driver to run: ``driver``, broken in the way that ``mutant`` names, if any.

    :raise click.UsageError: there is no such mutant, or the driver is not the reference's.
    """
    if mutant is None:
        return driver
    if driver != REFERENCE:
        raise click.UsageError("--mutant breaks the reference toolstack; it goes with no other --driver")
    if mutant not in toolstacks():
        raise click.UsageError(f"no mutant {mutant!r}; 'xlsnap-conformance drivers' lists them")
    return f"{driver} --mutant {mutant}"


def jobs_of(jobs: str) -> int:
    """Return the number of processes that ``-n`` asks for.

    :raise click.UsageError: it is no number, and not "auto".
    """
    if jobs == "auto":
        return len(os.sched_getaffinity(0))
    if not jobs.isdecimal() or int(jobs) < 1:
        raise click.UsageError(f"-n {jobs}: a number from 1, or 'auto'")
    return int(jobs)


driver_option = click.option(
    "--driver",
    default=REFERENCE,
    show_default=True,
    metavar="CMD",
    shell_complete=_drivers,
    help="Driver of the toolstack: a name that 'drivers' lists, profile:FILE.toml, or a command.",
)
mutant_option = click.option(
    "--mutant",
    metavar="NAME",
    shell_complete=_mutants,
    help="Break the reference toolstack in this way, to see the suite notice.",
)
profile_option = click.option(
    "--profile",
    default="core",
    show_default=True,
    metavar="NAME",
    shell_complete=_profiles,
    help="Which clauses to test, and how hard: a profile of the specification, or quick, all, deep.",
)
clause_option = click.option(
    "--clause",
    multiple=True,
    metavar="ID",
    shell_complete=complete_clauses,
    help="Only tests of this clause; may be repeated.",
)
