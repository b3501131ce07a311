# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machinery that judges mutants: which tests they meet, what the outcome means, what is told of it.

That each mutant of the catalogue is caught is for ``xlsnap-conformance mutants`` itself to show.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from xlsnap_conformance import cli
from xlsnap_conformance.collecting import Kind, SuiteTest, collect
from xlsnap_conformance.drivers.reference.mutants import CATALOGUE, Mutant
from xlsnap_conformance.failures import HarnessError
from xlsnap_conformance.links import Missing, load_debt
from xlsnap_conformance.mutation import crew as crews
from xlsnap_conformance.mutation.changes import changed_files
from xlsnap_conformance.mutation.choice import MOST_CHANGED, Reach, modules_of, order, quick, select, targets
from xlsnap_conformance.mutation.crew import Crew, Plan, Worker, judge_elsewhere
from xlsnap_conformance.mutation.matrix import Fate, Judged, Matrix, Verdict, encode, judged, load
from xlsnap_conformance.mutation.page import html, markdown, updated, write
from xlsnap_conformance.mutation.worker import Task, until_decided
from xlsnap_conformance.results import Status

OWN, OTHER = "XLS-CREATE-002", "XLS-LIST-001"
DOCS = Path(__file__).resolve().parents[2] / "docs"


def mutant(name: str = "m", *clauses: str, test: str = "", judge: str = "") -> Mutant:
    return Mutant(name=name, clauses=clauses or (OWN,), description="Wrong.", test=test, judge=judge)


def verdict(status: Status, *broken: str, test: str = "a.py::test_a") -> Verdict:
    return Verdict(test=test, status=status, broken=broken, message="so it is", seconds=1.0)


PASS, FAIL, ERROR = verdict(Status.PASS), verdict(Status.FAIL, OWN), verdict(Status.HARNESS_ERROR)
FOREIGN, UNSUPPORTED = verdict(Status.FAIL, OTHER, test="a.py::test_b"), verdict(Status.UNSUPPORTED)


# --- what verdicts mean -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdicts", "known", "fate"),
    [
        ([PASS, FAIL], None, Fate.KILLED),
        ([FOREIGN, FAIL], None, Fate.KILLED),
        ([ERROR, FAIL], None, Fate.KILLED),
        ([PASS, FOREIGN, PASS], None, Fate.FOREIGN),
        ([ERROR, FOREIGN], None, Fate.FOREIGN),
        ([PASS, PASS], None, Fate.SURVIVED),
        ([PASS, UNSUPPORTED], None, Fate.SURVIVED),
        ([UNSUPPORTED, UNSUPPORTED], None, Fate.UNABLE),
        ([], None, Fate.SURVIVED),
        ([PASS, ERROR], None, Fate.ERROR),
        ([PASS, PASS], "no test yet", Fate.KNOWN),
        ([FOREIGN], "no test yet", Fate.KNOWN),
        ([FAIL], "no test yet", Fate.PAID),
    ],
)
def test_what_becomes_of_a_mutant(verdicts: list[Verdict], known: str | None, fate: Fate) -> None:
    found = judged(mutant(), verdicts, seconds=2.0, known=known)
    assert found.fate is fate
    assert found.tried == len(verdicts)
    if fate is Fate.KILLED:
        assert (found.test, found.broken) == (FAIL.test, (OWN,))
    if fate is Fate.FOREIGN:
        assert (found.test, found.broken) == (FOREIGN.test, (OTHER,))
    if fate is Fate.KNOWN:
        assert found.message == "no test yet"


