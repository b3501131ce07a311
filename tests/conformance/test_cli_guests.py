# SPDX-License-Identifier: LGPL-2.1-or-later
"""The commands on real guests: a run judges, a mutant is caught, a trace replays, Ctrl-C leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from xlsnap_conformance import results, suite
from xlsnap_conformance.results import Status, Verdict

SCENARIO = Path(suite.__file__).parent / "scenarios" / "delete-newest.json"
COMMAND = (sys.executable, "-m", "xlsnap_conformance")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory; temporary files go to the subdirectory ``t``."""
    (tmp_path / "t").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=180)


def processes_in(place: Path) -> list[str]:
    """Return the command lines of the processes that work on files of ``place``."""
    found = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    return [line for line in found if str(place / "t") in line]


def test_a_run_of_the_reference_passes_and_leaves_nothing(place: Path) -> None:
    shown = call("run", "-k", "delete-newest or bad-names", "-n", "2", "--report", "out")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    run = results.load(place / "out")
    assert {test.status for test in run.tests} == {Status.PASS}
    assert all(test.evidence.observed for test in run.tests), "each says what it saw"
    assert run.implementation.name
    assert run.verdict is Verdict.UNDECIDED, "a selection proves nothing"
    assert list((place / "t").iterdir()) == []
    assert not processes_in(place)


def test_a_mutant_is_caught_and_its_trace_replays(place: Path) -> None:
    mutant = ("--mutant", "memory-left-after-delete")
    shown = call("run", "-k", "delete-newest", "--report", "out", *mutant)
    assert shown.returncode == 1, shown.stdout + shown.stderr
    (test,) = results.load(place / "out").tests
    assert test.status is Status.FAIL
    assert test.broken
    (trace,) = (place / "out" / "traces").iterdir()
    assert f"xlsnap-conformance replay out/traces/{trace.name}" in shown.stdout
    again = call("replay", str(trace), *mutant)
    assert again.returncode == 1, again.stdout + again.stderr
    assert test.broken[0] in again.stdout
    healthy = call("replay", str(trace))
    assert healthy.returncode == 0, healthy.stdout + healthy.stderr
    assert not processes_in(place)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_cleans_up_and_reports(place: Path, how: signal.Signals) -> None:
    command = [*COMMAND, "run", "-k", "generated", "-n", "2", "--report", "out"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 60
        while not any("qemu-system" in line for line in processes_in(place)) and time.monotonic() < end:
            time.sleep(0.1)
        if how is signal.SIGINT:
            os.killpg(process.pid, how)  # as a terminal does
        else:
            process.send_signal(how)
        output, _ = process.communicate(timeout=150)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, output
    assert "interrupted" in output
    assert results.load(place / "out").interrupted
    end = time.monotonic() + 60
    while (processes_in(place) or any((place / "t").iterdir())) and time.monotonic() < end:
        time.sleep(0.1)
    assert not processes_in(place)
    assert list((place / "t").iterdir()) == []
