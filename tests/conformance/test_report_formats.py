# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every format tells the same run, whole and harmless whatever an implementation has said."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xlsnap_conformance import results, verdicts
from xlsnap_conformance import trace as do
from xlsnap_conformance.clauses import PROFILES as ALL_PROFILES
from xlsnap_conformance.report import FORMATS, render, trace_name, write
from xlsnap_conformance.report.outcome import result, shareable
from xlsnap_conformance.report.table import show
from xlsnap_conformance.report.terminal import console
from xlsnap_conformance.results import (
    ClauseResult,
    Evidence,
    Host,
    Implementation,
    ProfileResult,
    Run,
    Status,
    TestResult,
    Verdict,
)

HOSTILE = "<script>alert(1)</script>\"'&]]>--> \x1b[31m \u202e \x00 {{ 7*7 }} ${x} | `x` \n# x"
PROFILES = ("core",)


def clause(id: str, chapter: str = "Revert", level: str = "MUST") -> ClauseResult:
    return ClauseResult(id=id, level=level, chapter=chapter, text=f"The text of {id}.", profiles=PROFILES)


def tree(name: str) -> do.Tree:
    return do.Tree(
        domain_state="running",
        snapshots=(
            do.TreeNode(name="base", memory=True, disks=("hda",)),
            do.TreeNode(name=name, parent="base", current=True, disks=("hda",)),
        ),
    )


def run_of(*tests: TestResult, said: str = "toy", clauses: tuple[ClauseResult, ...] | None = None) -> Run:
    """Return a complete run of these tests."""
    known = clauses or (
        clause("XLS-CREATE-001", "Create"),
        clause("XLS-REVERT-001"),
        clause("XLS-REVERT-002"),
    )
    judged = verdicts.summarise_clauses(known, tests)
    return Run(
        kit="0",
        implementation=Implementation(
            name=said, version="1", edition="v4", capabilities=("memory",), driver=said
        ),
        profile="core",
        seed=7,
        started="2026-01-02T03:04:05+00:00",
        duration=61.5,
        host=Host(system="Linux x86_64", python="3.11", qemu="7.2", cpus=2),
        profiles=verdicts.summarise_profiles(PROFILES, judged),
        clauses=judged,
        tests=tests,
    )


def failure(
    said: str = "it was lost", name: str = "before", *, id: str = "test_revert.py::test_it"
) -> TestResult:
    """Return a failed test in which all texts of the implementation are ``said``."""
    trace = do.Trace(
        steps=(do.Create(name=name), do.Set(key="a", value="2"), do.Revert(name=name)),
        failure=do.Failure(
            step=3,
            clauses=("XLS-REVERT-001",),
            summary=said,
            expected={"a": "1"},
            observed={"a": said},
            before=tree(name),
            after=tree(name),
        ),
    )
    return TestResult(
        id=id,
        status=Status.FAIL,
        clauses=("XLS-REVERT-001", "XLS-CREATE-001"),
        broken=("XLS-REVERT-001",),
        seconds=1.5,
        message=said,
        evidence=Evidence(
            expected="1", observed=said, steps=("create", "set", said), trace=trace, script=said, log=said
        ),
    )


PASSED = TestResult(
    id="test_create.py::test_ok", status=Status.PASS, clauses=("XLS-CREATE-001",), seconds=0.25
)
ERROR = TestResult(
    id="test_create.py::test_broken",
    status=Status.HARNESS_ERROR,
    clauses=("XLS-CREATE-001",),
    message="no room",
)
UNSUPPORTED = TestResult(
    id="test_x.py::test_u", status=Status.UNSUPPORTED, clauses=("XLS-REVERT-002",), message="delete"
)
MIXED = run_of(PASSED, failure(), ERROR, UNSUPPORTED)


# --- JSON -------------------------------------------------------------------------------------------------


def test_json_keeps_everything(tmp_path: Path) -> None:
    write(MIXED, tmp_path)
    assert results.load(tmp_path) == MIXED == results.load(tmp_path / "report.json")


def test_published_schema_is_that_of_the_code() -> None:
    published = Path(results.__file__).parent / "schemas" / "report.schema.json"
    assert json.loads(published.read_text()) == results.json_schema(), (
        "write it again: python -m xlsnap_conformance.results"
    )


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 2}', "\x00"])
def test_what_is_no_report_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(ValueError, match=r"report\.json is no report"):
        results.load(tmp_path)


def test_every_format_is_the_same_again_from_json() -> None:
    again = results.decode(results.encode(MIXED))
    for name in FORMATS:
        assert render(again, name) == render(MIXED, name)


