# SPDX-License-Identifier: LGPL-2.1-or-later
"""Gathers the results of all workers into one `Run`.

This is the half of the plugin that lives in the leading process. On its own it shows progress and results;
beside pytest's terminal reporter it leaves progress to that, and adds a summary.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from .. import known, results, verdicts
from ..clauses import PROFILES
from ..results import ClauseResult, Host, Implementation, Run, Status, TestResult
from . import terminal, text

if TYPE_CHECKING:
    from ..clauses import Clause
    from ..plugin import RunContext

_LETTERS = {
    Status.PASS: ".",
    Status.UNSUPPORTED: "u",
    Status.KNOWN: "k",
    Status.BLOCKED: "b",
    Status.HARNESS_ERROR: "E",
    Status.FAIL: "F",
}


class Recorder:
    """Receives pytest's events, shows progress, and writes the reports at the end of the session."""

    def __init__(self, config: pytest.Config, context: RunContext, clauses: Mapping[str, Clause]) -> None:
        self.config = config
        self.context = context
        self.clauses = clauses
        self.tests: dict[str, TestResult] = {}
        self.begun: dict[str, TestResult] = {}  # an interrupted test stays here: it says nothing
        self.named: dict[str, tuple[str, ...]] = {}
        self.errors: list[str] = []
        self.interrupted = False
        self.implementation: Implementation | None = None
        self.started = datetime.now(UTC)
        self.clock = time.monotonic()
        self.run: Run | None = None
        self.directory: Path | None = None
        self.progress = terminal.Progress(terminal.console(sys.stdout))

    # --- pytest's events

    @property
    def alone(self) -> bool:
        """Whether pytest's own terminal reporter is absent."""
        return not self.config.pluginmanager.hasplugin("terminalreporter")

    def _title(self) -> str:
        context = self.context
        return f"driver {context.driver} · profile {context.profile.name} · seed {context.seed}"

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Begin to show progress."""
        if self.alone:
            self.progress = terminal.progress(sys.stdout)
            self.progress.header(self._title())

    def pytest_report_header(self) -> str:
        """Tell pytest's reporter what the run is about."""
        return f"xlsnap: {self._title()}"

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Learn the number of tests, when they run in this process."""
        self.progress.total(len(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Learn the number of tests from a worker."""
        self.progress.total(len(ids))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep what could not be collected."""
        told = text.visible(report.longreprtext).strip()
        if report.failed and told not in self.errors:  # each worker tells it
            self.errors.append(told)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Show that a test began."""
        self.progress.started(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take in the result of one phase of a test."""
        carried = getattr(report, "xlsnap", None)
        if carried is None:  # xdist's own report of a worker that died
            last_line = report.longreprtext.strip().rpartition("\n")[2]
            phase = TestResult(
                id=report.nodeid, status=Status.HARNESS_ERROR, message=text.one_line(last_line)
            )
        else:
            phase = msgspec.convert(carried["result"], TestResult)
            if carried["implementation"] is not None:
                self.implementation = msgspec.convert(carried["implementation"], Implementation)
        before = self.begun.pop(report.nodeid, None)
        result = phase if before is None else joined(before, phase)
        if carried is None or report.when == "teardown":
            result = self.context.known.judge(result, self.implementation)
            self.tests[report.nodeid] = result
            self.progress.finished(result)
        else:
            self.begun[report.nodeid] = result

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Learn from a worker which clauses its tests name."""
        named = getattr(node, "workeroutput", {}).get("xlsnap_clauses", {})
        self.named |= {test: tuple(ids) for test, ids in named.items()}

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Tell pytest's reporter the letter and the word of a status; its own for set-up and tear-down."""
        status = getattr(report, "xlsnap", {}).get("result", {}).get("status", Status.PASS)
        if status == Status.PASS:
            return None
        category = "error" if status == Status.HARNESS_ERROR else report.outcome
        return category, _LETTERS[Status(status)], status.upper()

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Remember that the user ended the run; pytest itself ends one with subclasses of this exception."""
        self.interrupted = excinfo.type is KeyboardInterrupt

    def pytest_internalerror(self, excrepr: object) -> bool:
        """Keep an error of pytest itself for the report."""
        self.errors.append(text.tail(str(excrepr)))
        return True

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the reports, and set pytest's exit status."""
        self.progress.close()
        self.run = self.result()
        try:
            self._update_expectations(self.run)
        except OSError as error:
            problem = f"cannot write the expectations: {error}"
            self.run = msgspec.structs.replace(self.run, errors=(*self.run.errors, problem))
        directory = self.config.getoption("--report")
        if directory is not None:
            from . import write

            try:
                write(self.run, directory)
                self.directory = _near(directory)
            except OSError as error:
                self.run = msgspec.structs.replace(
                    self.run, errors=(*self.run.errors, f"cannot write the report: {error}")
                )
        session.exitstatus = self.run.exit_code
        if self.alone:
            self.progress.summary(self.run, self.directory)

    def pytest_terminal_summary(self) -> None:
        """Add the summary to what pytest's reporter shows."""
        if self.run is not None:
            self.progress.summary(self.run, self.directory)

    # --- the run

    def selection(self) -> str:
        """Return why not all tests of the profile ran, "" when they did."""
        option = self.config.option
        chosen = [f"-k {option.keyword}"] if option.keyword else []
        chosen += [f"-m {option.markexpr}"] if option.markexpr else []
        chosen += [f"--clause {clause}" for clause in option.clause]
        chosen += [arg for arg in self.config.args if "::" in arg]
        chosen += [f"--shard {option.shard}"] if option.shard else []
        chosen += [f"--maxfail {option.maxfail}"] if option.maxfail else []
        return " ".join(chosen)

    def result(self) -> Run:
        """Return the run as it is now."""
        tests = tuple(
            msgspec.structs.replace(test, clauses=test.clauses or self.named.get(test.id, ()))
            for test in self.tests.values()
        )
        broken = {id for test in tests for id in test.broken}
        profile, strict = self.context.profile, self.config.getoption("--strict-should")
        clauses = verdicts.summarise_clauses(
            (
                _clause_result(clause)
                for clause in self._clauses_of_edition()
                if profile.wants(clause.profiles) or clause.id in broken
            ),
            tests,
        )
        selected = self.selection()
        errors = [*self.errors, *self._out_of_date(tests, clauses)]
        return Run(
            kit=kit_version(),
            implementation=msgspec.structs.replace(
                self.implementation or Implementation(), driver=text.one_line(self.context.driver)
            ),
            profile=profile.name,
            seed=self.context.seed,
            started=self.started.isoformat(timespec="seconds"),
            duration=round(time.monotonic() - self.clock, 3),
            interrupted=self.interrupted,
            strict=strict,
            selected=selected,
            shard=self.context.shard,
            host=host(),
            errors=tuple(errors),
            profiles=verdicts.summarise_profiles(
                PROFILES,
                clauses,
                partial=self._partial_profiles(),
                asked=profile.name,
                implementation=self.implementation or results.NOBODY,
                strict=strict,
                incomplete=verdicts.obstacles(interrupted=self.interrupted, selected=selected, errors=errors),
            ),
            clauses=clauses,
            tests=tests,
        )

    def _stale(self, tests: Sequence[TestResult], clauses: Sequence[ClauseResult]) -> list[known.Entry]:
        complete = not (self.selection() or self.interrupted or self.errors)
        return self.context.known.out_of_date(tests, clauses, self.implementation, complete=complete)

    def _out_of_date(self, tests: Sequence[TestResult], clauses: Sequence[ClauseResult]) -> list[str]:
        """Return an error for each expectation that is out of date, unless the file is to be rewritten."""
        if self.config.getoption("--update-expectations"):
            return []
        file = self.config.getoption("--expectations")
        return [
            f"{file}: {entry.about} was expected to be {entry.status}, and was not: remove it, or use"
            " --update-expectations"
            for entry in self._stale(tests, clauses)
        ]

    def _update_expectations(self, run: Run) -> None:
        """Rewrite the file of expectations from this run, if that was asked for."""
        file = self.config.getoption("--expectations")
        if not self.config.getoption("--update-expectations") or self.implementation is None:
            return
        stale = self._stale(run.tests, run.clauses)
        entries = known.updated(self.context.known, run.tests, stale, self.implementation)
        file.write_text(known.text_of(entries, self.context.known.head), encoding="utf-8")

    def _clauses_of_edition(self) -> list[Clause]:
        """Return the clauses that count: those of the edition that is claimed (XLS-EDITION-001)."""
        edition = self.implementation.edition if self.implementation else ""
        return [clause for clause in self.clauses.values() if not edition or edition in clause.editions]

    def _partial_profiles(self) -> set[str]:
        """Return the profiles of the specification of which this run leaves out a clause."""
        wants = self.context.profile.wants
        return {
            name
            for clause in self._clauses_of_edition()
            if not wants(clause.profiles)
            for name in clause.profiles
        }


def _near(directory: Path) -> Path:
    """Return ``directory`` relative to the current one, if it is below it."""
    here = Path.cwd()
    return directory.relative_to(here) if directory.is_relative_to(here) else directory


def joined(earlier: TestResult, later: TestResult) -> TestResult:
    """Return one result for two phases of a test: the worse one, with the time of both."""
    pair = (earlier, later)
    worse = next(result for result in pair if result.status is results.worst(r.status for r in pair))
    if worse.status is Status.PASS:
        worse = later if later.evidence.observed else earlier
    return msgspec.structs.replace(
        worse,
        clauses=worse.clauses or earlier.clauses,
        seconds=round(earlier.seconds + later.seconds, 3),
    )


def _clause_result(clause: Clause) -> ClauseResult:
    return ClauseResult(
        id=clause.id,
        level=str(clause.level),
        chapter=clause.chapter,
        text=clause.text,
        profiles=tuple(clause.profiles),
    )


def kit_version() -> str:
    """Return the version of this kit, "checkout" when it is not installed."""
    try:
        return metadata.version("xlsnap")
    except metadata.PackageNotFoundError:
        return "checkout"


def host() -> Host:
    """Return the facts of this machine."""
    return Host(
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        qemu=_qemu_version(),
        cpus=len(os.sched_getaffinity(0)),
    )


def _qemu_version() -> str | None:
    program = shutil.which("qemu-system-x86_64")
    if program is None:
        return None
    try:
        shown = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    first = shown.stdout.partition("\n")[0]
    return first.removeprefix("QEMU emulator version ").strip() or None
