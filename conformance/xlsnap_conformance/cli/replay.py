# SPDX-License-Identifier: LGPL-2.1-or-later
"""``xlsnap-conformance replay``: do a trace again, or print it as a shell script."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..failures import HarnessError
from .options import driver_option, mutant_option, with_mutant
from .run import check_programs

if TYPE_CHECKING:
    from ..failures import ConformanceFailure
    from ..trace import Trace

_EPILOG = """\b
Examples:
  xlsnap-conformance replay out/traces/revert-1f9a03.json
  xlsnap-conformance replay trace.json --driver ./my-driver
  xlsnap-conformance replay trace.json --script > reproduce.sh

\b
Exit status: 0 every step went as it must, 1 a clause was broken, 2 usage or harness error.
"""


@click.command("replay", short_help="Do a trace again, or print it as a script.", epilog=_EPILOG)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@driver_option
@mutant_option
@click.option("--script", is_flag=True, help="Print the trace as a shell script instead.")
def command(file: Path, driver: str, mutant: str | None, script: bool) -> int:
    """Do the steps of the trace in FILE again, and check each."""
    from ..trace import load

    trace = load(file)
    if script:
        from ..script import to_shell

        click.echo(to_shell(trace), nl=False)
        return 0
    driver = with_mutant(driver, mutant)
    check_programs(driver)
    return _replay(trace, driver)


def _replay(trace: Trace, driver: str) -> int:
    """Do the steps; print each and how it ended."""
    from ..failures import ConformanceFailure
    from ..fence import Fence
    from ..report.text import one_line
    from ..scenario import Scenario, Unsupported
    from ..subject import Subject

    with Fence() as fence, Subject(driver, fence) as subject, Scenario(subject, trace.domain) as scenario:
        click.echo(f"{one_line(subject.name)}: {one_line(trace.title) or 'trace'}")
        words = [*trace.describe_steps(), "look at everything"]
        actions: list[Callable[[], None]] = [
            *(partial(scenario.play, step) for step in trace.steps),
            scenario.finish,
        ]
        for number, (said, act) in enumerate(zip(words, actions, strict=True), start=1):
            click.echo(f"  {number:>3}  {one_line(said)} … ", nl=False)
            try:
                act()
            except ConformanceFailure as failure:
                click.echo("FAIL")
                _tell(failure)
                return 1
            except Unsupported as error:
                click.echo("unsupported")
                raise HarnessError(f"the trace cannot be done: {one_line(str(error))}") from error
            except BaseException:
                click.echo("")
                raise
            click.echo("ok")
    return 0


def _tell(failure: ConformanceFailure) -> None:
    from ..report.text import json_text, visible

    click.echo(f"{', '.join(failure.clause_ids)}: {visible(failure.summary)}")
    click.echo(f"  expected  {visible(json_text(failure.expected))}")
    click.echo(f"  observed  {visible(json_text(failure.observed))}")
