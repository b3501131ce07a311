# SPDX-License-Identifier: LGPL-2.1-or-later
"""The suite with real guests: the reference passes, failures shrink, seeds repeat, claims are held to."""

import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xlsnap_conformance import suite
from xlsnap_conformance.failures import ConformanceFailure
from xlsnap_conformance.fence import Fence
from xlsnap_conformance.profiles import Effort
from xlsnap_conformance.scenario import replay
from xlsnap_conformance.search import search
from xlsnap_conformance.shrink import shrink
from xlsnap_conformance.subject import Subject
from xlsnap_conformance.trace import Trace, load

SUITE = Path(suite.__file__).parent
BY_NAME = {path.stem: load(path) for path in sorted((SUITE / "scenarios").glob("*.json"))}
TRACES = list(BY_NAME.values())


def failure_of(trace: Trace, subject: Subject) -> ConformanceFailure | None:
    try:
        replay(trace, subject)
    except ConformanceFailure as failure:
        return failure
    return None


def run_suite(driver: str, report: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    """Run tests of the suite as its own command would; return their results by test id."""
    command = [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider"]
    command += ["-p", "xlsnap_conformance.plugin", "--profile", "all", "--driver", driver]
    command += ["--report", str(report), "-n", "0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=report.parent)
    try:
        results = json.loads((report / "report.json").read_text())["tests"]
    except OSError:
        pytest.fail(done.stdout + done.stderr)
    return {result["id"].rpartition("/")[2]: result for result in results}


@pytest.fixture(scope="module")
def reference() -> Iterator[Subject]:
    with Fence() as fence, Subject("reference", fence) as subject:
        yield subject


@pytest.mark.parametrize(
    "title", ["Memory and all disks come back", "A create that fails leaves nothing behind"]
)
def test_the_reference_passes(title: str, reference: Subject) -> None:
    (trace,) = [trace for trace in TRACES if trace.title.startswith(title)]
    assert failure_of(trace, reference) is None


def test_where_a_merge_has_moved_images_is_not_held_against_who_keeps_no_metadata() -> None:
    """Without metadata nobody tells where a snapshot is after the delete of another."""
    with Fence() as fence, Subject("reference --without metadata-files", fence) as subject:
        assert failure_of(BY_NAME["external-delete-middle"], subject) is None


def test_generated_scenarios_find_a_mutant_and_shrink_it(
    reference: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "wrong-memory-after-revert"
    # On a busy machine the usual time may not do for the smallest trace; it is the trace that is judged here.
    monkeypatch.setattr("xlsnap_conformance.search.shrink", functools.partial(shrink, seconds=600))
    with Fence() as fence, Subject(f"reference --mutant {name}", fence) as subject:
        with pytest.raises(ConformanceFailure) as caught:
            search(subject, "one-disk", seed=4, effort=Effort.NORMAL)
        trace = caught.value.trace
        assert trace is not None
        assert "XLS-REVERT-003" in caught.value.clause_ids
        assert len(trace.steps) <= 6, trace.describe_steps()
        again = failure_of(trace, subject)
        assert again is not None
        assert again.clause_ids == caught.value.clause_ids
    assert failure_of(trace, reference) is None


def test_the_search_goes_on_behind_a_failure_that_is_known() -> None:
    """Each scenario ends at it, and the next begins; it is told only when nothing else was found."""
    met = []

    def is_known(failure: ConformanceFailure) -> bool:
        met.append(failure)
        return True

    driver = "reference --mutant wrong-memory-after-revert"
    with (
        Fence() as fence,
        Subject(driver, fence) as subject,
        pytest.raises(ConformanceFailure) as caught,
    ):
        search(subject, "one-disk", seed=4, effort=Effort.NORMAL, is_known=is_known)
    assert len(met) > 1
    assert caught.value is met[0]


def test_the_same_seed_gives_the_same_scenarios(reference: Subject) -> None:
    first, again = (search(reference, "two-disks", seed=7, effort=Effort.QUICK) for _ in range(2))
    assert first == again > 20


def test_what_is_not_claimed_is_unsupported_and_not_failed(tmp_path: Path) -> None:
    tests = str(SUITE)
    chosen = "memory-path or paused-domain or metadata or stopped-domain or read-only or last_setting"
    missing = ("memory-path", "pause", "metadata-files", "list-stopped", "snapshot-config")
    driver = " ".join(["reference", *(f"--without {capability}" for capability in missing)])
    results = run_suite(driver, tmp_path / "report", tests, "-k", chosen)
    unsupported = {
        name: result["message"] for name, result in results.items() if result["status"] == "unsupported"
    }
    assert {result["status"] for result in results.values()} == {"pass", "unsupported"}
    for capability in missing:
        assert any(capability in message for message in unsupported.values()), capability
    assert results["test_scenarios.py::test_scenario[read-only-disks]"]["status"] == "pass"
    assert results["test_generated.py::test_generated[read-only-disks]"]["status"] == "unsupported"
