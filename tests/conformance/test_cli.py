# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line: what it prints, how it ends, and one line for whatever is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from xlsnap_conformance import cli, results
from xlsnap_conformance import trace as do
from xlsnap_conformance.clauses import load_clauses
from xlsnap_conformance.cli.run import check_programs
from xlsnap_conformance.report import write
from xlsnap_conformance.results import Implementation, Run, Status, TestResult

CLAUSES = load_clauses()
FIRST = next(iter(CLAUSES))
RUN = Run(
    kit="0",
    implementation=Implementation(name="toy", version="1"),
    profile="core",
    seed=7,
    started="2026-01-02T03:04:05+00:00",
    duration=1.0,
    tests=(TestResult(id="a.py::test_it", status=Status.PASS),),
)


def call(*arguments: str) -> int:
    """Run the command in this process; return its exit status."""
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert isinstance(end.value.code, int)
    return end.value.code


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the error, which is one line on standard error."""
    captured = capsys.readouterr()
    assert captured.err.startswith("xlsnap-conformance: ")
    assert captured.err.count("\n") == 1, captured.err
    return captured.err.removeprefix("xlsnap-conformance: ").strip()


@pytest.fixture
def trace_file(tmp_path: Path) -> Path:
    file = tmp_path / "trace.json"
    file.write_bytes(
        do.to_json(do.Trace(title="a trace", steps=(do.Create(name="one"), do.Revert(name="one"))))
    )
    return file


# --- help -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "replay", "report", "spec"])
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(command, "--help") == 0
    assert f"xlsnap-conformance {command}" in capsys.readouterr().out.partition("Examples:")[2]


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == 0
    out = capsys.readouterr().out
    for command in ("run", "replay", "report", "spec", "drivers"):
        assert f"\n  {command} " in out


def test_help_is_quick_to_load() -> None:
    """What only some commands need is not imported for the others."""
    program = (
        "import sys; from xlsnap_conformance.cli import cli\n"
        "cli.main(['run', '--help'], standalone_mode=False)\n"
        "print([n for n in ('pytest', 'hypothesis', 'jinja2', 'rich', 'msgspec') if n in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


def test_shell_completion_knows_clauses_and_profiles() -> None:
    def complete(words: str) -> str:
        environment = {
            **os.environ,
            "_XLSNAP_CONFORMANCE_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        }
        program = "from xlsnap_conformance.cli import main; main()"
        command = [sys.executable, "-c", program]
        return subprocess.run(command, env=environment, capture_output=True, text=True).stdout

    assert FIRST in complete(f"xlsnap-conformance spec {FIRST[:8].lower()}")
    assert "plain,core" in complete("xlsnap-conformance run --profile co")
    assert "plain,replay" in complete("xlsnap-conformance rep")


# --- errors: one line, status 2 ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("nope",), "No such command 'nope'; try 'xlsnap-conformance --help'"),
        (("run", "--nope"), "No such option"),
        (("run", "--profile", "nope"), "no profile 'nope'; there are quick"),
        (("run", "--clause", "XLS-NOPE-001"), "no clause 'XLS-NOPE-001'"),
        (("run", "--driver", "./nope"), "driver ./nope: no such program"),
        (("run", "--driver", ""), "the driver command is empty"),
        (("run", "--driver", "'x"), "bad driver command"),
        (("run", "--mutant", "nope"), "no mutant 'nope'"),
        (("run", "--mutant", "x", "--driver", "true"), "goes with no other --driver"),
        (("run", "-n", "x"), "-n x: a number from 1, or 'auto'"),
        (("run", "--seed", "-1"), "--seed"),
        (("run", "--report", "/proc/nope"), "/proc/nope"),
        (("replay", "nope.json"), "'nope.json' does not exist"),
        (("report", "nope"), "'nope' does not exist"),
        (("spec", "XLS-NOPE"), "no clause's id begins with 'XLS-NOPE'"),
    ],
)
def test_bad_usage_is_told_in_one_line(
    arguments: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*arguments) == 2
    assert expected in complaint(capsys)


def test_a_driver_that_cannot_be_executed_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "driver").write_text("#!/bin/sh\n")
    assert call("run", "--driver", str(tmp_path / "driver")) == 2
    assert complaint(capsys).endswith("driver: is not executable")


def test_missing_qemu_is_told_with_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert call("run") == 2
    told = complaint(capsys)
    assert "qemu-img and qemu-system-x86_64 not found" in told
    for way in ("apt-get install qemu-utils qemu-system-x86", "dnf install", "zypper install", "pacman -S"):
        assert way in told


def test_another_driver_needs_no_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("qemu-img", "driver"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    check_programs("driver --option")


@pytest.mark.parametrize("content", ["", "{", '{"steps": [{"do": "nope"}]}', "\x00"])
def test_what_is_no_trace_is_told(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.json").write_text(content)
    assert call("replay", str(tmp_path / "t.json")) == 2
    assert "t.json is not a trace" in complaint(capsys)


def test_what_is_no_report_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.json").write_text("{}")
    assert call("report", str(tmp_path)) == 2
    assert "is no report of this kit" in complaint(capsys)


def test_a_directory_without_report_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("report", str(tmp_path)) == 2
    assert "report.json: No such file or directory" in complaint(capsys)


def test_a_bug_is_one_line_unless_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("xlsnap_conformance.clauses.load_clauses", lambda: 1 / 0)
    assert call("spec") == 2
    assert complaint(capsys).startswith("bug in this program: ZeroDivisionError")
    monkeypatch.setenv("XLSNAP_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli.main(["spec"])


def test_a_reader_that_has_gone_is_no_error() -> None:
    program = "from xlsnap_conformance.cli import main; main()"
    command = f"{sys.executable} -c '{program}' spec | head -n 1"
    shown = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert shown.stderr == ""
    assert FIRST in shown.stdout


# --- spec, report, drivers, replay ------------------------------------------------------------------------


def test_spec_shows_one_clause_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("spec", FIRST.lower()) == 0
    out = " ".join(capsys.readouterr().out.split())
    clause = CLAUSES[FIRST]
    for part in (clause.id, clause.level, clause.text, clause.source):
        assert " ".join(part.split()) in out


def test_spec_lists_by_prefix(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("spec", "XLS-REVERT") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [id for id in CLAUSES if id.startswith("XLS-REVERT")]


def test_spec_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("spec", "--json") == 0
    specification = json.loads(capsys.readouterr().out)
    assert [clause["id"] for clause in specification["clauses"]] == list(CLAUSES)


@pytest.mark.parametrize("form", ["html", "junit", "markdown", "svg", "json"])
def test_report_renders_again_what_the_run_wrote(
    tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from xlsnap_conformance.report import FORMATS

    write(RUN, tmp_path)
    assert call("report", str(tmp_path), "--format", form) == 0
    assert capsys.readouterr().out == (tmp_path / FORMATS[form][0]).read_text()
    target = tmp_path / "again"
    assert call("report", str(tmp_path / "report.json"), "--format", form, "-o", str(target)) == 0
    assert target.read_text() == (tmp_path / FORMATS[form][0]).read_text()


def test_report_shows_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(RUN, tmp_path)
    assert call("report", str(tmp_path)) == 0
    assert "1 tests in 1.0 s: 1 pass (seed 7)" in capsys.readouterr().out


def test_drivers_lists_mutants_with_what_they_break(capsys: pytest.CaptureFixture[str]) -> None:
    from xlsnap_conformance.drivers.reference.mutants import CATALOGUE

    assert call("drivers") == 0
    out = capsys.readouterr().out
    assert out.startswith("reference ")
    for mutant in CATALOGUE.values():
        if mutant.break_it is not None and mutant.part == "toolstack":
            assert mutant.name in out
            assert mutant.description in out


def test_replay_prints_a_shell_script(trace_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("replay", str(trace_file), "--script") == 0
    script = capsys.readouterr().out
    assert script.startswith("#!")
    assert subprocess.run(["sh", "-n"], input=script, text=True).returncode == 0


def test_replay_of_a_driver_that_says_nothing_is_told(
    trace_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("replay", str(trace_file), "--driver", "true") == 2
    assert "driver" in capsys.readouterr().err.splitlines()[0]


def test_run_with_a_driver_that_says_nothing_is_a_harness_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--nonsense")  # the user's pytest is not ours
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --nonsense\n")
    program = "from xlsnap_conformance.cli import main; main()"
    command = [sys.executable, "-c", program, "run", "--driver", "true", "--report", "out", "-k", "bad-names"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120)
    run = results.load(tmp_path / "out")
    assert shown.returncode == 2, shown.stdout + shown.stderr
    assert {test.status for test in run.tests} == {Status.HARNESS_ERROR}
    assert "Traceback" not in shown.stdout + shown.stderr
    assert "report: out/index.html" in shown.stdout