def matrix(*fates: Fate, control: tuple[Verdict, ...] = (), errors: tuple[str, ...] = ()) -> Matrix:
    entries = [
        Judged(
            name=f"mutant-{number}",
            clauses=(OWN,),
            description="It is <b>wrong</b> | so.",
            fate=fate,
            bug="xl, 2014: a *real* one",
            test="test_scenarios.py::test_scenario[duplicate-name]" if fate is Fate.KILLED else "",
            broken=(OWN, OTHER) if fate is Fate.KILLED else (),
            seconds=float(number),
        )
        for number, fate in enumerate(fates, start=1)
    ]
    return Matrix(
        kit="0",
        started="2026-01-02T03:04:05+00:00",
        duration=60.0,
        jobs=2,
        seed=1,
        mutants=tuple(entries),
        control=control,
        controlled=1,
        errors=errors,
    )


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (matrix(Fate.KILLED, Fate.KNOWN, Fate.UNABLE), 0),
        (matrix(Fate.KILLED, Fate.SURVIVED), 1),
        (matrix(Fate.KILLED, Fate.FOREIGN), 1),
        (matrix(Fate.KILLED, Fate.PAID), 1),
        (matrix(Fate.SURVIVED, Fate.ERROR), 2),
        (matrix(Fate.KILLED, control=(ERROR,)), 2),
        (matrix(Fate.KILLED, errors=("no disk",)), 2),
        (matrix(), 2),
    ],
)
def test_exit_status(found: Matrix, status: int) -> None:
    assert found.exit_code == status


def test_the_median_is_that_of_the_kills_of_the_suite() -> None:
    assert matrix(Fate.KILLED, Fate.KILLED, Fate.SURVIVED, Fate.KILLED).median == 2.0
    assert matrix(Fate.SURVIVED).median == 0.0
    assert matrix(Fate.KILLED, Fate.KNOWN).summary == (
        "2 mutants in 60 s: 1 killed, 1 known; median time to kill 1.0 s"
    )


def test_tests_end_with_the_one_that_kills() -> None:
    able = {PASS.test, FOREIGN.test}
    assert list(until_decided(iter([FOREIGN, PASS, FAIL, PASS]), (OWN,), able)) == [FOREIGN, PASS, FAIL]
    assert list(until_decided(iter([FOREIGN, PASS]), (OWN,), able)) == [FOREIGN, PASS]


def test_tests_that_cannot_kill_end_when_something_was_noticed() -> None:
    others = [verdict(Status.PASS, test="b.py::test_b"), verdict(Status.FAIL, OTHER, test="b.py::test_c")]
    ran = until_decided(iter([PASS, *others, PASS]), (OWN,), {PASS.test})
    assert list(ran) == [PASS, *others]
    assert list(until_decided(iter([FOREIGN, *others]), (OWN,), {FOREIGN.test})) == [FOREIGN, others[0]]


# --- which tests, which mutants ---------------------------------------------------------------------------

GENERATED = SuiteTest(id="test_generated.py::test_generated[a]", kind=Kind.GENERATED, watches=(OWN,))
LONG = SuiteTest(id="test_scenarios.py::test_scenario[long]", kind=Kind.SCENARIO, purpose=(OWN,), steps=20)
SHORT = SuiteTest(id="test_scenarios.py::test_scenario[short]", kind=Kind.SCENARIO, purpose=(OWN,), steps=2)
WATCHES = SuiteTest(id="test_scenarios.py::test_scenario[w]", kind=Kind.SCENARIO, watches=(OWN,), steps=1)
FUNCTION = SuiteTest(id="test_a.py::test_a", kind=Kind.FUNCTION, purpose=(OWN,))
NEITHER = SuiteTest(id="test_a.py::test_b", kind=Kind.FUNCTION, purpose=(OTHER,))
TESTS = [GENERATED, LONG, NEITHER, WATCHES, FUNCTION, SHORT]


def test_the_tests_that_are_for_the_clause_come_first_and_generated_ones_last() -> None:
    assert order(TESTS, (OWN,)) == [SHORT, FUNCTION, LONG, WATCHES, GENERATED]


@pytest.mark.parametrize("first", ["w", WATCHES.id])
def test_the_test_that_the_catalogue_names_comes_before_all(first: str) -> None:
    assert order(TESTS, (OWN,), first=first) == [WATCHES, SHORT, FUNCTION, LONG, GENERATED]


