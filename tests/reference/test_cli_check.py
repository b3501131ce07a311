# SPDX-License-Identifier: LGPL-2.1-or-later
"""``snapshot-check`` and the deletion of whole branches on a real guest, from the command line."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from xlsnap import steps as do
from xlsnap.journal import Journal
from xlsnap.steps import Plan, PlannedStep
from xlsnap.store import Store

if TYPE_CHECKING:
    from tests.reference.conftest import Shell


def findings(shell: Shell, *options: str, status: int = 0) -> list[dict[str, Any]]:
    result = shell.xlsnap("snapshot-check", *options, "-o", "json", "vm")
    assert (result.status, result.err) == (status, ""), result
    data = json.loads(result.out)
    assert isinstance(data, list)
    return data


@pytest.mark.parametrize("active", [True, False], ids=["active", "stopped"])
def test_where_nothing_is_wrong(shell: Shell, active: bool) -> None:
    external = shell.file("snap.conf", "memory = 'yes'\ntype = 'external'\n")
    shell.do("snapshot-create", "-n", "s", "vm")
    shell.do("snapshot-create", "-n", "t", external, "vm")
    if not active:
        shell.do("destroy", "vm")
    before = shell.files()
    assert shell.do("snapshot-check", "vm") == "nothing wrong\n"
    assert shell.do("snapshot-check", "--repair", "vm") == "nothing wrong\n"
    assert shell.files() == before


def test_what_can_be_repaired_is_and_the_guest_does_not_notice(shell: Shell) -> None:
    shell.do("snapshot-create", "-n", "s", "vm")
    shell.do("snapshot-create", "-n", "t", "vm")
    (directory,) = shell.root.path.glob("snapshots/*")
    (directory / "snapshotdata-d.t.libxl-json").rename(directory / "snapshotdata-n.t.libxl-json")
    (directory / "t.save").unlink()
    before = shell.everything()
    (found, *_) = findings(shell, status=3)
    assert (found["kind"], found["repaired"]) == ("snapshot-incomplete", False)
    assert "t.save" in found["what"]
    findings(shell, status=3)
    assert shell.everything() == before
    (found, *_) = findings(shell, "--repair")
    assert (found["kind"], found["repaired"]) == ("snapshot-incomplete", True)
    assert shell.do("snapshot-check", "vm") == "nothing wrong\n"
    assert (shell.names(), shell.tags()) == (["s"], ["s"])
    assert sorted(os.listdir(directory)) == ["s.save", "snapshotdata-d.s.libxl-json"]
    with shell.probe() as probe:
        assert probe.get("word") == "one"
    shell.do("snapshot-revert", "-n", "s", "vm")


def test_what_cannot_be_repaired_is_told_and_left(shell: Shell) -> None:
    shell.do("snapshot-create", "-n", "s", "vm")
    shell.do("destroy", "vm")
    image = str(shell.directory / "a.qcow2")
    subprocess.run(["qemu-img", "snapshot", "-q", "-d", "s", image], check=True)
    subprocess.run(["qemu-img", "snapshot", "-q", "-c", "mine", image], check=True)
    before = shell.files()
    for options in ([], ["--repair"]):
        result = shell.xlsnap("snapshot-check", *options, "vm")
        assert (result.status, result.err) == (3, "")
        wrong, note, count = result.out.splitlines()
        assert wrong.startswith(f"wrong tag-missing: snapshot 's': no snapshot is named 's' in {image} (")
        assert note.startswith(f"note tag-unknown: 'mine' in {image} (")
        assert count == "1 wrong"
    assert shell.files() == before
    shell.do("snapshot-delete", "-n", "s", "vm")


def test_an_interrupted_operation_is_told_and_finished_by_repair(shell: Shell) -> None:
    shell.do("snapshot-create", "-n", "s", "vm")
    store = Store(shell.root)
    paths = shell.root.domain(store.find("vm"))
    hide = PlannedStep(do.HideMetadata(name="s"), do.ShowMetadata(name="s"))
    journal = Journal(paths.journal)
    journal.open(Plan(operation="delete", snapshot="s", steps=(hide,)))
    journal.begin(0)
    journal.close(keep=True)
    store.hide_metadata(paths, "s")
    kinds = [finding["kind"] for finding in findings(shell, status=3)]
    assert kinds == ["interrupted", "snapshot-hidden"]
    assert store.hidden_names(paths.uuid) == ["s"]
    assert findings(shell, "--repair") == []
    assert shell.names() == ["s"]


@pytest.mark.parametrize(
    ("option", "left"), [("--children", ["a", "d"]), ("--children-only", ["a", "b", "d"])]
)
def test_a_branch_is_deleted(shell: Shell, option: str, left: list[str]) -> None:
    """The tree is a (b (c), d)."""
    for name in ("a", "b", "c"):
        shell.do("snapshot-create", "-n", name, "vm")
    shell.do("snapshot-revert", "-n", "a", "vm")
    shell.do("snapshot-create", "-n", "d", "vm")
    assert shell.do("snapshot-list", "--tree", "vm") == ("a\n|- b\n|  `- c\n`- d *\n   `- (now)\n")
    result = shell.xlsnap("snapshot-delete", option, "-n", "b", "vm")
    assert result == (0, "", "")
    assert shell.names() == shell.tags() == left
    assert shell.do("snapshot-check", "vm") == "nothing wrong\n"
    shell.refused(2, "no snapshot 'c'", "snapshot-delete", option, "-n", "c", "vm")


def test_a_live_snapshot_or_a_reason_why_not(shell: Shell) -> None:
    result = shell.xlsnap("snapshot-create", "--live", "-n", "s", "vm")
    if result.status == 0:
        assert (shell.names(), result.err) == (["s"], "")
        shell.do("snapshot-revert", "-n", "s", "vm")
        with shell.probe() as probe:
            assert probe.get("word") == "one"
    else:
        assert (result.status, result.err.count("\n"), shell.names()) == (4, 1, [])
