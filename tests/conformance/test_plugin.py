# SPDX-License-Identifier: LGPL-2.1-or-later
"""The plugin judges small made-up suites as it should: statuses, clauses, exit status, selection."""

from __future__ import annotations

from pathlib import Path

import pytest
from xlsnap_conformance.clauses import load_clauses
from xlsnap_conformance.results import Run, Status, TestResult, Verdict, load

pytest_plugins = ["pytester"]

CORE = [
    clause.id for clause in load_clauses().values() if "core" in clause.profiles and clause.level == "MUST"
]
ONE, TWO, THREE = CORE[:3]
LOADED = ("-p", "xlsnap_conformance.plugin", "-p", "no:hypothesispytest", "--assert=plain")
HEADER = """
import os, pytest
from xlsnap_conformance.failures import *
from xlsnap_conformance.results import Implementation
clauses = pytest.mark.clauses
"""


def judge(pytester: pytest.Pytester, body: str, *arguments: str) -> tuple[Run, pytest.RunResult]:
    """Run a made-up suite; return the report that was written, and what pytest said."""
    pytester.makepyfile(test_made_up=HEADER + body)
    result = pytester.runpytest_inprocess(*LOADED, "--report", "out", *arguments)
    return load(pytester.path / "out"), result


def only(run: Run) -> TestResult:
    (test,) = run.tests
    return test


def status_of(run: Run, clause: str) -> Status | None:
    return next(result.status for result in run.clauses if result.id == clause)


@pytest.mark.parametrize(
    ("statement", "status", "exit_code"),
    [
        ("pass", Status.PASS, 0),
        ("raise ConformanceFailure([{one!r}], 'it was lost')", Status.FAIL, 1),
        ("assert 1 == 2", Status.FAIL, 1),
        ("raise HarnessError('no room')", Status.HARNESS_ERROR, 2),
        ("raise DriverError('bad JSON', log='garbage')", Status.HARNESS_ERROR, 2),
        ("raise ImplementationError('input', 'no')", Status.HARNESS_ERROR, 2),
        ("raise ZeroDivisionError", Status.HARNESS_ERROR, 2),
        ("raise ExceptionGroup('two', [ValueError(), ConformanceFailure([{one!r}], 'x')])", Status.FAIL, 1),
        ("pytest.skip(UNSUPPORTED + 'delete')", Status.UNSUPPORTED, 0),
        ("pytest.skip('no room')", Status.BLOCKED, 2),
        ("pytest.xfail('as ever')", Status.KNOWN, 0),
    ],
)
def test_each_ending_has_its_status_and_exit_code(
    pytester: pytest.Pytester, statement: str, status: Status, exit_code: int
) -> None:
    run, result = judge(pytester, f"@clauses({ONE!r})\ndef test_it(): {statement.format(one=ONE)}")
    assert only(run).status is status
    assert status_of(run, ONE) is status
    assert result.ret == exit_code == run.exit_code


def test_a_failure_that_is_expected_is_known(pytester: pytest.Pytester) -> None:
    body = f"@clauses({ONE!r})\ndef test_it(): raise ConformanceFailure([{ONE!r}], 'x')"
    run, result = judge(pytester, f"@pytest.mark.xfail(reason='r')\n{body}")
    assert only(run).status is Status.KNOWN
    assert run.verdict is Verdict.DOES_NOT_CONFORM
    assert result.ret == 0


def test_a_clause_has_the_worst_status_of_its_tests(pytester: pytest.Pytester) -> None:
    run, _ = judge(
        pytester,
        f"""
@clauses({ONE!r}, {TWO!r})
def test_good(): pass
@clauses({ONE!r})
def test_bad(): raise ConformanceFailure([{ONE!r}], 'lost')
""",
    )
    assert status_of(run, ONE) is Status.FAIL
    assert status_of(run, TWO) is Status.PASS
    assert status_of(run, THREE) is None


def test_a_failure_says_nothing_of_the_clauses_that_it_does_not_name(pytester: pytest.Pytester) -> None:
    run, _ = judge(
        pytester,
        f"""
@clauses({ONE!r}, {TWO!r}, {THREE!r})
def test_bad(): raise ConformanceFailure([{TWO!r}], 'lost')
@clauses({THREE!r})
def test_good(): pass
""",
    )
    assert status_of(run, TWO) is Status.FAIL
    assert status_of(run, ONE) is Status.BLOCKED, "no other test has seen it"
    assert status_of(run, THREE) is Status.PASS, "another test has"


def test_a_skipped_test_says_nothing_of_what_its_fixtures_add(pytester: pytest.Pytester) -> None:
    run, _ = judge(
        pytester,
        f"""
@pytest.fixture
def looks(request): request.node.add_marker(clauses({TWO!r}))
@clauses({ONE!r})
def test_good(looks): pass
@clauses({THREE!r})
def test_unable(looks): pytest.skip(UNSUPPORTED + 'live')
""",
    )
    assert [status_of(run, clause) for clause in (ONE, TWO, THREE)] == [
        Status.PASS,
        Status.PASS,
        Status.UNSUPPORTED,
    ]