def test_a_mutant_meets_fewer_tests_or_all() -> None:
    assert order(TESTS, (OWN,), reach=Reach.PURPOSE) == [SHORT, FUNCTION, LONG]
    assert order(TESTS, (OWN,), first="w", reach=Reach.PURPOSE) == [WATCHES, SHORT, FUNCTION, LONG]
    assert order(TESTS, (OWN,), reach=Reach.ALL)[-1] == NEITHER
    assert len(order(TESTS, (OWN,), reach=Reach.ALL)) == len(TESTS)


def test_mutants_are_chosen_by_name_and_by_clause() -> None:
    catalogue = {each.name: each for each in (mutant("a"), mutant("b", OTHER), mutant("c", OTHER, OWN))}
    assert [each.name for each in select(catalogue, [])] == ["a", "b", "c"]
    assert [each.name for each in select(catalogue, ["c", "a"])] == ["a", "c"]
    assert [each.name for each in select(catalogue, ["list-001"])] == ["b", "c"]
    assert [each.name for each in select(catalogue, ["XLS-CREATE", "b"])] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("nonsense", "no mutant and no clause"), ("", "no mutant and no clause"), ("TERM", "no mutant breaks")],
)
def test_a_name_that_chooses_nothing_is_told(name: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        select({"a": mutant("a")}, [name])


def test_the_quick_choice_has_one_mutant_of_each_area() -> None:
    catalogue = {
        each.name: each
        for each in (mutant("x", judge="tests/x.py::test_x"), mutant("a"), mutant("b"), mutant("c", OTHER))
    }
    assert [each.name for each in quick(catalogue)] == ["a", "c"]


def test_the_quick_choice_takes_mutants_of_changed_code_and_not_too_many() -> None:
    plain = {each.name for each in quick(CATALOGUE)}
    changed = quick(CATALOGUE, {"xlsnap.toolstack"}, "salt")
    more = [each for each in changed if each.name not in plain]
    assert 0 < len(more) <= MOST_CHANGED
    assert all("xlsnap.toolstack" in targets(each) for each in more)
    assert changed == quick(CATALOGUE, {"xlsnap.toolstack"}, "salt")


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("duplicate-name-accepted", "xlsnap.toolstack"),
        ("partial-create-left-behind", "xlsnap.executor"),
        ("left-paused-by-create", "xlsnap.plan.create"),
        ("long-name-refused", "xlsnap.names"),
        ("guest-runs-between", "xlsnap.qemu.host"),
        ("descendants-are-deleted-too", "xlsnap_conformance.model.effects"),
    ],
)
def test_the_code_that_a_mutant_patches_is_known(name: str, module: str) -> None:
    assert module in targets(CATALOGUE[name])
    assert getattr(CATALOGUE[name].break_it, "__module__", None) in targets(CATALOGUE[name])


def test_modules_are_found_by_their_files() -> None:
    import xlsnap.toolstack

    assert modules_of({str(xlsnap.toolstack.__file__), "/nowhere.py"}) == {"xlsnap.toolstack"}