# --- verdicts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tests", "verdict", "exit_code"),
    [
        ((PASSED,), "conforms", 0),
        ((PASSED, UNSUPPORTED), "not claimed", 0),
        ((PASSED, failure()), "does not conform", 1),
        ((PASSED, ERROR), "undecided", 2),
        ((failure(), ERROR), "does not conform", 2),
        ((), "undecided", 2),
    ],
)
def test_verdict_and_exit_code(tests: tuple[TestResult, ...], verdict: str, exit_code: int) -> None:
    run = run_of(*tests)
    assert (run.verdict, run.exit_code) == (verdict, exit_code)
    assert all(profile.verdict == verdict for profile in run.profiles)


def test_a_broken_should_clause_counts_only_when_strict() -> None:
    optional = (clause("XLS-REVERT-001", level="SHOULD"), clause("XLS-CREATE-001", "Create"))
    run = run_of(failure(), PASSED, clauses=optional)
    strict = msgspec.structs.replace(run, strict=True)
    assert (run.exit_code, strict.exit_code) == (0, 1)
    assert strict.verdict == "does not conform"


def test_what_one_test_proved_is_not_unsupported_because_another_could_not_be_tried() -> None:
    unable = msgspec.structs.replace(UNSUPPORTED, clauses=("XLS-CREATE-001", "XLS-REVERT-002"))
    proved, _, unproved = run_of(PASSED, unable).clauses
    assert (proved.status, proved.untried) == (Status.PASS, (unable.id,))
    assert unproved.status is Status.UNSUPPORTED
    broken, *_ = run_of(PASSED, unable, failure(id="test_x.py::test_y")).clauses
    assert broken.status is Status.PASS, "the failure names another clause"
    worse = msgspec.structs.replace(failure(), broken=("XLS-CREATE-001",))
    assert run_of(PASSED, unable, worse).clauses[0].status is Status.FAIL
    assert run_of(PASSED, unable, ERROR).clauses[0].status is Status.HARNESS_ERROR


def verdict_on(name: str, *clauses: ClauseResult, **how: Any) -> ProfileResult:
    (profile,) = verdicts.summarise_profiles([name], clauses, **how)
    return profile


HELD = msgspec.structs.replace(clause("XLS-CREATE-001"), status=Status.PASS, profiles=("memory",))
LOST = msgspec.structs.replace(HELD, id="XLS-CREATE-002", status=Status.FAIL)
WITHOUT_MEMORY = Implementation(name="toy", capabilities=("delete",))
OF_CORE: dict[str, Any] = {"partial": {"memory"}, "asked": "core"}


@pytest.mark.parametrize(
    ("clauses", "how", "verdict", "reason"),
    [
        ((HELD,), {}, "conforms", "1 of 1 tested clauses hold"),
        ((HELD, LOST), {}, "does not conform", "1 of 2 tested clauses hold, 1 fail"),
        ((), OF_CORE, "undecided", "not tested in this run: profile core was asked for"),
        ((HELD,), OF_CORE, "undecided", "not wholly tested in this run: profile core was asked for"),
        (
            (HELD, LOST),
            OF_CORE,
            "does not conform",
            "not wholly tested in this run: profile core was asked for; 1 of 2 tested clauses hold, 1 fail",
        ),
        (
            (HELD,),
            {"incomplete": "-k one"},
            "undecided",
            "not wholly tested in this run: -k one; 1 of 1 tested clauses hold",
        ),
        (
            (HELD,),
            {"implementation": WITHOUT_MEMORY},
            "not claimed",
            "the capability memory is not claimed; 1 of 1 tested clauses hold",
        ),
        ((LOST,), {"implementation": WITHOUT_MEMORY}, "does not conform", None),
        (
            (),
            {"implementation": WITHOUT_MEMORY, **OF_CORE},
            "not claimed",
            "the capability memory is not claimed; not tested in this run: profile core was asked for",
        ),
    ],
)
def test_a_profile_conforms_only_where_all_of_it_was_tested(
    clauses: tuple[ClauseResult, ...], how: dict[str, Any], verdict: str, reason: str | None
) -> None:
    profile = verdict_on("memory", *clauses, **how)
    assert profile.verdict == verdict
    assert reason is None or profile.reason == reason


def terminal_of(run: Run) -> str:
    stream = io.StringIO()
    show(console(stream), run)
    return stream.getvalue()


