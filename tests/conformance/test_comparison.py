# SPDX-License-Identifier: LGPL-2.1-or-later
"""Several runs side by side: nothing is lost, what differs is seen, and nothing that is told does harm."""

from __future__ import annotations

import io
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest
from xlsnap_conformance import cli
from xlsnap_conformance.report import render, write
from xlsnap_conformance.report.comparison import compare, html_page, markdown, table
from xlsnap_conformance.report.terminal import console
from xlsnap_conformance.results import (
    ClauseResult,
    Implementation,
    ProfileResult,
    Run,
    Status,
    Verdict,
)

HOSTILE = "<script>alert(1)</script>|`x`"


def run_of(name: str, *statuses: Status | None, verdict: Verdict = Verdict.CONFORMS) -> Run:
    clauses = tuple(
        ClauseResult(
            id=f"XLS-REVERT-{number:03}", level="MUST", chapter="6. Revert", text="T.", status=status
        )
        for number, status in enumerate(statuses, start=1)
    )
    return Run(
        kit="0",
        implementation=Implementation(name=name, version="1"),
        profile="core",
        seed=7,
        started="2026-01-02T03:04:05+00:00",
        duration=1.0,
        profiles=(ProfileResult(name="core", verdict=verdict, reason="why"),),
        clauses=clauses,
    )


ONE = run_of("one", Status.PASS, Status.PASS, None)
TWO = run_of(HOSTILE, Status.PASS, Status.FAIL, Status.PASS, verdict=Verdict.DOES_NOT_CONFORM)


def test_what_differs_is_what_two_judged_differently() -> None:
    comparison = compare([ONE, TWO])
    assert [row.statuses for row in comparison.rows] == [
        (Status.PASS, Status.PASS),
        (Status.PASS, Status.FAIL),
        (None, Status.PASS),
    ]
    assert [row.clause.id for row in comparison.differing] == ["XLS-REVERT-002"]
    assert comparison.profiles == {"core": (Verdict.CONFORMS, Verdict.DOES_NOT_CONFORM)}


def test_runs_of_one_name_are_told_apart() -> None:
    later = msgspec.structs.replace(ONE, started="2026-02-03T04:05:06+00:00")
    assert compare([ONE, later]).names == ("one 1, 2026-01-02 03:04", "one 1, 2026-02-03 04:05")
    assert compare([ONE, TWO]).names[0] == "one 1"


def test_a_comparison_needs_two() -> None:
    with pytest.raises(ValueError, match="two reports"):
        compare([ONE])


def test_the_page_shows_all_and_runs_nothing() -> None:
    page = html_page(compare([ONE, TWO]))
    for text in ("XLS-REVERT-001", "XLS-REVERT-003", "does not conform", "1 of 3 clauses differ"):
        assert text in page
    assert "<script" not in page
    assert "default-src 'none'" in page


def test_text_shows_what_differs() -> None:
    told = markdown(compare([ONE, TWO]))
    assert "| XLS-REVERT-002 | pass | fail |" in told
    assert "XLS-REVERT-001" not in told
    assert "\\<script" in told, "Markdown takes it for text"
    stream = io.StringIO()
    table(console(stream), compare([ONE, TWO]))
    assert "1 of 3 clauses differ" in stream.getvalue()
    assert "XLS-REVERT-002" in stream.getvalue()


def test_the_command_compares_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, run in (("one", ONE), ("two", TWO)):
        write(run, tmp_path / name)
    page = tmp_path / "page.html"
    paths = [str(tmp_path / "one"), str(tmp_path / "two" / "report.json")]
    for arguments in ([], ["--format", "markdown"], ["--format", "html", "-o", str(page)]):
        with pytest.raises(SystemExit) as end:
            cli.main(["compare", *paths, *arguments])
        assert end.value.code == 0
    assert "1 of 3 clauses differ" in capsys.readouterr().out
    assert "XLS-REVERT-002" in page.read_text()


@pytest.mark.parametrize("run", [ONE, TWO])
def test_the_badge_says_profile_and_verdict(run: Run) -> None:
    drawn = render(run, "badge")
    root = ET.fromstring(drawn)
    shown = [element.text for element in root.iter() if element.tag.endswith("}text")]
    assert shown == ["xlsnap core", run.verdict]