def git(directory: Path, *arguments: str) -> str:
    command = ["git", "-C", str(directory), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    done = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_git_tells_what_has_changed(tmp_path: Path) -> None:
    assert changed_files(tmp_path, None) == (set(), "")
    with pytest.raises(HarnessError, match="is no git checkout"):
        changed_files(tmp_path, "HEAD")
    git(tmp_path, "init", "-q")
    for name in ("one.py", "two.py", "three.py"):
        (tmp_path / name).write_text("1\n")
        git(tmp_path, "add", name)
        git(tmp_path, "commit", "-q", "-m", name)
    head = git(tmp_path, "rev-parse", "HEAD")
    assert changed_files(tmp_path, None) == ({str(tmp_path / "three.py")}, head)
    (tmp_path / "one.py").write_text("2\n")
    assert changed_files(tmp_path, "HEAD") == ({str(tmp_path / "one.py")}, head)
    assert len(changed_files(tmp_path, "HEAD~2")[0]) == 3
    with pytest.raises(HarnessError, match="git knows no revision 'nonsense'"):
        changed_files(tmp_path, "nonsense")


# --- with real guests -------------------------------------------------------------------------------------

DUPLICATES = "duplicate-name-accepted"

ROTTEN = """
import asyncio
from xlsnap.toolstack import Toolstack
from xlsnap_conformance.drivers.reference.server import ReferenceDriver, serve

def create(self):
    return None

Toolstack.snapshot_create = create
asyncio.run(serve(ReferenceDriver()))
"""


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker(seed=1) as running:
        yield running


def met(worker: Worker, task: Task, clause: str) -> Fate:
    reply = worker.ask(task)
    return judged(mutant("m", clause), reply.verdicts, seconds=reply.seconds, known=None).fate


def test_a_broken_toolstack_is_killed_by_a_clause_of_its_own(worker: Worker) -> None:
    task = Task(driver=f"reference --mutant {DUPLICATES}", clauses=(OWN,), reach=Reach.PURPOSE)
    assert met(worker, task, OWN) is Fate.KILLED


def test_one_that_breaks_another_clause_is_not(worker: Worker) -> None:
    """The test of duplicate names fails; that of dry runs, which it is said to break, does not."""
    clause = "XLS-CREATE-024"
    task = Task(
        driver=f"reference --mutant {DUPLICATES}",
        clauses=(clause,),
        first="duplicate-name",
        reach=Reach.PURPOSE,
    )
    assert met(worker, task, clause) is Fate.FOREIGN


def test_what_is_not_broken_survives(worker: Worker) -> None:
    assert met(worker, Task(driver="reference", clauses=(OWN,), reach=Reach.PURPOSE), OWN) is Fate.SURVIVED


def test_a_driver_that_does_not_work_kills_nothing(worker: Worker) -> None:
    task = Task(driver="true", clauses=(OWN,), reach=Reach.PURPOSE)
    assert met(worker, task, OWN) is Fate.ERROR


def test_a_mutant_that_does_not_fit_any_more_is_an_error(worker: Worker, tmp_path: Path) -> None:
    """Its driver fails at every create with an error that is nobody's intention."""
    driver = tmp_path / "driver.py"
    driver.write_text(ROTTEN)
    task = Task(driver=f"{sys.executable} {driver}", clauses=(OWN, "XLS-CREATE-001"), reach=Reach.PURPOSE)
    reply = worker.ask(task)
    errors = [verdict for verdict in reply.verdicts if verdict.status is Status.HARNESS_ERROR]
    assert errors
    assert errors[0].message.startswith("the mutant does not work: bug: TypeError")
    assert judged(mutant("m", OWN), reply.verdicts, seconds=1.0, known=None).fate is Fate.ERROR


def test_a_broken_model_is_killed_and_spoils_no_worker(worker: Worker) -> None:
    name = "memory-does-not-come-back"
    with Crew(Plan(seed=1, reach=Reach.PURPOSE, known={}), jobs=1) as crew:
        (found,) = crew.judge([CATALOGUE[name]])
    assert found.fate is Fate.KILLED, found
    clause = CATALOGUE[name].clauses[0]
    task = Task(driver="reference", clauses=(clause,), reach=Reach.PURPOSE)
    assert met(worker, task, clause) is Fate.SURVIVED


def test_the_reference_meets_the_tests_that_killed() -> None:
    tests = ["test_scenarios.py::test_scenario[duplicate-name]", "test_scenarios.py::test_scenario[no-such]"]
    with Crew(Plan(seed=1, reach=Reach.ABLE, known={}), jobs=1) as crew:
        verdicts = {verdict.test: verdict.status for verdict in crew.control(tests)}
    assert verdicts == {tests[0]: Status.PASS, tests[1]: Status.HARNESS_ERROR}


def test_a_worker_that_dies_is_an_error_and_another_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Worker] = []

    def ask(self: Worker, task: Task) -> object:
        started.append(self)
        if len(started) == 1:
            os.kill(self.pid, 9)
        return original(self, task)

    original = Worker.ask
    monkeypatch.setattr(Worker, "ask", ask)
    chosen = [CATALOGUE[DUPLICATES], CATALOGUE["dry-run-creates"]]
    with Crew(Plan(seed=1, reach=Reach.PURPOSE, known={}), jobs=1) as crew:
        first, second = crew.judge(chosen)
    assert first.fate is Fate.ERROR
    assert "a worker has ended" in first.message
    assert second.fate is Fate.KILLED
    assert started[0] is not started[1]


