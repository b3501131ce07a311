# SPDX-License-Identifier: LGPL-2.1-or-later
"""The suite can fail: it catches every mutant by a clause of its own, and lets the reference pass.

Each mutant meets the scenario in `BY_SCENARIO` or the test in `BY_TEST`; one that is in neither meets the
scenarios that are for its clauses, the shortest first.
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
from xlsnap_conformance import machine, suite
from xlsnap_conformance.clauses import load_clauses
from xlsnap_conformance.coverage import clauses_of, is_of_metadata
from xlsnap_conformance.drivers.reference.mutants import CATALOGUE
from xlsnap_conformance.failures import ConformanceFailure
from xlsnap_conformance.fence import Fence
from xlsnap_conformance.profiles import Effort
from xlsnap_conformance.scenario import replay
from xlsnap_conformance.shrink import shrink
from xlsnap_conformance.subject import Subject
from xlsnap_conformance.trace import Trace, load

SUITE = Path(suite.__file__).parent
BY_NAME = {path.stem: load(path) for path in sorted((SUITE / "scenarios").glob("*.json"))}
TRACES = list(BY_NAME.values())

BY_SCENARIO = {
    # external and mixed: create
    "base-written-after-create": "external",
    "overlay-over-itself": "external",
    "wrong-backing-format": "external",
    "overlay-over-first-image": "external-delete-newest",
    "overlay-forgotten": "external",
    "started-on-first-image": "external-first-images",
    "target-ignored": "external",
    "target-overwritten": "external-bad-targets",
    "raw-disk-refused": "external-raw",
    "path-is-the-present-image": "external",
    "overlay-not-told": "external",
    "type-of-the-first-disk": "mixed",
    "left-on-the-overlay": "external-bad-targets",
    "overlay-left-by-failing-create": "mixed-all-or-nothing",
    "source-deleted-by-cleanup": "mixed-all-or-nothing",
    "left-paused-by-failing-create": "failing-create",
    # external and mixed: revert
    "revert-into-the-base": "external-disk-only",
    "applied-in-a-shared-image": "external-delete-after-internal",
    "external-disks-not-reverted": "mixed",
    "overlay-left-by-revert": "external",
    "other-branch-removed-by-revert": "external-branches",
    "attached-disk-survives-revert": "disk-attached-later",
    "detached-disk-stays-away": "disk-detached-later",
    # the tree
    "parent-not-moved-by-revert": "external-branches",
    "its-own-parent": "delete-newest",
    "children-of-the-deleted": "delete-middle",
    "current-is-the-deleted": "delete-newest",
    "current-forgotten-by-a-fresh-start": "power-cycle",
    "descendants-stay": "delete-children",
    "only-direct-children": "delete-children-only",
    "not-only-children": "delete-children-only",
    # delete and merge
    "base-image-deleted": "external-delete-after-internal",
    "parents-erased-with-newest": "external-delete-newest",
    "unused-image-left-by-delete": "external-branches-delete-leaf",
    "merged-image-left": "external-delete-middle",
    "wrong-image-removed-after-merge": "external-delete-oldest",
    "merged-below-another-branch": "external-delete-middle",
    "tags-lost-by-merge": "external-internal-above",
    "zeros-lost-by-merge": "external-zeros",
    "sibling-not-laid-over": "external-other-branch",
    "metadata-names-merged-image": "external-delete-oldest",
    "merged-image-still-configured": "external-delete-oldest",
    "left-paused-by-merge": "external-delete-newest",
    "tag-left-in-backing-file": "external-delete-internal-below",
    "deleted-behind-qemu": "delete-all",
    "lost-image-cannot-be-deleted": "external-lost-image",
}
"""Mutants, and the cheapest scenario that tells them from the reference."""

_ONE_INSTANT = "test_live.py::test_live_memory_and_disks_are_of_one_instant[internal-internal]"

BY_TEST = {
    "guest-runs-between": "test_domains.py::test_memory_and_disk_are_of_one_instant",
    "same-name-elsewhere-deleted": "test_domains.py::test_domains_do_not_touch_each_other",
    "format-guessed": "test_domains.py::test_raw_image_that_looks_like_qcow2",
    "order-by-name-within-a-second": "test_domains.py::test_order_within_a_second",
    "unknown-domain-is-empty": "test_refusals.py::test_unknown_domain[list]",
    "default-target-overwritten": "test_external.py::test_default_target_is_a_file_that_did_not_exist",
    "external-disks-before-the-pause": "test_external.py::test_mixed_disks_and_memory_are_of_one_instant",
    "backing-format-guessed": "test_external.py::test_raw_backing_file_that_looks_like_qcow2",
    "live-memory-of-later": _ONE_INSTANT,
    "live-disks-after-memory": _ONE_INSTANT,
    "paused-while-memory-is-written": "test_live.py::test_guest_runs_while_its_memory_is_written",
    "live-listed-at-once": "test_live.py::test_live_snapshot_is_listed_when_it_is_complete",
}
"""Mutants that no scenario can tell from the reference, and the test of the suite that can."""

MISSED = {
    "backing-format-guessed": "the test compares the size of the disk, which is that of the overlay, and not "
    "what the guest had written to it",
}
"""Mutants that survive what is nearest to catching them, and why. As soon as they do not, this must go."""

BEYOND_THE_SUITE = {
    "recovery-does-nothing": "no toolstack is killed by the suite",
    "recovery-incomplete": "no toolstack is killed by the suite",
    "no-lock": "the suite asks one thing at a time",
    "list-waits": "the suite asks one thing at a time",
    "failed-merge-loses-the-upper": "the suite lets no merge fail",
}
"""Mutants that break clauses for which the suite has no test; `tests/crash` looks for such bugs."""


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
    tables = [*BY_SCENARIO, *BY_TEST, *BEYOND_THE_SUITE]
    assert len(set(tables)) == len(tables)
    assert set(tables) <= CATALOGUE.keys()
    assert MISSED.keys() <= {*BY_SCENARIO, *BY_TEST}
    assert set(BY_SCENARIO.values()) <= BY_NAME.keys()
    known = load_clauses()
    for mutant in CATALOGUE.values():
        assert mutant.clauses
        assert set(mutant.clauses) <= known.keys()
        assert mutant.description.endswith(".")


OTHERS = {name: "" for name in CATALOGUE if name not in {*BY_SCENARIO, *BY_TEST, *BEYOND_THE_SUITE}}


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
    def broken(driver: str, report: Path) -> set[str]:
        (result,) = run_suite(driver, report, f"{SUITE}/{BY_TEST[name]}").values()
        assert result["status"] in ("pass", "fail"), result
        return set(result.get("broken", ()))

    assert not broken("reference", tmp_path / "reference")
    assert broken(f"reference --mutant {name}", tmp_path / "mutant") & set(CATALOGUE[name].clauses)


def test_what_is_beyond_the_suite_has_no_test_there() -> None:
    """A mutant whose clause gets a test must be caught by it, and leave the table."""
    told = "".join(path.read_text() for path in sorted(SUITE.glob("test_*.py")))
    for name in BEYOND_THE_SUITE:
        clauses = CATALOGUE[name].clauses
        assert not traces_for(clauses), name
        assert not [clause for clause in clauses if clause in told], name


@pytest.mark.parametrize(
    "title", ["Memory and all disks come back", "A create that fails leaves nothing behind"]
)
def test_the_reference_passes(title: str, reference: Subject) -> None:
    (trace,) = [trace for trace in TRACES if trace.title.startswith(title)]
    assert failure_of(trace, reference) is None


def test_generated_scenarios_find_a_mutant_and_shrink_it(
    reference: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "wrong-memory-after-revert"
    # On a busy machine the usual time may not do for the smallest trace; it is the trace that is judged here.
    monkeypatch.setattr("xlsnap_conformance.machine.shrink", functools.partial(shrink, seconds=600))
    with Fence() as fence, Subject(f"reference --mutant {name}", fence) as subject:
        with pytest.raises(ConformanceFailure) as caught:
            machine.search(subject, "one-disk", seed=1, effort=Effort.NORMAL)
        trace = caught.value.trace
        assert trace is not None
        assert "XLS-REVERT-003" in caught.value.clause_ids
        assert len(trace.steps) <= 6, trace.describe_steps()
        again = failure_of(trace, subject)
        assert again is not None
        assert again.clause_ids == caught.value.clause_ids
    assert failure_of(trace, reference) is None


def test_the_same_seed_gives_the_same_scenarios(reference: Subject) -> None:
    first, again = (machine.search(reference, "two-disks", seed=7, effort=Effort.QUICK) for _ in range(2))
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
