# SPDX-License-Identifier: LGPL-2.1-or-later
"""``xlsnap-conformance differ``: one trace on several implementations, and where they part."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..failures import HarnessError

if TYPE_CHECKING:
    from ..differential import Difference, Facts
    from ..trace import Trace

_EPILOG = """\b
Examples:
  xlsnap-conformance differ --driver reference --driver virsh --seed 7
  xlsnap-conformance differ --driver ./mine --shape two-disks --steps 60
  xlsnap-conformance differ --driver reference --driver ./mine out/traces/FILE

\b
Exit status: 0 all do the same, 1 they differ, 2 usage or harness error.
"""


@click.command("differ", short_help="Do one trace with several drivers.", epilog=_EPILOG)
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--driver", "drivers", multiple=True, required=True, metavar="CMD", help="A driver; give it for each."
)
@click.option("--shape", default="two-disks", show_default=True, help="Shape of the domain of a drawn trace.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Seed of a drawn trace.  [random]")
@click.option("--steps", type=click.IntRange(1, 500), default=30, show_default=True, help="Actions to draw.")
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Write the trace to this file.")
def command(
    file: Path | None, drivers: tuple[str, ...], shape: str, seed: int | None, steps: int, save: Path | None
) -> int:
    """Do the trace in FILE, or one that is drawn, with several drivers and the model; show what differs."""
    import random

    from ..differential import MODEL, differences, draft, foresee
    from ..fence import Fence
    from ..machine import EXTERNAL_SHAPES, SHAPES
    from ..subject import Subject
    from ..trace import load, to_json
    from ..wording import capabilities
    from .run import check_programs

    if shape not in (*SHAPES, *EXTERNAL_SHAPES):
        raise click.UsageError(f"no shape {shape!r}; there are {', '.join((*SHAPES, *EXTERNAL_SHAPES))}")
    for driver in drivers:
        check_programs(driver)
    able: list[frozenset[str]] = []
    for driver in drivers:
        with Fence() as fence, Subject(driver, fence) as subject:
            able.append(subject.capabilities)
    common = frozenset.intersection(*able)
    if file is not None:
        trace = load(file)
        if missing := capabilities(trace) - common:
            raise HarnessError(f"not every implementation claims {', '.join(sorted(missing))}")
    else:
        seed = random.SystemRandom().randrange(2**32) if seed is None else seed
        trace = draft(shape, seed, common, steps=steps)
    if save is not None:
        save.write_bytes(to_json(trace))
    notes: dict[str, list[Facts]] = {MODEL: foresee(trace)}
    for number, driver in enumerate(drivers, start=1):
        notes[_name(driver, drivers, number)] = _watch(trace, driver)
    return _show(trace, notes, differences(notes))


def _name(driver: str, drivers: tuple[str, ...], number: int) -> str:
    """Return the driver, with its number if it was given more than once."""
    return f"{driver} ({number})" if drivers.count(driver) > 1 else driver


def _watch(trace: Trace, driver: str) -> list[Facts]:
    from ..differential import watch
    from ..fence import Fence
    from ..subject import Subject

    with Fence() as fence, Subject(driver, fence) as subject:
        seen = []
        for facts in watch(trace, subject):
            seen.append(facts)
            if sys.stderr.isatty():
                click.echo(f"\r{driver}: step {len(seen)} of {len(trace.steps)}", err=True, nl=False)
    if sys.stderr.isatty():
        click.echo("", err=True)
    return seen


def _show(trace: Trace, notes: dict[str, list[Facts]], found: list[Difference]) -> int:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from ..report import text
    from ..report.terminal import console

    out = console(sys.stdout)
    out.print(Text(f"{trace.title}: {len(trace.steps)} steps"))
    words = trace.describe_steps()
    last = max((difference.step for difference in found), default=0)
    differing = {difference.step for difference in found}
    for number, word in enumerate(words[:last], start=1):
        out.print(Text(f"{'*' if number in differing else ' '} {number:3}. {text.one_line(word)}"))
    if not found:
        out.print(f"{', '.join(notes)}: no difference")
        return 0
    shown = Table("step", "what", *(text.one_line(name, 60) for name in notes), box=box.SIMPLE_HEAD)
    for difference in found:
        cells = (text.one_line(difference.seen.get(name, "(ended)"), 60) for name in notes)
        shown.add_row(str(difference.step), Text(difference.fact), *map(Text, cells))
    out.print(shown)
    for name, facts in notes.items():
        if len(facts) < len(trace.steps):
            out.print(
                Text(f"{name} ended after step {len(facts)}: it did what the model refuses, or refused")
            )
    return 1