# --- judged by a test of the project ----------------------------------------------------------------------

JUDGES = """
import pytest

@pytest.mark.parametrize("case", ["a", "b c"])
def test_notices(case):
    pass

def test_misses():
    assert False, "nobody noticed"

def test_skips():
    pytest.skip("no Xen here")

def test_breaks(nothing):
    pass
"""


def test_a_test_of_the_project_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_judges.py").write_text(JUDGES)
    monkeypatch.setattr(crews, "checkout", lambda: tmp_path)
    names = ["test_notices[a]", "test_notices[b c]", "test_misses", "test_skips", "test_breaks"]
    mutants = [mutant(name, judge=f"tests/test_judges.py::{name}") for name in names]
    found = {each.name: each for each in judge_elsewhere(mutants)}
    assert [found[name].fate for name in names] == [
        *(Fate.KILLED, Fate.KILLED, Fate.SURVIVED, Fate.UNABLE, Fate.ERROR)
    ]
    assert found["test_misses"].message.startswith("AssertionError: nobody noticed")
    assert "no Xen here" in found["test_skips"].message


def test_a_judge_that_is_gone_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tests").mkdir()
    monkeypatch.setattr(crews, "checkout", lambda: tmp_path)
    (found,) = judge_elsewhere([mutant(judge="tests/test_gone.py::test_x")])
    assert found.fate is Fate.ERROR


def test_without_a_checkout_such_mutants_are_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crews, "checkout", lambda: None)
    (found,) = judge_elsewhere([mutant(judge="tests/test_x.py::test_x")])
    assert found.fate is Fate.UNABLE
    assert "in a checkout" in found.message


# --- what is told -----------------------------------------------------------------------------------------


def test_a_matrix_is_written_and_read_again(tmp_path: Path) -> None:
    found = matrix(Fate.KILLED, Fate.SURVIVED)
    write(found, tmp_path / "out")
    assert load(tmp_path / "out") == found
    assert (tmp_path / "out" / "mutants.json").read_bytes() == encode(found)
    (tmp_path / "out" / "mutants.json").write_text("{}")
    with pytest.raises(ValueError, match="is no kill matrix of this kit"):
        load(tmp_path / "out")


def test_the_page_shows_the_matrix_and_escapes_what_it_is_told() -> None:
    page = html(matrix(Fate.KILLED, Fate.SURVIVED))
    assert "It is &lt;b&gt;wrong&lt;/b&gt; | so." in page
    assert '<td class="dot pass">●</td>' in page
    assert '<td class="dot known">+</td>' in page
    assert '<td class="dot fail">○</td>' in page
    assert "not all were caught" in page
    assert "<script" not in page


def test_markdown_has_a_row_for_each_mutant() -> None:
    text = markdown(matrix(Fate.KILLED, Fate.SURVIVED, control=(FAIL,)))
    assert (
        "| **mutant-1**: It is \\<b\\>wrong\\</b\\> \\| so. *xl, 2014: a \\*real\\* one* | XLS-CREATE-002 |"
        in text
    )
    assert "`duplicate-name` XLS-CREATE-002 | 1.0 s |" in text
    assert "**survived**" in text
    assert "Not passed by the reference: a.py::test\\_a." in text


