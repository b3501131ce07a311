# SPDX-License-Identifier: LGPL-2.1-or-later
"""With pytest-xdist, all workers' results end in one report; one that dies takes nothing with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from xlsnap_conformance.clauses import load_clauses
from xlsnap_conformance.plugin import WORKER_END_SECONDS
from xlsnap_conformance.results import Status, load

pytest_plugins = ["pytester"]

ONE, TWO, THREE, *_ = (
    clause.id for clause in load_clauses().values() if "core" in clause.profiles and clause.level == "MUST"
)
HEADER = "import os, pytest, time\nfrom xlsnap_conformance.failures import *\nclauses = pytest.mark.clauses\n"
LOADED = ("-p", "xlsnap_conformance.plugin", "-p", "no:hypothesispytest", "--report", "out")


def test_results_of_all_workers_are_in_one_report(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        HEADER
        + f"""
@clauses({ONE!r})
@pytest.mark.parametrize("n", range(6))
def test_it(n, xlsnap_run, record_property):
    record_property("observed", f"{{xlsnap_run.seed}} {{xlsnap_run.worker}}")
    if n == 5: raise ConformanceFailure([{ONE!r}], "lost")
"""
    )
    result = pytester.runpytest_subprocess(*LOADED, "-n2")
    run = load(pytester.path / "out")
    assert result.ret == 1
    assert sorted(test.status for test in run.tests) == [Status.FAIL] + [Status.PASS] * 5
    seen = {str(test.evidence.observed) for test in run.tests}
    assert seen == {f"{run.seed} gw0", f"{run.seed} gw1"}


def test_a_worker_that_dies_is_a_harness_error_of_its_test_only(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        HEADER
        + f"""
@clauses({ONE!r})
def test_dies(): os._exit(3)
@clauses({TWO!r})
@pytest.mark.parametrize("n", range(4))
def test_lives(n): pass
"""
    )
    result = pytester.runpytest_subprocess(*LOADED, "-n2")
    run = load(pytester.path / "out")
    assert result.ret == 2
    by_name = {test.name: test for test in run.tests}
    assert by_name["test_dies"].status is Status.HARNESS_ERROR
    assert by_name["test_dies"].clauses == (ONE,)
    assert "crashed" in by_name["test_dies"].message
    assert [by_name[f"test_lives[{n}]"].status for n in range(4)] == [Status.PASS] * 4


def test_an_unknown_clause_is_told_by_the_workers_too(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(HEADER + "@clauses('XLS-NOPE-999')\ndef test_it(): pass")
    result = pytester.runpytest_subprocess(*LOADED, "-n2")
    assert result.ret == 2
    assert any("XLS-NOPE-999" in error for error in load(pytester.path / "out").errors)


def test_workers_get_time_to_clean_up(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        "from xdist.workermanage import NodeManager\n"
        "terminate = NodeManager.teardown_nodes\n"
        "def told(self):\n"
        "    print('limit', self.EXIT_TIMEOUT)\n"
        "    terminate(self)\n"
        "NodeManager.teardown_nodes = told\n"
    )
    pytester.makepyfile(HEADER + f"@clauses({ONE!r})\ndef test_it(): pass")
    result = pytester.runpytest_subprocess(*LOADED, "-n1")
    result.stdout.fnmatch_lines([f"*limit {WORKER_END_SECONDS}"])


@pytest.mark.parametrize("jobs", ["0", "2"])
def test_ctrl_c_leaves_a_report_of_what_is_known(tmp_path: Path, jobs: str) -> None:
    suite = tmp_path / "test_slow.py"
    suite.write_text(
        HEADER
        + f"""
from pathlib import Path
@clauses({ONE!r})
def test_quick(): pass
@clauses({TWO!r})
def test_slow():
    Path("started").touch()
    time.sleep(300)
@clauses({THREE!r})
def test_never(): pass
"""
    )
    command = [sys.executable, "-m", "pytest", "-q", *LOADED, "-n", jobs, str(suite)]
    process = subprocess.Popen(
        command, cwd=tmp_path, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        end = time.monotonic() + 60
        while not (tmp_path / "started").exists() and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        output, _ = process.communicate(timeout=150)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    run = load(tmp_path / "out")
    assert process.returncode == 130, output.decode()
    assert run.interrupted
    statuses = {test.name: test.status for test in run.tests}
    assert statuses["test_quick"] is Status.PASS
    assert "test_slow" not in statuses, "an interrupted test says nothing"
    assert "interrupted" in (tmp_path / "out" / "index.html").read_text()
