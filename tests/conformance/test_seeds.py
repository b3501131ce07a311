# SPDX-License-Identifier: LGPL-2.1-or-later
"""The suite with several seeds: one run after the other, and a table of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from xlsnap_conformance import cli
from xlsnap_conformance.report import write
from xlsnap_conformance.results import Implementation, Run, Status, TestResult


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(["seeds", *arguments])
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Runs of the suite are not real: that with seed 2 finds something broken, that with seed 9 dies."""
    commands: list[list[str]] = []
    real = subprocess.run

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if command[:4] != [sys.executable, "-m", "xlsnap_conformance", "run"]:
            return real(command, **options)
        commands.append(command)
        seed = int(command[command.index("--seed") + 1])
        if seed == 9:
            return subprocess.CompletedProcess(command, 2, stdout="", stderr="xlsnap-conformance: no room\n")
        broken = ("XLS-REVERT-003",) if seed == 2 else ()
        test = TestResult(
            id="a.py::test_a",
            status=Status.FAIL if broken else Status.PASS,
            clauses=("XLS-REVERT-003",),
            broken=broken,
        )
        write(
            Run(
                kit="0",
                implementation=Implementation(),
                profile="all",
                seed=seed,
                started="2026-01-02T03:04:05+00:00",
                duration=61.0,
                tests=(test,),
            ),
            Path(command[command.index("--report") + 1]),
        )
        return subprocess.CompletedProcess(command, 1 if broken else 0, stdout="", stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_each_seed_has_a_row_and_the_worst_counts(
    runs: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--count", "3", "-n", "2", "--report", str(tmp_path)) == 1
    heading, *rows, _, last = capsys.readouterr().out.splitlines()
    assert heading.split() == ["seed", "tests", "pass", "fail", "other", "time", "verdict"]
    assert [row.split()[:4] for row in rows] == [
        *(["1", "1", "1", "0"], ["2", "1", "0", "1"], ["3", "1", "1", "0"])
    ]
    assert rows[1].endswith(": XLS-REVERT-003")
    assert last == f"2 of 3 runs broke nothing; reports: {tmp_path}"
    assert {command[command.index("--profile") + 1] for command in runs} == {"all"}
    assert (tmp_path / "2" / "report.json").exists()


def test_a_profile_is_taken_as_it_is_named(runs: list[list[str]]) -> None:
    assert call("--count", "1", "--first", "7", "--profile", "core") == 0
    (command,) = runs
    assert command[command.index("--profile") + 1] == "core"
    assert command[command.index("--seed") + 1] == "7"


def test_a_run_that_leaves_no_report_is_told(
    runs: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--count", "1", "--first", "9") == 2
    assert "9  no report: exit status 2: xlsnap-conformance: no room" in capsys.readouterr().out
