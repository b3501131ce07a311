# SPDX-License-Identifier: LGPL-2.1-or-later
"""Shards that are merged say what one machine would have said; a lost one costs its own tests only."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from xlsnap_conformance import cli, results
from xlsnap_conformance.clauses import load_clauses
from xlsnap_conformance.merging import merge
from xlsnap_conformance.results import Implementation, Run, Status, TestResult, Verdict, load
from xlsnap_conformance.sharding import recorded_seconds

ONE, TWO, *_ = (
    clause.id for clause in load_clauses().values() if "core" in clause.profiles and clause.level == "MUST"
)
SUITE = f"""
import os, pytest
from xlsnap_conformance.failures import *
clauses = pytest.mark.clauses

@clauses({ONE!r})
@pytest.mark.parametrize("n", range(9))
def test_fixed(n): pass

@clauses({TWO!r})
@pytest.mark.scenarios
@pytest.mark.parametrize("shape", ["x", "y"])
def test_drawn(shape, xlsnap_run, request):
    share = xlsnap_run.shares.get(request.node.nodeid)
    bad = os.environ.get("BAD")
    if bad and shape == "y" and (share is None or int(bad) in share.slices):
        raise ConformanceFailure([{TWO!r}], "found in a slice")
"""
PLUGIN = ("-p", "xlsnap_conformance.plugin", "-p", "no:hypothesispytest", "-p", "no:cacheprovider")
SHARDS = 6


def run_all(directory: Path, of: int, *, drawn_seconds: float = 20.0, only: Sequence[int] = ()) -> list[Run]:
    """Return the reports of the suite on ``of`` machines, where each drawn test takes so many seconds."""
    directory.mkdir()
    (directory / "test_made_up.py").write_text(SUITE)
    times = [
        TestResult(id=f"test_made_up.py::test_fixed[{n}]", status=Status.PASS, seconds=1.0) for n in range(9)
    ]
    times += [
        TestResult(id=f"test_made_up.py::test_drawn[{shape}]", status=Status.PASS, seconds=drawn_seconds)
        for shape in "xy"
    ]
    (directory / "times.json").write_bytes(results.encode(run_with(times)))
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    indexes = only or range(1, of + 1)
    for index in indexes:
        shard = ("--shard", f"{index}/{of}", "--times", "times.json") if of > 1 else ()
        command = [sys.executable, "-m", "pytest", "-q", "--rootdir=.", *PLUGIN, *shard]
        command += ["--xlsnap-seed", "7", "--report", f"out-{index}"]
        subprocess.run(command, cwd=directory, env=environment, stdout=subprocess.DEVNULL, timeout=300)
    return [load(directory / f"out-{index}") for index in indexes]


def run_with(tests: list[TestResult]) -> Run:
    return Run(
        kit="0",
        implementation=Implementation(),
        profile="core",
        seed=7,
        started="2026-01-02T03:04:05+00:00",
        duration=1.0,
        tests=tuple(tests),
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the suite was run on six machines, and alone; one slice of a drawn test fails."""
    parent = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BAD", "1")
        run_all(parent / "shards", SHARDS)
        run_all(parent / "alone", 1)
    return parent


@pytest.fixture
def shards(directory: Path) -> list[Run]:
    return [load(directory / "shards" / f"out-{index}") for index in range(1, SHARDS + 1)]


@pytest.fixture
def alone(directory: Path) -> Run:
    return load(directory / "alone" / "out-1")


