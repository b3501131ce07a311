# SPDX-License-Identifier: LGPL-2.1-or-later
"""``xlsnap-conformance run``: run the suite through pytest, after a look at what it needs."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import click

from .options import clause_option, driver_option, jobs_of, mutant_option, profile_option, with_mutant

_NEEDED = {  # program: packages for apt, dnf, zypper and pacman
    "qemu-img": ("qemu-utils", "qemu-img", "qemu-tools", "qemu-img"),
    "qemu-system-x86_64": ("qemu-system-x86", "qemu-system-x86-core", "qemu-x86", "qemu-system-x86"),
}

_EPILOG = """\b
Examples:
  xlsnap-conformance run
  xlsnap-conformance run --profile quick -n 2
  xlsnap-conformance run --driver './my-driver --host xen1' --report out
  xlsnap-conformance run --seed 7 -k revert
  xlsnap-conformance run --seed 7 --shard 3/8 --report out

\b
Exit status: 0 nothing was broken, 1 a MUST clause was broken, 2 usage or harness error, 130 interrupted.
"""


@click.command("run", epilog=_EPILOG)
@driver_option
@mutant_option
@profile_option
@click.option("-n", "--jobs", default="1", metavar="N", help="Processes that run tests, or 'auto'.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Seed of the generated scenarios.  [random]")
@click.option(
    "--report",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write HTML, JSON, JUnit, Markdown and SVG to DIR, and a trace of each failure.",
)
@click.option("-k", "keyword", metavar="EXPR", help="Only tests whose names match, as pytest's -k.")
@clause_option
@click.option("--cover", is_flag=True, help="Only as many tests as it takes to test each clause once.")
@click.option(
    "--expectations",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="TOML file of what is known to fail, and why: it becomes 'known', and does not count.",
)
@click.option("--update-expectations", is_flag=True, help="Rewrite that file from this run.")
@click.option("--shard", metavar="I/N", help="Only the I-th of N parts, for N machines; see 'merge'.")
@click.option(
    "--times",
    type=click.Path(exists=True, path_type=Path),
    metavar="REPORT",
    help="Balance shards by the times in this earlier report; the same one for all.",
)
@click.option(
    "--examples",
    metavar="WHERE",
    help="Share failing scenarios with other runs: a directory, or redis://HOST.",
)
@click.option("--strict", is_flag=True, help="Let SHOULD clauses count like MUST clauses.")
def command(
    driver: str,
    mutant: str | None,
    profile: str,
    jobs: str,
    seed: int | None,
    report: Path | None,
    keyword: str | None,
    clause: tuple[str, ...],
    cover: bool,
    expectations: Path | None,
    update_expectations: bool,
    shard: str | None,
    times: Path | None,
    examples: str | None,
    strict: bool,
) -> int:
    """Run the conformance suite against a toolstack."""
    driver = with_mutant(driver, mutant)
    check_names(profile, clause)
    check_programs(driver)
    prepare(driver)
    arguments = ["--driver", driver, "--profile", profile, *_workers(jobs)]
    if seed is not None:
        arguments += ["--xlsnap-seed", str(seed)]
    if report is not None:
        report.mkdir(parents=True, exist_ok=True)  # better now than after the run
        arguments += ["--report", str(report.absolute())]
    if keyword:
        arguments += ["-k", keyword]
    for id in clause:
        arguments += ["--clause", id]
    if cover:
        arguments.append("--cover")
    if expectations is not None:
        _check_expectations(expectations, update_expectations)
        arguments += ["--expectations", str(expectations.absolute())]
    if update_expectations:
        if expectations is None:
            raise click.UsageError("--update-expectations needs --expectations FILE")
        arguments.append("--update-expectations")
    if shard is not None:
        arguments += ["--shard", _checked_shard(shard, seed)]
    if times is not None:
        arguments += ["--times", str(times.absolute())]
    if examples is not None:
        arguments += ["--examples", _checked_examples(examples)]
    if strict:
        arguments.append("--strict-should")
    return run_pytest(arguments)


def _check_expectations(file: Path, updating: bool) -> None:
    """Read the file before anything else happens, unless it is to be made."""
    from ..known import load

    if file.exists() or not updating:
        load(file)


def check_names(profile: str, ids: tuple[str, ...]) -> None:
    """Raise `click.UsageError` unless the specification has this profile and these clauses."""
    from ..clauses import load_clauses
    from ..profiles import available

    clauses = load_clauses()
    profiles = available({group for clause in clauses.values() for group in clause.profiles})
    if profile not in profiles:
        raise click.UsageError(f"no profile {profile!r}; there are {', '.join(profiles)}")
    for id in ids:
        if id not in clauses:
            raise click.UsageError(f"no clause {id!r}; 'xlsnap-conformance spec' lists them")


def check_programs(driver: str) -> None:
    """Raise `click.ClickException` when the driver or QEMU is not there."""
    from ..drivers import command_of

    command = command_of(driver)
    if shutil.which(command[0]) is None:
        reason = "is not executable" if Path(command[0]).exists() else "no such program"
        raise click.ClickException(f"driver {command[0]}: {reason}")
    ours = {"xlsnap_conformance.drivers.reference", "xlsnap_conformance.drivers.xen"}
    reference = bool(ours.intersection(command))
    needed = [name for name in _NEEDED if reference or name == "qemu-img"]
    missing = [name for name in needed if shutil.which(name) is None]
    if missing:
        columns = zip(*(_NEEDED[name] for name in missing), strict=True)
        tools = ("apt-get install", "dnf install", "zypper install", "pacman -S")
        ways = ", ".join(f"{tool} {' '.join(names)}" for tool, names in zip(tools, columns, strict=True))
        raise click.ClickException(f"{' and '.join(missing)} not found; install QEMU: {ways}")


def prepare(driver: str) -> None:
    """Make what the driver starts from, if it is ours and takes long: a frozen nested Xen host.

    :raise HarnessError: if that cannot be made.
    """
    from ..drivers import command_of

    if "xlsnap_conformance.drivers.xen" in command_of(driver):
        from ..drivers.xen.preparation import prepare_host
        from .progress import Progress

        with Progress() as progress:
            prepare_host(command_of(driver), progress)


def _checked_shard(shard: str, seed: int | None) -> str:
    from ..sharding import Shard

    try:
        parsed = Shard.parse(shard)
    except ValueError as error:
        raise click.UsageError(f"--shard: {error}") from error
    if seed is None:
        raise click.UsageError(
            "--shard needs --seed, the same for all shards: the number of the pipeline, say"
        )
    return str(parsed)


def _checked_examples(where: str) -> str:
    """Open the database once, so that a wrong one is told before the run."""
    from ..sharing import open_database

    open_database(where)
    return where if "://" in where else os.path.abspath(where)


def _workers(jobs: str) -> list[str]:
    number = jobs_of(jobs)
    return ["-n", str(number), "--dist", "worksteal"] if number > 1 else []


def run_pytest(arguments: list[str]) -> int:
    """Run the suite in a pytest that nothing around it configures; return the exit status."""
    # A CI job that is cancelled gets SIGTERM; it shall end as Ctrl-C does, with a report and no leftovers.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    import pytest

    from ..collecting import SUITE, suite_arguments, without_other_plugins

    with tempfile.TemporaryDirectory(prefix="xlsnap-run-") as scratch, without_other_plugins():
        status = pytest.main(
            [
                *suite_arguments(scratch),
                "-p", "xdist",
                "-p", "xlsnap_conformance.cli.takeover",
                "--tb=short",
                *arguments,
                "--pyargs", SUITE,
            ]
        )  # fmt: skip
    return int(status) if status in (0, 1, 130) else 2
