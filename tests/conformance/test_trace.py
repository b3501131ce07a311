# SPDX-License-Identifier: LGPL-2.1-or-later
"""Traces: files, words, scripts, and the fixed scenarios that come with the suite."""

import json
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xlsnap_conformance import model, snapshot_conf, suite
from xlsnap_conformance import trace as do
from xlsnap_conformance.clauses import load_clauses
from xlsnap_conformance.coverage import clauses_of, counted, needs
from xlsnap_conformance.failures import HarnessError
from xlsnap_conformance.protocol import DiskChoice
from xlsnap_conformance.script import to_shell
from xlsnap_conformance.trace import SCRATCH, DiskOf, DomainOf, Failure, Trace, load, to_json
from xlsnap_conformance.wording import capabilities, describe

SCENARIOS = {path.stem: path for path in sorted((Path(suite.__file__).parent / "scenarios").glob("*.json"))}

EVERYTHING = Trace(
    title="one step of each kind",
    clauses=("XLS-REVERT-003",),
    domain=DomainOf(
        disks=(DiskOf(vdev="hda"), DiskOf(vdev="xvda", readonly=True), DiskOf(vdev="hdc", cdrom=True))
    ),
    steps=(
        do.Set(key="a", value="1"),
        do.Write(vdev="hda", lba=1, word="w"),
        do.PutFile(path=f"{SCRATCH}/it's", content="a 'b'\n$HOME"),
        do.PutLink(path=f"{SCRATCH}/proc"),
        do.Create(name="it's $HOME `x`", description='d"\\', disks=(DiskChoice(vdev="hda"),)),
        do.Create(name="path", memory=f"{SCRATCH}/memory image", as_config=True),
        do.Create(name="path", refused="input"),
        do.Create(dry_run=True),
        do.Create(
            name="out",
            disks=(
                DiskChoice(vdev="hda", type="external", target=f"{SCRATCH}/it's.qcow2", format="qcow2"),
                DiskChoice(vdev="xvda", type="external"),
                DiskChoice(vdev="xvdb"),
            ),
            live=True,
        ),
        do.Create(name="all", type="external", as_config=True),
        do.Pause(),
        do.Unpause(),
        do.Revert(name="it's $HOME `x`", paused=True),
        do.Delete(name="path"),
        do.Delete(name="out", children=True),
        do.Delete(name="out", children_only=True),
        do.List(),
        do.Check(),
        do.PowerCycle(),
        do.Destroy(),
        do.PutTag(vdev="hda", name="it's"),
        do.Lose(name="it's $HOME `x`", what="hda"),
        do.Lose(name="it's $HOME `x`", what="memory"),
        do.Zero(vdev="hda", lba=0, count=128),
        do.Start(paused=True),
        do.Destroy(),
        do.Start(disks=("hda",), first_images=True),
        do.Unpause(),
        do.PowerOff(),
    ),
    failure=Failure(
        step=1, clauses=("XLS-REVERT-003",), summary="it's\nwrong", expected={"a": "1"}, observed=None
    ),
)


def test_everything_has_every_kind_of_step() -> None:
    assert {type(step) for step in EVERYTHING.steps} == set(do.AnyStep.__args__)


