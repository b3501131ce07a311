# SPDX-License-Identifier: LGPL-2.1-or-later
""".ci/run with a fake make: what it runs, and that no failure gets lost in it."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Fails in the target of $BREAKS; prints the closing lines that pytest would, with $TRIED kill points.
MAKE = """#!/bin/sh
echo "make $* oracle=$XLSNAP_REQUIRE_ORACLE"
case " $* " in
    *" test "*) echo "$TRIED kill points tried"
                echo "========= 11 passed, 1 skipped in 2.00s =========" ;;
    *" conformance "*) printf '%s\\n' "many lines" "22 tests in 3.0 s: 22 pass" "some toolstack: conforms" ;;
    *" mutants "*) printf '%s\\n' "[1/9] killed" "9 mutants in 60 s: 9 killed" ;;
esac
case " $* " in *" ${BREAKS:-none} "*) exit 2 ;; esac
"""


def run(directory: Path, *, breaks: str = "", tried: int = 300) -> subprocess.CompletedProcess[str]:
    fake = directory / "make"
    fake.write_text(MAKE)
    fake.chmod(0o755)
    (directory / "tmp").mkdir()
    environment = {
        "PATH": f"{directory}:{os.environ['PATH']}",
        "BREAKS": breaks,
        "TRIED": str(tried),
        "TMPDIR": str(directory / "tmp"),
    }
    return subprocess.run(
        [ROOT / ".ci/run"], env=environment, cwd="/", capture_output=True, text=True, timeout=60, check=False
    )


def test_it_runs_all_commands_with_the_oracle_required_and_ends_with_their_summaries(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    setup, test, conformance, mutants, xen = (line for line in lines if line.startswith("make "))
    assert setup == "make setup oracle=1"
    assert test == "make --keep-going --jobs=2 test oracle=1"
    assert re.fullmatch(r"make conformance PROFILE=all ARGS=--seed \d+ oracle=1", conformance)
    assert mutants == "make mutants ARGS=--quick oracle=1"
    assert xen == "make test-xen oracle=1"
    assert lines[-6:] == [
        "=== summary",
        "22 tests in 3.0 s: 22 pass",
        "some toolstack: conforms",
        "9 mutants in 60 s: 9 killed",
        "========= 11 passed, 1 skipped in 2.00s =========",
        "300 kill points tried",
    ]
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("target", ["setup", "test", "conformance", "mutants", "test-xen"])
def test_a_failure_in_any_step_fails_the_run(tmp_path: Path, target: str) -> None:
    done = run(tmp_path, breaks=target)
    assert done.returncode != 0
    assert "make conformance" in done.stdout or target == "setup"


@pytest.mark.parametrize("tried", [0, 299])
def test_too_few_kill_points_fail_the_run(tmp_path: Path, tried: int) -> None:
    done = run(tmp_path, tried=tried)
    assert done.returncode != 0
    assert done.stdout.splitlines()[-1] == "=== fewer than 300 kill points were tried"
