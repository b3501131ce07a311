# SPDX-License-Identifier: LGPL-2.1-or-later
"""The benchmarks' rows and runner, on made-up figures: no time is measured here."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rows import Row, best_of, format_seconds, median_of, print_rows

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize(
    ("ours", "baseline", "goal", "met"),
    [
        (1.2, 1.0, "<= 1.2x", True),
        (1.3, 1.0, "<= 1.2x", False),
        (1.3, 1.0, "≤ 1.2x", False),
        (0.150, None, "<= 150 ms", True),
        (0.151, None, "<= 150 ms", False),
        (2.1, None, "<= 2 s", False),
        (1.6, 1.0, ">= 60 % rate", True),
        (1.7, 1.0, ">= 60 % rate", False),
        (1.7, 1.0, "", None),
    ],
)
def test_a_goal_is_met_or_missed(ours: float, baseline: float | None, goal: str, met: bool | None) -> None:
    assert Row("name", ours, baseline, goal).met is met


@pytest.mark.parametrize(
    "goal", ["<= 1.2", "< 1.2x", "1.2x", "<= 1.2x or so", ">= 60 %", "<= x", "<= 1.2.3x"]
)
def test_a_misspelt_goal_is_an_error(goal: str) -> None:
    with pytest.raises(ValueError, match=r"^name: goal "):
        Row("name", 1.0, 1.0, goal)


def test_a_comparison_needs_a_baseline() -> None:
    with pytest.raises(ValueError, match="needs a baseline"):
        Row("name", 1.0, goal="<= 1.2x")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4.7e-6, "4.7 µs"),
        (0.0125, "12.5 ms"),
        (0.526, "526 ms"),
        (1.08, "1.08 s"),
        (133.3, "133 s"),
        (None, "-"),
    ],
)
def test_durations_have_the_unit_that_suits_them(seconds: float | None, text: str) -> None:
    assert format_seconds(seconds) == text


def test_the_plain_table_has_one_aligned_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows("Title", [Row("create", 0.012, 0.010, "<= 1.2x"), Row("start", 0.2, goal="<= 150 ms")])
    assert capsys.readouterr().out.splitlines() == [
        "Title",
        "          ours    baseline  ratio  goal",
        "  create  12 ms   10 ms     1.20   <= 1.2x    met",
        "  start   200 ms  -         -      <= 150 ms  MISSED",
    ]


@pytest.mark.parametrize("measure", [best_of, median_of])
def test_an_action_runs_as_often_as_asked(measure: Callable[..., float]) -> None:
    calls: list[None] = []
    assert measure(lambda: calls.append(None), repeats=3, number=4) >= 0
    assert len(calls) == 12


SCRIPT = """
from rows import Row, main

def measure():
    yield Row("{name}", {ours}, 1.0, "<= 1.2x")
    {then}

main("{name}", measure)
"""


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    for name in ("rows.py", "run.py"):
        shutil.copy(HERE / name, tmp_path)
    (tmp_path / "bench_quick.py").write_text(SCRIPT.format(name="quick", ours=1.0, then=""))
    (tmp_path / "bench_slow.py").write_text(SCRIPT.format(name="slow", ours=2.0, then=""))
    return tmp_path


def run(bench: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [sys.executable, bench / "run.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_runner_runs_every_script_and_counts_goals_without_failing(bench: Path) -> None:
    done = run(bench, "--json", str(bench / "all.json"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("2 ran, 0 failed; 1 of 2 goals met.\n")
    tables = json.loads((bench / "all.json").read_text())
    assert [(table["title"], table["rows"][0]["ratio"]) for table in tables] == [
        ("quick", 1.0),
        ("slow", 2.0),
    ]


def test_the_runner_runs_the_chosen_script(bench: Path) -> None:
    done = run(bench, "slow")
    assert "slow" in done.stdout
    assert "quick" not in done.stdout


def test_the_runner_knows_no_other_name(bench: Path) -> None:
    done = run(bench, "fast")
    assert done.returncode == 2
    assert "no benchmark 'fast'; there are quick, slow" in done.stderr


def test_a_script_that_breaks_does_not_stop_the_others_but_fails_the_run(bench: Path) -> None:
    (bench / "bench_quick.py").write_text(
        SCRIPT.format(name="quick", ours=1.0, then="raise SystemExit('no QEMU')")
    )
    done = run(bench)
    assert done.returncode == 1
    assert "no QEMU" in done.stderr
    assert "bench_quick.py failed" in done.stderr
    assert "1 ran, 1 failed; 0 of 1 goals met." in done.stdout
