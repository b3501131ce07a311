# SPDX-License-Identifier: LGPL-2.1-or-later
"""The suite can fail: it catches every mutant by a clause of its own, and lets the reference pass.

Each mutant meets the test that the catalogue names for it; where it names none, the scenarios that are for
its clauses, the shortest first.
"""

import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xlsnap.qemu.background import live_problem
from xlsnap_conformance import suite
from xlsnap_conformance.clauses import load_clauses
from xlsnap_conformance.coverage import clauses_of, is_of_metadata
from xlsnap_conformance.drivers.reference.mutants import CATALOGUE
from xlsnap_conformance.failures import ConformanceFailure
from xlsnap_conformance.fence import Fence
from xlsnap_conformance.links import Missing, load_debt
from xlsnap_conformance.profiles import Effort
from xlsnap_conformance.scenario import replay
from xlsnap_conformance.search import search
from xlsnap_conformance.shrink import shrink
from xlsnap_conformance.subject import Subject
from xlsnap_conformance.trace import Trace, load

SUITE = Path(suite.__file__).parent
BY_NAME = {path.stem: load(path) for path in sorted((SUITE / "scenarios").glob("*.json"))}
TRACES = list(BY_NAME.values())

BY_SCENARIO = {
    mutant.name: mutant.test for mutant in CATALOGUE.values() if mutant.test and "::" not in mutant.test
}
BY_TEST = {mutant.name: mutant.test for mutant in CATALOGUE.values() if "::" in mutant.test}
MISSED = load_debt().of(Missing.KILL)
"""Mutants that survive, and why. As soon as they do not, this must go."""
ELSEWHERE = [mutant.name for mutant in CATALOGUE.values() if mutant.judge]


def judged_by(table: dict[str, str]) -> list[Any]:
    """Return the mutants of a table as parameters; those that are known to survive must still do so."""
    return [pytest.param(name, marks=list(_marks(name))) for name in table]


def _marks(name: str) -> Iterator[pytest.MarkDecorator]:
    if name in MISSED:
        yield pytest.mark.xfail(
            reason=MISSED[name], strict=True, raises=(AssertionError, pytest.fail.Exception)
        )
    if any(clause.startswith("XLS-LIVE-") for clause in CATALOGUE[name].clauses):
        problem = live_problem()
        yield pytest.mark.skipif(problem is not None, reason=str(problem))


def traces_for(clauses: tuple[str, ...]) -> list[Trace]:
    """Return the traces that can break one of the clauses, those that are for it first."""
    wanted = set(clauses)
    everywhere = any(is_of_metadata(clause) for clause in wanted)
    able = [trace for trace in TRACES if everywhere or wanted.intersection(clauses_of(trace))]
    return sorted(able, key=lambda trace: (not wanted & set(trace.clauses), len(trace.steps)))


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


def test_catalogue() -> None:
    assert len(CATALOGUE) >= 14
    assert MISSED.keys() <= CATALOGUE.keys()
    assert set(BY_SCENARIO.values()) <= BY_NAME.keys()
    known = load_clauses()
    for mutant in CATALOGUE.values():
        assert mutant.clauses
        assert set(mutant.clauses) <= known.keys()
        assert mutant.description.endswith(".")


OTHERS = {name: "" for name in CATALOGUE if name not in {*BY_SCENARIO, *BY_TEST, *ELSEWHERE}}


@pytest.mark.parametrize("name", judged_by({**OTHERS, **BY_SCENARIO}))
def test_mutant_is_caught_by_a_clause_of_its_own(name: str) -> None:
    mutant = CATALOGUE[name]
    traces = [BY_NAME[BY_SCENARIO[name]]] if name in BY_SCENARIO else traces_for(mutant.clauses)
    with Fence() as fence, Subject(f"reference --mutant {name}", fence) as subject:
        assert name in subject.name
        for trace in traces:
            failure = failure_of(trace, subject)
            if failure is not None:
                break
        else:
            pytest.fail(f"mutant {name} survives: {mutant.description}")
    assert set(failure.clause_ids) & set(mutant.clauses), f"caught, but by {failure}"
    assert failure.trace is not None
    assert failure.trace.failure is not None
    assert failure.trace.failure.step == len(failure.trace.steps)


@pytest.mark.parametrize("name", judged_by(BY_TEST))
def test_mutant_is_caught_by_a_test_of_the_suite(name: str, tmp_path: Path) -> None:
    """That the reference passes it is what `make conformance` shows."""
    test = f"{SUITE}/{BY_TEST[name]}"
    (result,) = run_suite(f"reference --mutant {name}", tmp_path / "report", test).values()
    assert result["status"] == "fail", result
    assert set(result["broken"]) & set(CATALOGUE[name].clauses)


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