def test_every_profile_of_the_specification_has_its_verdict_in_every_format() -> None:
    asked = ("core", "memory")
    clauses = [msgspec.structs.replace(HELD, profiles=asked)]
    run = msgspec.structs.replace(
        run_of(PASSED),
        profiles=verdicts.summarise_profiles(
            ALL_PROFILES, clauses, partial=set(ALL_PROFILES) - {"core"}, asked="core"
        ),
    )
    assert [profile.name for profile in run.profiles] == list(ALL_PROFILES)
    assert [p.name for p in run.profiles if p.verdict is Verdict.CONFORMS] == ["core"]
    page = Page(render(run, "html")).text
    for told in (terminal_of(run), render(run, "markdown"), render(run, "svg"), page):
        assert [name for name in ALL_PROFILES if name not in told] == []
        assert "profile core was asked for" in told
        assert "undecided" in told
    told = next(line for line in terminal_of(run).splitlines() if "live" in line)
    assert "core" not in told.partition(":")[0]
    assert ": undecided (not tested in this run" in told, "all that have the same verdict stand in one line"


def test_what_works_though_it_is_not_claimed_is_told_in_every_format_and_is_no_failure() -> None:
    seen = TestResult(
        id="test_unclaimed.py::test_it", status=Status.PASS, unclaimed=("memory-path", "external")
    )
    run = run_of(PASSED, seen)
    assert (run.exit_code, run.verdict) == (0, "conforms")
    page = Page(render(run, "html")).text
    for told in (terminal_of(run), render(run, "markdown"), render(run, "svg"), page):
        assert "orks but is not claimed" in told
        assert "memory-path, external" in told.replace("\\", "")
    assert "not claimed" not in terminal_of(run_of(PASSED))


# --- JUnit ------------------------------------------------------------------------------------------------


def test_junit_has_the_structure_that_ci_systems_read() -> None:
    root = ET.fromstring(render(MIXED, "junit"))
    assert root.tag == "testsuites"
    assert {key: root.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
    }
    assert [suite.get("name") for suite in root] == ["Create", "Revert"]
    for suite in root:
        cases = suite.findall("testcase")
        assert int(suite.get("tests", "")) == len(cases)
        assert int(suite.get("failures", "")) == len(suite.findall("testcase/failure"))
        assert int(suite.get("errors", "")) == len(suite.findall("testcase/error"))
        assert int(suite.get("skipped", "")) == len(suite.findall("testcase/skipped"))
        assert float(suite.get("time", "")) == pytest.approx(sum(float(c.get("time", "")) for c in cases))
        assert all(case.get("classname") and case.get("name") for case in cases)
    broken = root.find(".//testcase[failure]")
    assert broken is not None
    assert [p.get("value") for p in broken.iterfind("properties/property[@name='clause']")] == [
        "XLS-REVERT-001",
        "XLS-CREATE-001",
    ]
    (told,) = broken.findall("failure")
    assert told.get("message") == "XLS-REVERT-001: it was lost"
    for part in ("The text of XLS-REVERT-001.", "expected: 1", "observed: it was lost", "step 1: create"):
        assert part in (told.text or "")


def test_errors_of_no_test_are_in_junit_too() -> None:
    run = msgspec.structs.replace(MIXED, errors=("no clause 'X'\nmore",))
    error = ET.fromstring(render(run, "junit")).find("testsuite[@name='harness']/testcase/error")
    assert error is not None
    assert error.get("message") == "no clause 'X'"


# --- HTML -------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Collects elements and visible text of a page."""

    VOID = ("meta", "input", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile_run() -> Run:
    """Return a run in which everything that an implementation can say is hostile."""
    return msgspec.structs.replace(
        run_of(PASSED, failure(HOSTILE, HOSTILE), said=HOSTILE), errors=(HOSTILE,), selected=HOSTILE
    )


def test_html_of_hostile_texts_is_harmless() -> None:
    page = Page(render(hostile_run(), "html"))
    assert not page.open, "every element is closed"
    assert "script" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("style", "src")]
    assert {
        value for name, value in page.attributes if name == "href" and not str(value).startswith("#")
    } == set()
    assert "<script>alert(1)</script>" in page.text, "it is shown, not interpreted"
    assert "\\x1b[31m \\u202e \\x00" in page.text
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", page.text)


def test_html_loads_nothing_and_allows_nothing() -> None:
    text = render(MIXED, "html")
    page = Page(text)
    policy = next(
        value for name, value in page.attributes if name == "content" and "default-src" in str(value)
    )
    assert str(policy).startswith("default-src 'none'; style-src 'sha256-")
    assert not re.search(r"(?:src|href)=\"?(?:https?:)?//|url\(|@import", text)


def test_links_of_html_lead_somewhere_and_ids_are_unique() -> None:
    page = Page(render(MIXED, "html"))
    assert len(page.ids) == len(set(page.ids))
    links = {str(value)[1:] for name, value in page.attributes if name == "href"}
    labels = {str(value) for name, value in page.attributes if name == "for"}
    assert links | labels <= set(page.ids)


