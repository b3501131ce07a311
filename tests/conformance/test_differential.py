# SPDX-License-Identifier: LGPL-2.1-or-later
"""One trace on several implementations: the same for all, noted without judging, compared fact by fact."""

from __future__ import annotations

from pathlib import Path

import pytest
from xlsnap_conformance import cli
from xlsnap_conformance import trace as do
from xlsnap_conformance.capabilities import CAPABILITIES
from xlsnap_conformance.differential import Difference, differences, draft, foresee
from xlsnap_conformance.shrink import makes_sense
from xlsnap_conformance.wording import capabilities

ALL = frozenset(CAPABILITIES)
TRACE = do.Trace(
    steps=(
        do.Set(key="a", value="1"),
        do.Create(name="one"),
        do.Set(key="a", value="2"),
        do.Create(name="two"),
        do.Create(name="one", refused="input"),
        do.Revert(name="one"),
    )
)


def call(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main([str(argument) for argument in arguments])
    assert isinstance(end.value.code, int)
    return end.value.code


def test_a_drawn_trace_is_the_same_for_the_same_seed() -> None:
    one, again, other = (draft("two-disks", seed, ALL) for seed in (7, 7, 8))
    assert one == again != other
    assert makes_sense(one)


@pytest.mark.parametrize("seed", range(5))
def test_a_drawn_trace_has_snapshots_and_needs_what_all_can_do(seed: int) -> None:
    able = ALL - {"pause", "memory-path", "snapshot-config", "disk-selection", "disk-only"}
    trace = draft("one-disk", seed, able)
    assert capabilities(trace) <= able
    assert any(isinstance(step, do.Create) and not step.refused for step in trace.steps)
    assert "external" in capabilities(draft("external", seed, ALL))


def test_the_model_foresees_what_can_be_seen() -> None:
    facts = foresee(TRACE)
    assert [each["answer"] for each in facts] == ["done"] * 4 + ["refused: input", "done"]
    assert [each["variable a"] for each in facts] == ["1", "1", "2", "2", "2", "1"]
    assert facts[-1]["snapshots"] == "one, two"


def test_differences_are_told_where_they_begin() -> None:
    notes = {
        "model": [{"x": "1", "y": "a"}, {"x": "2", "y": "a"}, {"x": "2", "y": "a"}, {"x": "2", "y": "a"}],
        "mine": [{"x": "1", "y": "a"}, {"x": "3", "y": "a"}, {"x": "3", "y": "a"}],
    }
    assert differences(notes) == [Difference(2, "x", {"model": "2", "mine": "3"})]
    notes["mine"][2] = {"x": "2", "y": "b"}
    assert [(each.step, each.fact) for each in differences(notes)] == [(2, "x"), (3, "y")]


def test_a_list_that_cannot_be_had_is_no_difference() -> None:
    notes = {"model": [{"snapshots": "one"}], "mine": [{"snapshots": "not listed: unsupported"}]}
    assert differences(notes) == []
    assert len(differences({**notes, "other": [{"snapshots": "none"}]})) == 1


def test_the_command_shows_who_does_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "trace.json").write_bytes(do.to_json(TRACE))
    broken = "reference --mutant wrong-memory-after-revert"
    status = call("differ", "--driver", "reference", "--driver", broken, tmp_path / "trace.json")
    out = capsys.readouterr().out
    assert status == 1
    assert "*   6. revert to 'one'" in out
    row = next(line for line in out.splitlines() if line.split()[:3] == ["6", "variable", "a"])
    assert row.split() == ["6", "variable", "a", "1", "1", "2"]


def test_the_command_says_when_all_do_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--driver", "reference", "--shape", "one-disk", "--seed", "5", "--steps", "5")
    assert call("differ", *arguments, "--save", tmp_path / "drawn.json") == 0
    assert "model, reference: no difference" in capsys.readouterr().out
    assert do.load(tmp_path / "drawn.json").steps


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--driver", "reference", "--shape", "round"), "no shape 'round'"),
        (("--driver", "./nope"), "no such program"),
        ((), "Missing option '--driver'"),
    ],
)
def test_bad_usage_is_told_in_one_line(
    arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("differ", *arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert told in captured.err