def test_a_trace_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_bytes(to_json(EVERYTHING))
    assert load(path) == EVERYTHING
    assert len(json.loads(path.read_text())["steps"]) == len(EVERYTHING.steps)
    assert path.read_text().count("\n    {") == len(EVERYTHING.steps), "one line for each step"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a trace"),
        ("[]", "not a trace"),
        ('{"steps": [{"do": "dance"}]}', r"steps\[0\]"),
        ('{"steps": [{"do": "set"}]}', "missing required field"),
        ('{"format": 2, "steps": []}', "format"),
    ],
)
def test_what_is_wrong_with_a_trace_is_told(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text(text)
    with pytest.raises(HarnessError, match=said) as caught:
        load(path)
    assert str(path) in str(caught.value)
    with pytest.raises(HarnessError, match="cannot read"):
        load(tmp_path / "missing")


def test_every_step_has_words() -> None:
    said = [describe(step) for step in EVERYTHING.steps]
    assert all(said)
    assert len(set(said)) == len(said) - 2  # unpause and destroy are there twice
    assert "create snapshot 'path' with memory: must be refused (input)" in said


def test_capabilities_that_a_trace_needs() -> None:
    assert capabilities(EVERYTHING) == {
        *("memory", "memory-path", "disk-selection", "snapshot-config", "dry-run"),
        *("pause", "revert", "revert-paused", "delete", "shutdown-state"),
        *("external", "mixed", "live", "delete-children"),
    }
    stopped = (do.Create(name="s", memory="no"), do.Destroy(), do.List(), do.Delete(name="s"))
    assert capabilities(Trace(steps=stopped)) == {"disk-only", "list-stopped", "delete", "delete-stopped"}
    assert "list-stopped" not in capabilities(Trace(steps=(do.Destroy(), do.Start(), do.List())))
    assert capabilities(Trace(steps=(do.Create(name="s", type="external"),))) == {"memory", "external"}


def test_a_scenario_that_needs_more_than_core_says_nothing_of_core() -> None:
    for name, path in SCENARIOS.items():
        trace = load(path)
        beyond = {needs(load_clauses()[clause]) for clause in trace.clauses} - {None}
        if beyond or capabilities(trace).intersection(("external", "mixed", "live")):
            assert beyond, f"{name} names a clause of its own"
            for clause in counted(trace):
                assert "core" not in load_clauses()[clause].profiles, (name, clause)
        else:
            assert not any(needs(load_clauses()[clause]) for clause in counted(trace)), name


# --- scripts ------------------------------------------------------------------------------------------------


def test_script_is_one_that_a_shell_can_read() -> None:
    script = to_shell(EVERYTHING)
    subprocess.run(["sh", "-n"], input=script.encode(), check=True)
    for step in EVERYTHING.steps:
        assert " ".join(describe(step).split()) in script
    assert "XLS-REVERT-003: it's wrong" in script


def test_script_does_what_the_steps_say(tmp_path: Path) -> None:
    """With a toolstack that only writes down how it was called: nothing gets lost in the shell."""
    calls = tmp_path / "calls"
    toolstack = tmp_path / "xl"
    toolstack.write_text(
        '#!/bin/sh\nfor word; do printf "<%s>" "$word"; done >>"$CALLS"; echo >>"$CALLS"\n'
        'case $1 in console) cat >>"$CALLS";; esac\n'
        'for word; do case $word in *.conf) cat "$word" >>"$CALLS";; esac; done\n'
        "exit 0\n"
    )
    toolstack.chmod(0o700)
    script = tmp_path / "script.sh"
    steps = tuple(step for step in EVERYTHING.steps if not isinstance(step, do.Lose))  # it makes no tags
    text = to_shell(msgspec.structs.replace(EVERYTHING, steps=steps))
    script.write_text(text.replace("sleep 1", "sleep 0"))
    environment = {
        "PATH": "/usr/bin:/bin",
        "XL": str(toolstack),
        "PROBE_ROM": "/rom",
        "CALLS": str(calls),
        "TMPDIR": str(tmp_path),
    }
    done = subprocess.run(["sh", str(script)], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    said = calls.read_text()
    domain = next(line for line in said.splitlines() if line.startswith("<pause>"))[7:].strip("<>")
    assert domain.startswith("xlsnap-cts-")
    assert f"<snapshot-revert><-p><-n><it's $HOME `x`><{domain}>" in said
    assert f"<snapshot-delete><-n><path><{domain}>" in said
    assert f"<-N><snapshot-create><{domain}>" in said
    assert "<snapshot-create><--live>" in said
    assert f"<snapshot-delete><--children><-n><out><{domain}>" in said
    assert f"<snapshot-delete><--children-only><-n><out><{domain}>" in said
    out = f"format=qcow2,vdev=hda,target={scratch_in(said)}/it's.qcow2"
    assert f'disk = [ "{out}", "vdev=xvda", "vdev=xvdb,target=null" ]' in said
    assert 'name = "it\'s $HOME `x`"\ndescription = "d\\"\\\\"\nmemory = "yes"' in said
    assert f'memory = "{tmp_path}/' in said, "the scratch directory is filled in"
    assert "wr 0 1 w\n" in said
    scratch = next(path for path in tmp_path.iterdir() if path.is_dir())
    assert (scratch / "it's").read_text() == "a 'b'\n$HOME"
    shutil.rmtree(scratch)


def scratch_in(said: str) -> str:
    """The scratch directory, from the first path in it that was told."""
    return said.partition('memory = "/')[2].partition("/memory image")[0].join(("/", ""))


# --- configuration text -------------------------------------------------------------------------------------


@settings(deadline=None)  # the first call makes the parser
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_strings_are_quoted_so_that_the_grammar_gets_them_back(text: str) -> None:
    from xlsnap_grammars import parse_config

    assert parse_config(f"a = {snapshot_conf.quoted(text)}\n") == {"a": text}


def test_configuration_asks_for_what_the_step_says() -> None:
    from xlsnap_grammars import parse_snapshot_config

    step = do.Create(name="n", description="d", memory="/m", disks=(DiskChoice(vdev="hda"),))
    config = parse_snapshot_config(snapshot_conf.text_of(step))
    assert (config.name, config.description, config.memory) == ("n", "d", "/m")
    assert [(disk.vdev, disk.type) for disk in config.disks or ()] == [("hda", "internal")]
    disks = (
        DiskChoice(vdev="hda", type="external", target="/it's, here", format="qcow2"),
        DiskChoice(vdev="hdb", type="external"),
        DiskChoice(vdev="xvda"),
    )
    config = parse_snapshot_config(snapshot_conf.text_of(do.Create(name="n", disks=disks)))
    assert [(disk.vdev, disk.type, disk.target) for disk in config.disks or ()] == [
        ("hda", "external", "/it's, here"),
        ("hdb", "external", None),
        ("xvda", "internal", None),
    ]
    config = parse_snapshot_config(snapshot_conf.text_of(do.Create(name="n", type="external")))
    assert (config.type, config.disks) == ("external", None)


# --- the scenarios of the suite -----------------------------------------------------------------------------


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 12


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_and_model_agree(name: str) -> None:
    """The scenario says which steps are refused, and how; the model says the same."""
    trace = load(SCENARIOS[name])
    assert trace.title
    world = model.World(trace.domain)
    for number, step in enumerate(trace.steps, start=1):
        assert model.possible(world, step), f"step {number}"
        outcome = model.apply(world, step)
        assert step.refused == (outcome.refused.kinds[0] if outcome.refused else None), f"step {number}"
        world = outcome.after


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_is_for_clauses_that_it_can_break(name: str) -> None:
    trace = load(SCENARIOS[name])
    assert trace.clauses, "it says what it is for"
    assert set(trace.clauses) <= load_clauses().keys()
    assert set(trace.clauses) <= set(clauses_of(trace))


def test_refused_steps_are_never_alone() -> None:
    """No scenario consists of refusals: each shows first, or last, that the right request works."""
    for name, path in SCENARIOS.items():
        creates = [step for step in load(path).steps if isinstance(step, do.Create)]
        assert any(step.refused is None for step in creates), name


def test_scenario_files_are_as_they_are_written() -> None:
    for name, path in SCENARIOS.items():
        assert path.read_bytes() == to_json(load(path)), name


def test_a_failure_is_plain_data() -> None:
    assert json.loads(msgspec.json.encode(EVERYTHING))["failure"]["expected"] == {"a": "1"}
