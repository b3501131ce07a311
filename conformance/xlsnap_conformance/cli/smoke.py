# SPDX-License-Identifier: LGPL-2.1-or-later
"""``xlsnap-conformance smoke``: check a driver itself, before a toolstack is judged with it."""

from __future__ import annotations

import click

from .options import driver_option
from .run import check_programs, prepare

_EPILOG = """\b
Examples:
  xlsnap-conformance smoke --driver ./my-driver
  xlsnap-conformance smoke --driver profile:my.toml

\b
Exit status: 0 the driver is in order, 2 it is not. The toolstack itself is not judged.
"""


@click.command("smoke", short_help="Check a driver itself.", epilog=_EPILOG)
@click.argument("positional", metavar="[DRIVER]", required=False)
@driver_option
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="How long the driver may take for a reply.  [the protocol's limits, at most 60]",
)
def command(positional: str | None, driver: str, seconds: float | None) -> int:
    """Start DRIVER, have it do everything once, and say what is wrong with it."""
    from ..fence import Fence
    from ..report.text import one_line, visible
    from ..smoke import CHECKS, LIMITS, Outcome, smoke

    driver = positional or driver
    check_programs(driver)
    prepare(driver)
    width = max(map(len, CHECKS))
    worst = Outcome.OK
    with Fence() as fence:
        limits = None if seconds is None else dict.fromkeys(LIMITS, seconds)
        for finding in smoke(driver, fence, limits=limits):
            click.echo(f"{finding.check:<{width}}  {finding.outcome.value:<8} {one_line(finding.text)}")
            if finding.log:
                click.echo("  --- the end of the driver's log ---")
                for line in visible(finding.log).splitlines():
                    click.echo(f"  {line}")
            if finding.outcome is Outcome.WRONG or (
                finding.outcome is Outcome.REFUSED and worst is Outcome.OK
            ):
                worst = finding.outcome
    if worst is Outcome.WRONG:
        click.echo("\nthe driver is not in order: nothing can be said of its toolstack")
        return 2
    if worst is Outcome.REFUSED:
        click.echo(
            "\nthe driver is in order; its toolstack refuses what is marked so: the suite will say more"
        )
        return 0
    click.echo("\nthe driver is in order")
    return 0
