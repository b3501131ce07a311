# SPDX-License-Identifier: LGPL-2.1-or-later
"""``xlsnap-conformance seeds``: run the suite several times, each time with other generated scenarios."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import driver_option, jobs_of, mutant_option, profile_option, with_mutant
from .run import check_names, check_programs

if TYPE_CHECKING:
    from ..results import Run

_EPILOG = """\b
Examples:
  xlsnap-conformance seeds -n 2                        seeds 1 to 20, all profiles: does it hold every time?
  xlsnap-conformance seeds --count 5 --first 100 --profile core --driver ./my-driver

\b
Exit status: that of the worst run: 0 nothing was broken, 1 a MUST clause was broken, 2 usage or harness
error, 130 interrupted. 'run --seed N' repeats one of the runs.
"""


@click.command("seeds", short_help="Run the suite with several seeds.", epilog=_EPILOG)
@driver_option
@mutant_option
@profile_option
@click.option("-n", "--jobs", default="1", metavar="N", help="Processes that run tests, or 'auto'.")
@click.option("--count", type=click.IntRange(1), default=20, show_default=True, help="Number of runs.")
@click.option("--first", type=click.IntRange(0), default=1, show_default=True, help="Seed of the first run.")
@click.option(
    "--report",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write the report of each run to DIR/SEED.",
)
@click.pass_context
def command(
    ctx: click.Context,
    driver: str,
    mutant: str | None,
    profile: str,
    jobs: str,
    count: int,
    first: int,
    report: Path | None,
) -> int:
    """Run the conformance suite with several seeds, one after the other, and show a table.

    The profile is "all" unless another one is named.
    """
    driver = with_mutant(driver, mutant)
    if ctx.get_parameter_source("profile") is click.core.ParameterSource.DEFAULT:
        profile = "all"
    check_names(profile, ())
    check_programs(driver)
    arguments = ["--driver", driver, "--profile", profile, "-n", str(jobs_of(jobs))]
    click.echo(f"{'seed':>10}  {'tests':>5}  {'pass':>5}  {'fail':>5}  {'other':>5}  {'time':>7}  verdict")
    statuses = []
    with tempfile.TemporaryDirectory(prefix="xlsnap-run-") as scratch:
        for seed in range(first, first + count):
            statuses.append(_run(seed, arguments, (report or Path(scratch)) / str(seed)))
            if statuses[-1] not in (0, 1, 2):
                break
    held = statuses.count(0)
    click.echo(f"\n{held} of {len(statuses)} runs broke nothing" + (f"; reports: {report}" if report else ""))
    return max(statuses)


def _run(seed: int, arguments: list[str], directory: Path) -> int:
    """Run the suite with a seed, print a row, and return the exit status."""
    from ..results import load

    told = [
        sys.executable,
        "-m",
        "xlsnap_conformance",
        "run",
        "--seed",
        str(seed),
        "--report",
        str(directory),
    ]
    done = subprocess.run(
        [*told, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    try:
        click.echo(_row(load(directory)))
    except (OSError, ValueError):
        reason = (done.stderr.strip() or done.stdout.strip() or "it said nothing").rpartition("\n")[2]
        click.echo(f"{seed:>10}  no report: exit status {done.returncode}: {reason}")
        return done.returncode or 2
    return done.returncode


def _row(run: Run) -> str:
    from ..results import Status

    passed, failed = run.count(Status.PASS), run.count(Status.FAIL)
    other = len(run.tests) - passed - failed
    broken = sorted({clause for test in run.tests for clause in test.broken})
    row = f"{run.seed:>10}  {len(run.tests):>5}  {passed:>5}  {failed:>5}  {other:>5}  {run.duration:>5.0f} s"
    return f"{row}  {run.verdict}" + (f": {', '.join(broken)}" if broken else "")
