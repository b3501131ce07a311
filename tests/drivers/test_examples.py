# SPDX-License-Identifier: LGPL-2.1-or-later
"""The examples of docs/drivers.md are drivers: each is in order, and judges `xlsnap` on a real guest.

One short scenario does for the judgement; `smoke` has the driver revert, delete and so on.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from xlsnap_conformance import results
from xlsnap_conformance.results import Status

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "drivers"
PROGRAMS = Path(sys.executable).parent

DRIVERS = {
    "sh": str(EXAMPLES / "sh" / "xlsnap-driver"),
    "profile": f"profile:{EXAMPLES / 'profile' / 'xlsnap.toml'}",
    "python": "xlsnap-library",
}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Our programs first, and the example package installed in a directory of the test's."""
    site = tmp_path / "site"
    return {
        **os.environ,
        "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(site),
        "TMPDIR": str(tmp_path),
    }


def install(environment: dict[str, str]) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", "--target", environment["PYTHONPATH"], str(EXAMPLES / "python")],
        check=True, capture_output=True,
    )  # fmt: skip


@pytest.mark.parametrize("name", DRIVERS)
def test_example_judges_a_toolstack(name: str, environment: dict[str, str], tmp_path: Path) -> None:
    if name == "sh" and shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    if name == "python":
        install(environment)
    checked = subprocess.run(
        ["xlsnap-conformance", "smoke", "--driver", DRIVERS[name]],
        capture_output=True, text=True, check=False, env=environment, timeout=900,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.endswith("\nthe driver is in order\n")
    report = tmp_path / "report"
    done = subprocess.run(
        ["xlsnap-conformance", "run", "--driver", DRIVERS[name], "--profile", "quick", "--seed", "1",
         "-k", "test_scenario and descriptions", "--report", str(report)],
        capture_output=True, text=True, check=False, env=environment, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    run = results.load(report)
    assert [test.status for test in run.tests] == [Status.PASS]
    assert "xlsnap" in run.implementation.name
    assert not list(tmp_path.glob("xlsnap-cts-*"))


def test_example_that_drives_a_broken_toolstack_says_so(environment: dict[str, str], tmp_path: Path) -> None:
    """The same profile with a toolstack whose list is cut: what passes above is no accident."""
    broken = tmp_path / "bin"
    broken.mkdir()
    program = broken / "xlsnap"
    program.write_text(
        f"""#!/bin/sh
        case $1 in
            snapshot-list) {PROGRAMS}/xlsnap "$@" | jq '.[:1]' ;;
            *) exec {PROGRAMS}/xlsnap "$@" ;;
        esac
        """
    )
    program.chmod(0o700)
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    environment["PATH"] = f"{broken}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        ["xlsnap-conformance", "run", "--driver", DRIVERS["profile"], "--profile", "quick", "--seed", "1",
         "-k", "test_scenario and descriptions"],
        capture_output=True, text=True, check=False, env=environment, timeout=900,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the list lacks" in done.stdout or "another name" in done.stdout
