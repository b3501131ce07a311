# SPDX-License-Identifier: LGPL-2.1-or-later
"""The file of what is known to fail: what it needs to say, what it excuses, when it is out of date."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from xlsnap_conformance import known, results
from xlsnap_conformance.failures import HarnessError
from xlsnap_conformance.known import Condition, Entry, Known
from xlsnap_conformance.results import ClauseResult, Evidence, Implementation, Status, TestResult

HERE = Implementation(name="libvirt", version="9.0.0", edition="v4")
URL = "https://example.org/1"


def entry(**members: object) -> Entry:
    return msgspec.convert({"reason": "so it is", "url": URL, **members}, Entry)


def failure(test: str = "test_a", *broken: str, message: str = "wrong") -> TestResult:
    broken = broken or ("XLS-A-001", "XLS-B-001")
    return TestResult(
        id=f"f.py::{test}",
        status=Status.FAIL,
        clauses=broken,
        broken=broken,
        message=message,
        evidence=Evidence(observed="it was blue"),
    )


def passed(test: str, *clauses: str) -> TestResult:
    return TestResult(id=f"f.py::{test}", status=Status.PASS, clauses=clauses)


FITTING = {
    "clause": entry(clause="XLS-A-001"),
    "test": entry(test="test_a"),
    "message": entry(clause="XLS-A-001", message="ron"),
    "observed": entry(clause="XLS-A-001", message="it was blue"),
    "version": entry(clause="XLS-A-001", when={"implementation": "libvirt", "version": ">=9,<9.1"}),
}
NOT_FITTING = {
    "second clause": entry(clause="XLS-B-001"),  # the nearest one is what broke
    "other test": entry(test="test_ab"),
    "other message": entry(clause="XLS-A-001", message="else"),
    "other version": entry(clause="XLS-A-001", when={"version": ">=9.1"}),
    "other implementation": entry(clause="XLS-A-001", when={"implementation": "xl"}),
    "other edition": entry(clause="XLS-A-001", when={"edition": "V9"}),
    "other status": entry(clause="XLS-A-001", status="unsupported"),
}


@pytest.mark.parametrize("which", FITTING)
def test_what_fits_becomes_known_and_says_why(which: str) -> None:
    judged = Known((FITTING[which],)).judge(failure(), HERE)
    assert judged.status is Status.KNOWN
    assert judged.message == f"wrong (known: so it is; {URL})"
    assert judged.broken == failure().broken


@pytest.mark.parametrize("which", NOT_FITTING)
def test_what_does_not_fit_stays_a_failure(which: str) -> None:
    assert Known((NOT_FITTING[which],)).judge(failure(), HERE) == failure()


def test_a_version_that_is_none_meets_no_condition() -> None:
    assert not Condition(version=">=1").holds(Implementation(version="unknown"))
    assert Condition().holds(Implementation(version="unknown"))


CLAUSES = [ClauseResult(id="XLS-A-001", level="MUST", chapter="a", text="a", status=Status.PASS)]


@pytest.mark.parametrize(
    ("about", "complete", "stale"),
    [
        (entry(clause="XLS-A-001"), True, True),
        (entry(clause="XLS-A-001"), False, False),  # the test that fails may not have run
        (entry(clause="XLS-A-001", sometimes=True), True, False),
        (entry(clause="XLS-OTHER-1"), True, False),  # nothing was said of it
        (entry(test="test_a"), False, True),
        (entry(test="test_other"), True, False),
        (entry(clause="XLS-A-001", when={"version": ">9.1"}), True, False),
    ],
)
def test_an_unexpected_pass_makes_an_entry_out_of_date(about: Entry, complete: bool, stale: bool) -> None:
    file = Known((about,))
    tests = [passed("test_a", "XLS-A-001")]
    assert bool(file.out_of_date(tests, CLAUSES, HERE, complete=complete)) == stale


def test_an_entry_that_was_met_is_not_out_of_date() -> None:
    file = Known((entry(clause="XLS-A-001"),))
    file.judge(failure(), HERE)
    assert not file.out_of_date([passed("test_b", "XLS-A-001")], CLAUSES, HERE, complete=True)


BAD = {
    "no TOML": ("[[known", "Expected"),
    "no reason": (f'[[known]]\nclause = "A"\nurl = "{URL}"\n', "missing required field `reason`"),
    "empty reason": (f'[[known]]\nclause = "A"\nreason = " "\nurl = "{URL}"\n', "entry 1 (A): reason: say"),
    "no url": ('[[known]]\nclause = "A"\nreason = "x"\n', "missing required field `url`"),
    "url of nothing": ('[[known]]\ntest = "t"\nreason = "x"\nurl = "later"\n', "entry 1 (t): url: say where"),
    "about nothing": (f'[[known]]\nreason = "x"\nurl = "{URL}"\n', "names neither a clause nor a test"),
    "unknown key": (f'[[known]]\nclaus = "A"\nreason = "x"\nurl = "{URL}"\n', "unknown field `claus`"),
    "no version": (
        f'[[known]]\ntest = "t"\nreason = "x"\nurl = "{URL}"\nwhen = {{ version = "9.x or so" }}\n',
        "is no condition on a version",
    ),
    "status of nobody": (
        f'[[known]]\ntest = "t"\nreason = "x"\nurl = "{URL}"\nstatus = "pass"\n', "Invalid enum value 'pass'"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_file_that_cannot_be_used_is_refused(what: str, tmp_path: Path) -> None:
    text, words = BAD[what]
    (tmp_path / "e.toml").write_text(text)
    with pytest.raises(HarnessError) as caught:
        known.load(tmp_path / "e.toml")
    assert words in str(caught.value)
    assert "e.toml" in str(caught.value)


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    entries = (
        entry(clause="XLS-A-001", message='say "x" \\ \x7f ☃\n', when={"version": "==9.0.0"}, sometimes=True),
        entry(test="test_a[b]", status="unsupported"),
    )
    (tmp_path / "e.toml").write_text(known.text_of(entries, "# why\n# and how"))
    again = known.load(tmp_path / "e.toml")
    assert again.entries == entries
    assert again.head == "# why\n# and how"


def test_update_keeps_what_holds_and_adds_what_is_new() -> None:
    old, held = entry(clause="XLS-OLD-1"), entry(clause="XLS-A-001")
    new = known.updated(Known((old, held)), [failure("test_new", "XLS-NEW-1")], [old], HERE)
    assert new[0] is held
    assert (new[1].clause, new[1].test, new[1].message) == ("XLS-NEW-1", "test_new", "wrong")
    assert new[1].when == Condition(implementation="libvirt", version="==9.0.0")
    assert len(new) == 2


def test_files_that_come_with_the_kit_can_be_used() -> None:
    drivers = Path(known.__file__).parent / "drivers"
    files = sorted(drivers.glob("*/*.toml"))
    assert files
    for file in files:
        assert known.load(file).entries


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "xlsnap_conformance",
        "run",
        "--seed",
        "1",
        "-k",
        "names-like-ids",
        *arguments,
    ]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, env={**os.environ, "NO_COLOR": "1"}
    )


def test_a_run_with_expectations(tmp_path: Path) -> None:
    """A failure is written down, is of no use without a URL, is known then, and gets out of date."""
    file = tmp_path / "e.toml"
    broken = ("--driver", "reference --mutant name-taken-for-id")
    rewritten = run(*broken, "--expectations", str(file), "--update-expectations")
    assert rewritten.returncode == 1, rewritten.stdout + rewritten.stderr
    refused = run(*broken, "--expectations", str(file))
    assert refused.returncode == 2
    assert "reason: say why this fails" in refused.stderr

    text = (
        file.read_text()
        .replace('reason = ""', 'reason = "it is a mutant"')
        .replace('url = ""', f'url = "{URL}"')
    )
    file.write_text(text)
    report = tmp_path / "report"
    excused = run(*broken, "--expectations", str(file), "--report", str(report))
    assert excused.returncode == 0, excused.stdout + excused.stderr
    (test,) = results.load(report).tests
    assert test.status is Status.KNOWN
    assert "it is a mutant" in test.message

    file.write_text("\n".join(line for line in file.read_text().splitlines() if not line.startswith("when")))
    stale = run("--expectations", str(file))
    assert stale.returncode == 2, stale.stdout + stale.stderr
    assert "was expected to be fail, and was not" in " ".join(stale.stdout.split())