def test_the_documentation_shows_the_mutants_that_there_are() -> None:
    rows = [line for line in (DOCS / "mutants.md").read_text().splitlines() if line.startswith("| **")]
    shown = {row.split("**")[1] for row in rows}
    missing = sorted(CATALOGUE.keys() - shown)
    assert not missing, f"run xlsnap-conformance mutants --docs {' '.join(missing)}"
    assert not shown - CATALOGUE.keys(), "run xlsnap-conformance mutants --docs, with any mutant"


def test_the_documentation_is_brought_up_to_date_with_a_part() -> None:
    made = (mutant("mutant-1"), mutant("mutant-2", OTHER), mutant("mutant-3"), mutant("new"))
    catalogue = {each.name: each for each in made}
    page = markdown(matrix(Fate.KILLED, Fate.SURVIVED, Fate.KILLED, Fate.KILLED))
    assert "The last run of all: 4 mutants" in page
    now = updated(page, matrix(Fate.SURVIVED), catalogue)
    assert now.startswith(page.partition("\n## ")[0])
    rows = [line for line in now.splitlines() if line.startswith("| **")]
    assert [row.split("**")[1] for row in rows] == ["mutant-1", "mutant-3", "new", "mutant-2"]
    assert rows[2] == "| **new**: Wrong. | XLS-CREATE-002 | not judged yet | |"
    assert "**survived**" in rows[0]
    assert rows[1] in page.splitlines()
    assert now == updated(now, matrix(Fate.SURVIVED), catalogue)


# --- the command ------------------------------------------------------------------------------------------


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(["mutants", *arguments])
    assert isinstance(end.value.code, int)
    return end.value.code


def test_mutants_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--list", "XLS-CREATE-002") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"{DUPLICATES}  XLS-CREATE-002: A second snapshot of the same name replaces the first."
    assert call("--list", "no-lock", "descendants-are-deleted-too") == 0
    out = capsys.readouterr().out
    assert "[tests/crash/test_two_at_once.py::" in out
    assert "[model]" in out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("nonsense",), "no mutant and no clause 'nonsense'"),
        (("--quick", DUPLICATES), "--quick chooses by itself"),
        (("--since", "HEAD"), "--since goes with --quick"),
        (("-n", "0", DUPLICATES), "-n 0: a number from 1, or 'auto'"),
    ],
)
def test_wrong_usage_is_told(
    arguments: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*arguments) == 2
    assert complaint in capsys.readouterr().err


def test_the_command_judges_and_writes_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(DUPLICATES, "--report", str(tmp_path)) == 0
    out = capsys.readouterr().out
    assert f"[1/1] killed        {DUPLICATES}" in out
    assert "1 mutants in " in out
    found = load(tmp_path)
    assert found.selected == DUPLICATES
    assert found.controlled == 1
    assert found.mutants[0].fate is Fate.KILLED
    assert (tmp_path / "mutants.html").exists()


def test_a_survivor_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def judge(self: Crew, chosen: list[Mutant]) -> Iterator[Judged]:
        yield judged(chosen[0], [PASS], seconds=1.0, known=None)

    monkeypatch.setattr(Crew, "judge", judge)
    assert call(DUPLICATES) == 1
    assert f"survived: {DUPLICATES}: A second snapshot" in capsys.readouterr().out


def test_what_is_known_to_survive_is_not_said_to_be_caught() -> None:
    known = load_debt().of(Missing.KILL)
    assert not [name for name in known if CATALOGUE[name].judge]


def test_the_suite_has_a_test_for_each_mutant_that_it_judges() -> None:
    tests = collect()
    known = load_debt().of(Missing.KILL)
    for each in CATALOGUE.values():
        if not each.judge and each.name not in known:
            assert order(tests, each.clauses, first=each.test), each.name