def test_a_broken_shared_fixture_is_one_error_and_blocks_the_rest(pytester: pytest.Pytester) -> None:
    run, result = judge(
        pytester,
        f"""
@pytest.fixture(scope="session")
def driver(): raise HarnessError("it does not start")
@clauses({ONE!r})
def test_first(driver): pass
@clauses({TWO!r})
def test_second(driver): pass
""",
    )
    assert [test.status for test in run.tests] == [Status.HARNESS_ERROR, Status.BLOCKED]
    assert result.ret == 2


def test_an_assertion_in_a_set_up_says_nothing_of_the_implementation(pytester: pytest.Pytester) -> None:
    body = f"@pytest.fixture\ndef f(): assert False\n@clauses({ONE!r})\ndef test_it(f): pass"
    run, _ = judge(pytester, body)
    assert only(run).status is Status.HARNESS_ERROR


def test_a_failing_tear_down_outweighs_a_test_that_passed(pytester: pytest.Pytester) -> None:
    fixture = "@pytest.fixture\ndef f():\n  yield\n  raise HarnessError('left')\n"
    run, _ = judge(pytester, fixture + f"@clauses({ONE!r})\ndef test_it(f): pass")
    assert only(run).status is Status.HARNESS_ERROR
    assert "left" in only(run).message


def test_an_unknown_clause_is_an_error_of_the_collection(pytester: pytest.Pytester) -> None:
    run, result = judge(pytester, "@clauses('XLS-NOPE-999')\ndef test_it(): pass")
    assert result.ret == 2
    assert not run.tests
    assert "no clause 'XLS-NOPE-999' in the specification" in run.errors[0]
    result.stdout.fnmatch_lines(["*XLS-NOPE-999*"])


def test_what_a_test_saw_is_kept(pytester: pytest.Pytester) -> None:
    body = f"@clauses({ONE!r})\ndef test_it(record_property): record_property('observed', '3 listed')"
    run, _ = judge(pytester, body)
    assert only(run).evidence.observed == "3 listed"


def test_what_the_driver_says_of_itself_is_kept(pytester: pytest.Pytester) -> None:
    run, _ = judge(
        pytester,
        f"""
@clauses({ONE!r})
def test_it(xlsnap_run):
    assert (xlsnap_run.driver, xlsnap_run.seed, xlsnap_run.profile.name) == ("./d --x", 7, "core")
    xlsnap_run.implementation = Implementation(name="toy", version="3", capabilities=("delete",))
""",
        "--driver=./d --x",
        "--xlsnap-seed=7",
    )
    assert only(run).status is Status.PASS, only(run)
    assert run.implementation.name == "toy"
    assert run.implementation.capabilities == ("delete",)
    assert run.implementation.driver == "./d --x"
    assert run.seed == 7


@pytest.mark.parametrize("arguments", [("--clause", ONE), ("-k", "one")])
def test_a_selection_proves_nothing(pytester: pytest.Pytester, arguments: tuple[str, str]) -> None:
    body = f"@clauses({ONE!r})\ndef test_one(): pass\n@clauses({TWO!r})\ndef test_two(): assert False"
    run, result = judge(pytester, body, *arguments)
    assert [test.name for test in run.tests] == ["test_one"]
    assert run.verdict is Verdict.UNDECIDED
    assert run.selected == " ".join(arguments)
    assert result.ret == 0


def test_a_run_without_tests_is_no_success(pytester: pytest.Pytester) -> None:
    _, result = judge(pytester, f"@clauses({ONE!r})\ndef test_it(): pass", "-k", "nothing")
    assert result.ret == 2


@pytest.mark.parametrize("arguments", [("--profile", "nope"), ("--clause", "XLS-NOPE-1")])
def test_unknown_names_are_usage_errors(pytester: pytest.Pytester, arguments: tuple[str, str]) -> None:
    result = pytester.runpytest_inprocess(*LOADED, *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: no * '{arguments[1]}'*"])


@pytest.mark.parametrize("hostile", [r"\x00\x1b[2J\udcff", r"\ud800" * 3, "x" * 100_000])
def test_garbage_of_an_implementation_stays_readable(pytester: pytest.Pytester, hostile: str) -> None:
    body = f"""
@clauses({ONE!r})
def test_it(): raise ConformanceFailure([{ONE!r}], "got {hostile}", observed={{"{hostile}": ["{hostile}"]}})
@clauses({TWO!r})
def test_next(): pass
"""
    run, _ = judge(pytester, body, "-n1")
    first = next(test for test in run.tests if test.name == "test_it")
    assert {test.status for test in run.tests} == {Status.FAIL, Status.PASS}
    assert first.message.startswith("got ")
    assert len(first.message) < 1000
    assert "\x1b" not in (pytester.path / "out" / "index.html").read_text()
    assert (pytester.path / "out" / "junit.xml").stat().st_size < 100_000


def test_directories_of_the_user_are_not_told(pytester: pytest.Pytester, tmp_path: Path) -> None:
    body = f"""
from pathlib import Path
@clauses({ONE!r})
def test_it(xlsnap_run):
    xlsnap_run.root = Path({str(tmp_path)!r})
    raise ConformanceFailure([{ONE!r}], "{tmp_path}/a is gone", observed=str(Path.home() / "b"))
"""
    run, _ = judge(pytester, body)
    assert only(run).message == "$ROOT/a is gone"
    assert only(run).evidence.observed == "~/b"
