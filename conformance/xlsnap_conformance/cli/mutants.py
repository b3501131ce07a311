# SPDX-License-Identifier: LGPL-2.1-or-later
"""``xlsnap-conformance mutants``: let the suite meet what is broken, and see whether it notices."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from .options import complete_clauses, jobs_of, mutants, toolstacks
from .run import check_programs

if TYPE_CHECKING:
    from rich.console import Console

    from ..drivers.reference.mutants import Mutant
    from ..mutation.matrix import Judged, Matrix, Verdict

_EPILOG = """\b
Examples:
  xlsnap-conformance mutants -n 2                     all; about five minutes on two cores
  xlsnap-conformance mutants --quick -n 2             one of each area, and what the last commit changed
  xlsnap-conformance mutants XLS-REVERT-004           those that break this clause
  xlsnap-conformance mutants wrong-memory-after-revert
  xlsnap-conformance mutants -n 2 --report out --docs

\b
Exit status: 0 each mutant was caught by a clause of its own, or is declared in spec/debt.toml to survive;
1 one was not, 2 usage or harness error, 130 interrupted.
"""


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    named = [name for name in mutants() if name.startswith(incomplete)]
    return [CompletionItem(value) for value in (*named, *complete_clauses(ctx, param, incomplete))]


@click.command("mutants", short_help="See whether the suite notices what is broken.", epilog=_EPILOG)
@click.argument("names", nargs=-1, metavar="[ID]…", shell_complete=_complete)
@click.option("-n", "--jobs", default="1", metavar="N", help="Processes that judge mutants, or 'auto'.")
@click.option(
    "--quick", "few", is_flag=True, help="One mutant of each area, and some whose code has changed."
)
@click.option("--since", metavar="REV", help="With --quick: changed since this revision.  [the last commit]")
@click.option("--list", "only_list", is_flag=True, help="Only list the mutants.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=1, show_default=True)
@click.option(
    "--report",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write the kill matrix to DIR: mutants.html, mutants.md and mutants.json.",
)
@click.option("--docs", is_flag=True, help="Put what was seen into docs/mutants.md of the checkout.")
def command(
    names: tuple[str, ...],
    jobs: str,
    few: bool,
    since: str | None,
    only_list: bool,
    seed: int,
    report: Path | None,
    docs: bool,
) -> int:
    """Run the suite against each mutant until it notices; ID is a mutant or a clause, and none means all.

    A mutant is something that is broken on purpose: mostly the reference toolstack, which
    'run --mutant NAME' then judges as if it were yours.
    """
    from ..mutation.crew import checkout
    from ..mutation.page import markdown, updated, write

    chosen = _chosen(names, few, since)
    if only_list:
        _list(chosen)
        return 0
    root = checkout()
    if docs and root is None:
        raise click.UsageError("--docs is for a checkout")
    number = jobs_of(jobs)
    check_programs("reference")
    if report is not None:
        report.mkdir(parents=True, exist_ok=True)  # better now than after the run
    selected = "--quick" if few else " ".join(names)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end as Ctrl-C does, with nothing left behind
    matrix = _judge(chosen, jobs=number, seed=seed, selected=selected)
    if report is not None:
        write(matrix, report)
    if docs and root is not None:
        page = root / "docs" / "mutants.md"
        part = matrix.selected and page.exists()
        new = updated(page.read_text("utf-8"), matrix, mutants()) if part else markdown(matrix)
        page.write_text(new, encoding="utf-8")
    _summary(matrix, report)
    return matrix.exit_code


def _chosen(names: tuple[str, ...], few: bool, since: str | None) -> list[Mutant]:
    """Return the mutants that were asked for.

    :raise click.UsageError: there is none, or the options do not go together.
    """
    from ..mutation.changes import changed_files
    from ..mutation.choice import modules_of, quick, select
    from ..mutation.crew import checkout

    if few and names:
        raise click.UsageError("--quick chooses by itself; it goes with no ID")
    if since is not None and not few:
        raise click.UsageError("--since goes with --quick")
    if few:
        root = checkout()
        files, head = changed_files(root, since) if root is not None else (set(), "")
        return quick(mutants(), modules_of(files), head)
    try:
        return select(mutants(), names)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _list(chosen: Sequence[Mutant]) -> None:
    width = max(len(mutant.name) for mutant in chosen)
    for mutant in chosen:
        judge = f" [{mutant.judge}]" if mutant.judge else "" if mutant.name in toolstacks() else " [model]"
        click.echo(f"{mutant.name:<{width}}  {', '.join(mutant.clauses)}: {mutant.description}{judge}")


def _judge(chosen: Sequence[Mutant], *, jobs: int, seed: int, selected: str) -> Matrix:
    """Judge the mutants, and let the reference meet the tests that killed them."""
    from ..links import Missing, load_debt
    from ..mutation.choice import Reach
    from ..mutation.crew import Crew, Plan
    from ..mutation.matrix import Fate, Matrix
    from ..report.recorder import host, kit_version
    from ..report.terminal import console
    from ..results import Status

    screen = console(sys.stdout)
    started, clock = datetime.now(UTC), time.monotonic()
    plan = Plan(
        seed=seed,
        reach=Reach.ABLE if selected == "--quick" else Reach.ALL,
        known=load_debt().of(Missing.KILL),
    )
    found: list[Judged] = []
    failed: list[Verdict] = []
    with Crew(plan, jobs) as crew:
        for mutant in crew.judge(chosen):
            found.append(mutant)
            _tell(screen, mutant, f"[{len(found):>{len(str(len(chosen)))}}/{len(chosen)}]")
        killers = dict.fromkeys(
            mutant.test
            for mutant in found
            if mutant.fate is Fate.KILLED and not mutant.judge and mutant.part == "toolstack"
        )
        screen.print(f"the reference meets the {len(killers)} tests that killed …")
        for verdict in crew.control(list(killers)):
            if verdict.status is not Status.PASS:
                failed.append(verdict)
                screen.print(f"{verdict.status}: {verdict.test}: {verdict.message}", markup=False)
    order = {mutant.name: place for place, mutant in enumerate(chosen)}
    return Matrix(
        kit=kit_version(),
        started=started.isoformat(timespec="seconds"),
        duration=round(time.monotonic() - clock, 3),
        jobs=jobs,
        seed=seed,
        selected=selected,
        host=host(),
        mutants=tuple(sorted(found, key=lambda mutant: order[mutant.name])),
        control=tuple(failed),
        controlled=len(killers),
    )


def _tell(screen: Console, mutant: Judged, count: str) -> None:
    """Print a line on a mutant that was judged."""
    from rich.text import Text

    from ..mutation.matrix import BAD, Fate
    from ..report.text import one_line

    styles = {Fate.KILLED: "green", Fate.KNOWN: "yellow", Fate.UNABLE: "bright_black"}
    style = "bold red" if mutant.fate in BAD else styles.get(mutant.fate, "magenta")
    why = " ".join(_why(mutant))
    told = f" {mutant.name} ({mutant.seconds:.1f} s)"
    words = Text.assemble(f"{count} ", (f"{mutant.fate:<13}", style), told)
    screen.print(words.append(f" - {one_line(why)}" if why else ""), soft_wrap=True)


def _why(mutant: Judged) -> Iterator[str]:
    from ..mutation.matrix import Fate

    if mutant.broken:
        yield ", ".join(mutant.broken)
    if mutant.test:
        yield f"by {mutant.test}"
    if mutant.message and mutant.fate is not Fate.KILLED:
        yield f"({mutant.message})"


def _summary(matrix: Matrix, report: Path | None) -> None:
    from ..clauses import load_clauses
    from ..mutation.matrix import BAD, Fate

    for mutant in matrix.mutants:
        if mutant.fate in BAD:
            click.echo(f"\n{mutant.fate}: {mutant.name}: {mutant.description}")
            click.echo(f"  breaks    {', '.join(mutant.clauses)}")
            for why in _why(mutant):
                click.echo(f"            {why}")
    areas = dict.fromkeys(clause.area for clause in load_clauses().values())
    click.echo("\narea       clauses  with a mutant  seen broken")
    for area in areas:
        of_area = [id for id, clause in load_clauses().items() if clause.area == area]
        named = {clause for mutant in matrix.mutants for clause in mutant.clauses}
        killed = [mutant for mutant in matrix.mutants if mutant.fate is Fate.KILLED]
        seen = {c for m in killed for c in (m.clauses if m.judge else set(m.clauses).intersection(m.broken))}
        row = (len(of_area), len(named.intersection(of_area)), len(seen.intersection(of_area)))
        click.echo(f"{area:<10} {row[0]:>7}  {row[1]:>13}  {row[2]:>11}")
    click.echo(f"\n{matrix.summary}")
    if matrix.control:
        click.echo(
            f"{len(matrix.control)} tests that killed do not pass on the reference: they prove nothing"
        )
    if report is not None:
        click.echo(f"report: {report / 'mutants.html'}")
