# SPDX-License-Identifier: LGPL-2.1-or-later
"""What works though it is not claimed is told, and what does not work is not, whatever the driver says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from xlsnap_conformance import suite
from xlsnap_conformance.capabilities import CAPABILITIES
from xlsnap_conformance.fence import Fence
from xlsnap_conformance.results import Status, load
from xlsnap_conformance.subject import Subject
from xlsnap_conformance.trace import load as load_trace
from xlsnap_conformance.unclaimed import shortest, shown, works

SUITE = Path(suite.__file__).parent
TRACES = {path.stem: load_trace(path) for path in sorted((SUITE / "scenarios").glob("*.json"))}
ALL = frozenset(CAPABILITIES)

DRIVER = """
import asyncio, json, os
from xlsnap_conformance.drivers.reference.server import ReferenceDriver, serve

class Driver(ReferenceDriver):
    async def reply_to(self, line):
        call = json.loads(line)
        if call["verb"] == "snapshot_create" and call["args"].get("memory", "yes") not in ("yes", "no"):
            {}
        return await super().reply_to(line)

asyncio.run(serve(Driver(without=["memory-path"])))
"""
REFUSES = """return json.dumps({"id": call["id"], "ok": False, "error": \
                {"kind": "unsupported", "message": "no memory image at a path"}}).encode()"""
IGNORES = """call["args"]["memory"] = "yes"; line = json.dumps(call).encode()"""
BREAKS = "os._exit(3)"


def test_a_step_that_is_refused_shows_no_capability() -> None:
    """Else whoever refuses everything would be told that it can do it."""
    assert "memory-path" not in shown(TRACES["failing-create"])
    assert "memory-path" in shown(TRACES["memory-path"])


@pytest.mark.parametrize("capability", ["memory-path", "mixed", "revert-paused", "delete-children"])
def test_a_trace_shows_a_capability_and_needs_nothing_else_unclaimed(capability: str) -> None:
    trace = shortest(capability, ALL - {capability}, TRACES.values())
    assert trace is not None
    assert capability in shown(trace)
    assert shortest(capability, frozenset({"memory"}), TRACES.values()) is None


@pytest.mark.parametrize("capability", ["live", "crash", "concurrency", "parse"])
def test_what_no_trace_shows_is_not_tried(capability: str) -> None:
    assert shortest(capability, ALL - {capability}, TRACES.values()) is None


@pytest.mark.parametrize(
    ("what", "expected"),
    [("pass", True), (REFUSES, False), (IGNORES, False), (BREAKS, False)],
    ids=["does it", "refuses", "ignores the path", "breaks down"],
)
def test_only_what_really_works_is_told(what: str, expected: bool, tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.replace("{}", what, 1))
    with Fence() as fence, Subject(f"{sys.executable} {script}", fence) as subject:
        trace = shortest("memory-path", subject.capabilities, TRACES.values())
        assert trace is not None
        assert works(trace, "memory-path", subject) is expected
        assert "memory-path" not in subject.capabilities, "it is claimed for the time of the trial only"


def test_a_run_tells_it_and_does_not_fail(tmp_path: Path) -> None:
    driver = "reference --without memory-path --without pause"
    command = [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider"]
    command += ["-p", "xlsnap_conformance.plugin", "--driver", driver, "--report", str(tmp_path), "-n", "0"]
    command += [str(SUITE / "test_unclaimed.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path)
    run = load(tmp_path)
    assert (run.exit_code, run.unclaimed) == (0, ("memory-path",)), done.stdout + done.stderr
    (test,) = run.tests
    assert test.status is Status.PASS
    assert test.evidence.observed == "works but is not claimed: memory-path; does not work: pause"
    assert "works but is not claimed: memory-path" in done.stdout