def call(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main([str(argument) for argument in arguments])
    assert isinstance(end.value.code, int)
    return end.value.code


def statuses(run: Run) -> dict[str, Status]:
    return {test.name: test.status for test in run.tests}


def test_shards_together_say_what_one_machine_says(alone: Run, shards: list[Run]) -> None:
    whole = merge(shards)
    assert statuses(whole) == statuses(alone)
    assert {c.id: c.status for c in whole.clauses} == {c.id: c.status for c in alone.clauses}
    assert [(p.name, p.verdict) for p in whole.profiles] == [(p.name, p.verdict) for p in alone.profiles]
    assert whole.verdict is alone.verdict is Verdict.DOES_NOT_CONFORM
    assert whole.exit_code == alone.exit_code == 1
    assert whole.selected == ""
    assert whole.shard is None


def test_each_shard_runs_a_part_and_says_that_it_is_not_all(shards: list[Run]) -> None:
    assert all(0 < len(run.tests) < 11 for run in shards)
    assert all(run.verdict is not Verdict.CONFORMS for run in shards)
    assert [run.note for run in shards] == [f"--shard {index}/6" for index in range(1, 7)]


def test_a_lost_shard_costs_its_own_tests_only(shards: list[Run]) -> None:
    whole = merge([shards[0], *shards[2:]])
    lost = {share.id.partition("::")[2] for share in shards[1].shard.division[1]}  # type: ignore[union-attr]
    untold = {name for name, status in statuses(whole).items() if status is Status.HARNESS_ERROR}
    failed = {name for name, status in statuses(whole).items() if status is Status.FAIL}
    assert untold | failed >= lost >= untold
    assert len(whole.tests) == 11
    assert all("shard 2/6" in test.message for test in whole.tests if test.name in untold)
    assert whole.exit_code == 2
    assert whole.verdict is not Verdict.CONFORMS


def test_a_shard_that_was_run_again_takes_the_place_of_the_first(shards: list[Run]) -> None:
    again = msgspec.structs.replace(shards[1], tests=shards[1].tests[:0], started="2000-01-01T00:00:00+00:00")
    assert statuses(merge([*shards, again])) == statuses(merge(shards))
    assert statuses(merge([again, *shards])) == statuses(merge(shards))


def test_a_machine_without_work_is_no_error(tmp_path: Path) -> None:
    busy, idle = run_all(tmp_path / "many", 12, drawn_seconds=0.01, only=(11, 12))
    assert len(busy.tests) == 1
    assert not idle.tests
    assert idle.exit_code == 0
    assert merge([busy, idle]).exit_code == 2, "the reports of ten others are missing"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 8}, "has seed 7, shard 2/6 has 8"),
        ({"profile": "quick"}, "profile"),
        ({"shard": None}, "of a whole run"),
    ],
)
def test_what_does_not_belong_together_is_not_merged(
    shards: list[Run], change: dict[str, object], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        merge([shards[0], msgspec.structs.replace(shards[1], **change)])


def test_shards_that_were_divided_by_other_times_are_not_merged(tmp_path: Path, shards: list[Run]) -> None:
    others = run_all(tmp_path / "others", 2, drawn_seconds=3.0)
    (other,) = (msgspec.structs.replace(run, shard=run.shard) for run in others[1:])
    with pytest.raises(ValueError, match="same --times"):
        merge([shards[0], other])


def test_the_times_of_a_report_are_those_of_its_tests(directory: Path) -> None:
    recorded = recorded_seconds(directory / "shards" / "times.json")
    assert recorded["test_made_up.py::test_drawn[x]"] == 20.0
    assert len(recorded) == 11


def test_the_command_survives_a_report_that_is_garbage(
    tmp_path: Path, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    garbage = tmp_path / "garbage.json"
    garbage.write_text("{")
    reports = [directory / "shards" / f"out-{index}" for index in (1, 2, 4, 5, 6)]
    assert call("merge", *reports, garbage, tmp_path / "missing", "--report", tmp_path / "whole") == 2
    captured = capsys.readouterr()
    assert captured.err.count("its shard counts as lost") == 2
    assert "shard 3/6" in captured.out
    assert len(load(tmp_path / "whole").tests) == 11
    assert (tmp_path / "whole" / "index.html").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", "--shard", "3/2", "--seed", "1"), "no shard 3 of 2"),
        (("run", "--shard", "1/2"), "needs --seed"),
        (("merge", "nope", "--report", "out"), "none of the reports can be read"),
        (("run", "--examples", "redis://127.0.0.1:1/0"), "examples in redis://127.0.0.1:1/0"),
        (("run", "--examples", "/proc/nope/x"), "examples in /proc/nope/x"),
    ],
)
def test_bad_usage_is_told_in_one_line(
    arguments: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert call(*arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1
    assert told in lines[0]
