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
from .run import check_programs, prepare

if TYPE_CHECKING:
    from ..failures import ConformanceFailure
    from ..subject import Subject
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
        from ..script import dialect_of, to_shell

        click.echo(to_shell(trace, dialect_of(driver)), nl=False)
        return 0
    driver = with_mutant(driver, mutant)
    check_programs(driver)
    prepare(driver)
    return _replay(trace, driver)


def _replay(trace: Trace, driver: str) -> int:
    """Do the steps with the implementation that ``driver`` runs; return the exit status."""
    from ..fence import Fence
    from ..subject import Subject
    from ..wording import capabilities

    with Fence() as fence, Subject(driver, fence) as subject:
        unclaimed = capabilities(trace) - subject.capabilities
        if unclaimed:
            raise HarnessError(f"the implementation does not claim {', '.join(sorted(unclaimed))}")
        return _play(trace, subject)


def _play(trace: Trace, subject: Subject) -> int:
    """Do the steps; print each and how it ended."""
    from ..failures import ConformanceFailure
    from ..report.text import one_line
    from ..scenario import Scenario

    click.echo(f"{one_line(subject.name)}: {one_line(trace.title) or 'trace'}")
    with Scenario(subject, trace.domain, title=trace.title) as scenario:
        actions: list[Callable[[], None]] = [partial(scenario.play, step) for step in trace.steps]
        said = [*trace.describe_steps(), "look at everything once more"]
        for number, (words, act) in enumerate(zip(said, [*actions, scenario.finish], strict=True), start=1):
            click.echo(f"  {number:>3}  {one_line(words)} … ", nl=False)
            try:
                act()
            except ConformanceFailure as failure:
                click.echo("FAIL")
                _tell(failure)
                return 1
            except BaseException:
                click.echo()  # the line of the step ends before the message of the error begins
                raise
            click.echo("ok")
    return 0


def _tell(failure: ConformanceFailure) -> None:
    from ..report.text import json_text, visible

    click.echo(f"{', '.join(failure.clause_ids)}: {visible(failure.summary)}")
    click.echo(f"  expected  {visible(json_text(failure.expected))}")
    click.echo(f"  observed  {visible(json_text(failure.observed))}")
