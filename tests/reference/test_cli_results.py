# SPDX-License-Identifier: LGPL-2.1-or-later
"""How the command line shows what the toolstack tells it: progress, warnings, findings."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from xlsnap import cli
from xlsnap.cli.progress import DELAY_SECONDS, LINE_SECONDS, Progress
from xlsnap.findings import MEANING, Finding, Kind
from xlsnap.steps import RemoveMemory
from xlsnap.toolstack import Toolstack

GIB = 1 << 30


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


# --- progress -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_nothing_is_shown_of_a_short_operation(
    capsys: pytest.CaptureFixture[str], stream: Callable[[], io.StringIO]
) -> None:
    clock, output = Clock(), stream()
    with Progress(output, clock) as progress:
        for step in range(10):
            clock.now += DELAY_SECONDS / 10.1
            progress("merging a into b", step, 10)
    assert (output.getvalue(), capsys.readouterr().err) == ("", "")


def test_lines_come_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Progress(io.StringIO(), clock) as progress:
        for second in range(60):
            progress("merging a\x1b into b", second * GIB, 60 * GIB)
            clock.now += 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 60 // LINE_SECONDS
    assert lines[:2] == [
        r"xlsnap: merging a\x1b into b: 1 %",
        r"xlsnap: merging a\x1b into b: 10 %",
    ]


def test_a_size_that_is_not_known_and_one_that_grows(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    progress = Progress(io.StringIO(), clock)
    for done, total in ((0, 0), (5, 0), (7, 6)):
        progress("merging", done, total)
        clock.now += 10
    assert capsys.readouterr().err == "xlsnap: merging\nxlsnap: merging: 100 %\n"


def test_a_terminal_has_a_bar_which_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    clock, terminal = Clock(), Terminal()
    with Progress(terminal, clock) as progress:
        progress("merging [a] into b\x1b]0;x\x07", 0, 100)
        clock.now += 2
        progress("merging [a] into b\x1b]0;x\x07", 40, 100)
        progress("merging c into d", 50, 100)
    shown = terminal.getvalue()
    assert "merging [a] into b\\x1b]0;x\\x07" in shown
    assert "\x1b]0;" not in shown
    assert "50%" in shown
    assert shown.rindex("merging c into d") < shown.rindex("\x1b[2K"), "the bar is not taken away"


def test_without_standard_error_there_is_no_progress() -> None:
    clock = Clock()
    progress = Progress(None, clock)
    progress("merging", 0, 1)
    clock.now += 100
    progress("merging", 1, 1)


# --- delete ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"children": False, "children_only": False}),
        (["--children"], {"children": True, "children_only": False}),
        (["--children-only"], {"children": False, "children_only": True}),
    ],
)
def test_delete_passes_its_options_and_prints_warnings(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    options: list[str],
    expected: dict[str, bool],
) -> None:
    async def deleted(toolstack: Toolstack, ref: str, name: str, **given: Any) -> list[str]:
        assert given.pop("progress") is not None
        assert (ref, name, given) == ("vm", "s", expected)
        return ["a was not merged into b: no space\x1b", "another"]

    monkeypatch.setattr(Toolstack, "snapshot_delete", deleted)
    assert cli.run(["--root", str(tmp_path), "snapshot-delete", *options, "-n", "s", "vm"]) == 0
    assert capsys.readouterr() == (
        "",
        "xlsnap: warning: a was not merged into b: no space\\x1b\nxlsnap: warning: another\n",
    )


# --- check ----------------------------------------------------------------------------------------------

MENDABLE = Finding.of(Kind.MEMORY_INCOMPLETE, "/s.save is not complete", (RemoveMemory(path="/s.save"),))
MENDED = Finding(
    **{**{name: getattr(MENDABLE, name) for name in MENDABLE.__struct_fields__}, "repaired": True}
)
LOST = Finding.of(Kind.TAG_MISSING, "snapshot 's\x1b'")
NOTE = Finding.of(Kind.TAG_UNKNOWN, "'mine' in /a.qcow2")


@pytest.mark.parametrize(
    ("findings", "status", "lines"),
    [
        ([], 0, ["nothing wrong"]),
        ([NOTE], 0, ["note tag-unknown: 'mine' in /a.qcow2", "nothing wrong"]),
        ([MENDED], 0, ["repaired memory-incomplete: /s.save is not complete", "nothing is left, 1 repaired"]),
        (
            [MENDABLE, LOST],
            3,
            [
                "wrong memory-incomplete: /s.save is not complete",
                "wrong tag-missing: snapshot 's\\x1b'",
                "2 wrong, 1 can be repaired with --repair",
            ],
        ),
        (
            [MENDED, LOST],
            3,
            [
                "repaired memory-incomplete: /s.save is not complete",
                "wrong tag-missing: snapshot 's\\x1b'",
                "1 wrong, 1 repaired",
            ],
        ),
    ],
)
def test_what_check_prints(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    findings: list[Finding],
    status: int,
    lines: list[str],
) -> None:
    async def checked(toolstack: Toolstack, ref: str, *, repair: bool = False) -> list[Finding]:
        return findings

    monkeypatch.setattr(Toolstack, "snapshot_check", checked)
    command = ["--root", str(tmp_path), "snapshot-check", "vm"]
    assert cli.run(command) == status
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        f"{line} ({finding.why})" for line, finding in zip(lines, findings, strict=False)
    ] + [lines[-1]]
    assert cli.run([*command, "-o", "json"]) == status
    out, err = capsys.readouterr()
    assert err == ""
    assert [(item["kind"], item["what"], item["repaired"]) for item in json.loads(out)] == [
        (finding.kind.value, finding.what, finding.repaired) for finding in findings
    ]
    assert [item["repair"] for item in json.loads(out) if item["kind"] == "memory-incomplete"] == [
        [{"step": "remove-memory", "path": "/s.save"}] for finding in findings if finding.repair
    ]


@pytest.mark.parametrize(
    ("arguments", "repair"),
    [
        (["snapshot-check", "vm"], False),
        (["snapshot-check", "--repair", "vm"], True),
        (["-N", "snapshot-check", "--repair", "vm"], False),
    ],
)
def test_only_repair_repairs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], repair: bool
) -> None:
    asked = []

    async def checked(toolstack: Toolstack, ref: str, *, repair: bool = False) -> list[Finding]:
        asked.append(repair)
        return []

    monkeypatch.setattr(Toolstack, "snapshot_check", checked)
    assert cli.run(["--root", str(tmp_path), *arguments]) == 0
    assert asked == [repair]


def test_every_kind_says_what_it_means() -> None:
    assert set(MEANING) == set(Kind)
    assert len(set(MEANING.values())) == len(Kind)
    assert not [text for text in MEANING.values() if "\n" in text or text.endswith(".")]