def test_html_shows_all_there_is_to_a_failure() -> None:
    text = render(MIXED, "html")
    page = Page(text)
    for part in (
        "it was lost",
        "The text of XLS-REVERT-001.",
        "before",
        "create",
        "no room",
        "61",
        "seed",
        "7",
    ):
        assert part.lower() in page.text.lower()
    assert text.count('<svg class="tree"') == 2
    assert '<li class="here">' in text


def test_style_of_html_is_the_one_that_its_policy_allows() -> None:
    from base64 import b64encode
    from hashlib import sha256

    text = render(MIXED, "html")
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    assert b64encode(sha256(style.group(1).encode()).digest()).decode() in text.partition("<style>")[0]


# --- table, Markdown --------------------------------------------------------------------------------------


def test_table_off_a_terminal_is_plain_text() -> None:
    stream = io.StringIO()
    show(console(stream), hostile_run(), Path("out"))
    shown = stream.getvalue()
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert re.search(r"^XLS-CREATE-001 +MUST +pass +2  The text of XLS-CREATE-001\.$", shown, re.MULTILINE)
    assert re.search(r"^XLS-REVERT-001 +MUST +fail +1 ", shown, re.MULTILINE)
    assert "no test ran for 1 more: XLS-REVERT-002" in shown
    assert f"xlsnap-conformance replay out/{trace_name(failure())}" in shown
    assert "profile core: does not conform" in shown


def test_markdown_of_hostile_texts_is_harmless() -> None:
    text = render(hostile_run(), "markdown")
    for line in text.splitlines():
        if not line.startswith("    "):  # a code block
            assert not re.search(r"(?<!\\)<|(?<!\\)`", line)
    assert re.search(r"^\| Revert \|  \| 1 \|", text.replace("| 1 |  |", "|  | 1 |"), re.MULTILINE)


# --- evidence ---------------------------------------------------------------------------------------------


def test_traces_can_be_replayed(tmp_path: Path) -> None:
    broken = failure()
    write(run_of(broken), tmp_path)
    assert do.load(tmp_path / trace_name(broken)) == broken.evidence.trace


def test_traces_of_an_earlier_run_are_gone(tmp_path: Path) -> None:
    write(run_of(failure()), tmp_path)
    write(run_of(PASSED), tmp_path)
    assert list((tmp_path / "traces").iterdir()) == []


@settings(deadline=None)
@given(st.text(st.characters(categories=["Cs", "Cc", "Cf", "L", "P", "Zl"])))
def test_whatever_is_said_can_be_written_and_read(said: str) -> None:
    from xlsnap_conformance.failures import ConformanceFailure

    trace = failure(said, said or "x").evidence.trace
    error = ConformanceFailure(["XLS-REVERT-001"], said, expected={said: said}, observed=[said], trace=trace)
    test = result("a.py::b", ("XLS-REVERT-001",), error, status=Status.FAIL, log=said)
    run = run_of(test, said="toy")
    assert results.decode(results.encode(run)) == run
    for name in FORMATS:
        render(run, name).encode()


def test_directories_are_hidden_in_what_was_observed_but_not_in_the_steps() -> None:
    step = do.PutFile(path="/run/root/x")
    trace = do.Trace(
        steps=(step,), failure=do.Failure(step=1, clauses=("A",), summary="s", observed=["/run/root/x"])
    )
    shared = shareable(trace, {"/run/root": "$ROOT"})
    assert shared.failure is not None
    assert shared.failure.observed == ["$ROOT/x"]
    assert shared.steps == (step,)


@pytest.mark.parametrize(("strict", "verdict"), [(False, "conforms"), (True, "does not conform")])
def test_should_clauses_are_told_apart_and_count_when_strict(strict: bool, verdict: str) -> None:
    must = results.ClauseResult(
        id="XLS-LIST-001", level="MUST", chapter="5. List", text="It must.", profiles=("core",)
    )
    should = msgspec.structs.replace(must, id="XLS-LIST-009", level="SHOULD", status=Status.FAIL)
    held = msgspec.structs.replace(must, status=Status.PASS)
    (profile,) = verdicts.summarise_profiles(["core"], [held, should], strict=strict)
    assert profile.verdict == verdict
    apart = "; apart from them 0 of 1 SHOULD and MAY clauses, broken: XLS-LIST-009"
    told = "1 of 2 tested clauses hold, 1 fail" if strict else f"1 of 1 tested clauses hold{apart}"
    assert profile.reason == told
