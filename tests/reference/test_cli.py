# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line on real guests: what commands do, and exactly what they print."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from xlsnap import cli
from xlsnap.cli.text import json_text, local_time, shown, table
from xlsnap.snapshot import PARENT_KEY, DiskSnapshot, DomainSnapshot, SnapshotType, to_json
from xlsnap.store import Store

if TYPE_CHECKING:
    from tests.reference.conftest import Shell


# --- domains --------------------------------------------------------------------------------------------


def test_list_has_the_columns_of_xl(shell: Shell) -> None:
    shell.do("pause", "vm")
    cpu = re.compile(r" +\d+\.\d$", re.MULTILINE)
    assert cpu.sub(" CPU", shell.do("list")) == (
        "Name                                        ID   Mem VCPUs\tState\tTime(s)\n"
        "vm                                           1     1     1     --p--- CPU\n"
    )
    assert shell.do("domid", "vm") == "1\n"
    (row,) = json.loads(shell.do("list", "-o", "json"))
    assert set(row) == {"name", "uuid", "domid", "memory_mib", "vcpus", "run_state", "cpu_seconds"}
    (row,) = json.loads(shell.do("list", "-l", row["uuid"]))
    assert row["config"]["disks"][0]["target"] == str(shell.directory / "a.qcow2")


def test_a_stopped_domain_is_listed_when_it_is_asked_for(shell: Shell) -> None:
    shell.do("snapshot-create", "-n", "s", "vm")
    shell.do("destroy", "vm")
    assert shell.do("list").count("\n") == 1
    row = "vm                                           -     1     1     ------       0.0\n"
    assert shell.do("list", "vm").endswith(row)
    assert shell.do("list", "--all").endswith(row)
    assert "s " in shell.do("snapshot-list", "vm")
    shell.do("create", "-q", shell.config)
    assert shell.do("domid", "vm") == "2\n"  # a new id each time, but the same snapshots
    assert shell.names() == ["s"]
    shell.do("snapshot-delete", "-n", "s", "vm")
    shell.do("destroy", "vm")
    assert shell.do("list", "--all").count("\n") == 1
    assert not list(shell.root.domains.iterdir())


def test_pause_and_unpause(shell: Shell) -> None:
    shell.do("pause", "vm")
    shell.do("pause", "vm")
    assert "--p---" in shell.do("list", "vm")
    shell.do("unpause", "vm")
    assert re.search(r" [rb]-----|-b---- ", shell.do("list", "vm"))
    with shell.probe() as probe:
        assert probe.get("word") == "one"


def test_create_paused_and_overrides(shell: Shell) -> None:
    shell.do("destroy", "vm")
    result = shell.xlsnap("create", "-p", shell.config, 'name="other"', "memory=2")
    assert (result.status, result.out) == (0, "")
    assert result.err == f"Parsing config from {shell.config}\n"
    (row,) = json.loads(shell.do("list", "-o", "json"))
    assert (row["name"], row["memory_mib"], row["run_state"]) == ("other", 2, "p")
    data = json.loads(shell.do("create", "-n", shell.config, "vcpus=3"))
    assert data["vcpus"] == 3


@pytest.mark.parametrize(("options", "state"), [([], None), (["-c"], "r"), (["-p"], "p")])
def test_save_and_restore(shell: Shell, options: list[str], state: str | None) -> None:
    path = str(shell.directory / "vm.save")
    shell.do("save", *options, "vm", path)
    rows = json.loads(shell.do("list", "-o", "json"))
    assert [row["run_state"] for row in rows] == ([] if state is None else [state])
    if state is not None:
        shell.do("destroy", "vm")
    shell.do("restore", "-p", path)
    assert "--p---" in shell.do("list", "vm")
    shell.do("unpause", "vm")
    with shell.probe() as probe:
        assert probe.get("word") == "one"
    shell.do("destroy", "vm")
    other = shell.file("other.cfg", Path(shell.config).read_text().replace('"vm"', '"other"'))
    shell.do("restore", other, path)
    assert [row["name"] for row in json.loads(shell.do("list", "-o", "json"))] == ["other"]


# --- snapshots ------------------------------------------------------------------------------------------


def test_a_session(shell: Shell) -> None:
    config = shell.file(
        "snap.conf", 'name = "with space"\ndescription = "why"\nmemory = "yes"\ndisk = [ "vdev=hda" ]\n'
    )
    assert shell.do("snapshot-create", config, "vm") == ""
    assert shell.do("snapshot-create", "-D", "-n", "disks", shell.do("domid", "vm").strip()) == ""
    automatic = re.fullmatch(r"Domain snapshot (\d+) created\n", shell.do("snapshot-create", "vm"))
    assert automatic is not None
    assert abs(int(automatic[1]) - time.time()) < 60
    assert shell.names() == ["with space", "disks", automatic[1]]

    with shell.probe() as probe:
        probe.set("word", "two")
    shell.do("snapshot-revert", "-p", "-n", "with space", "vm")
    assert "--p---" in shell.do("list", "vm")
    shell.do("unpause", "vm")
    with shell.probe() as probe:
        assert (probe.get("word"), probe.read(0, 1)) == ("one", "one")
        probe.set("word", "three")
    shell.do("snapshot-revert", "-n", "disks", "vm")
    with shell.probe() as probe:
        assert (probe.get("word"), probe.read(0, 1)) == (None, "one")  # a power cycle
    shell.do("snapshot-revert", "-n", automatic[1], "vm")
    with shell.probe() as probe:
        assert probe.get("word") == "one"
    for name in shell.names():
        shell.do("snapshot-delete", "-n", name, "vm")
    assert shell.tags() == []
    assert shell.do("snapshot-list", "vm") == "TAG  NAME  DATE  STATE  DISK ONLY\n"
    assert shell.do("snapshot-list", "-l", "vm") == ""
    assert shell.do("snapshot-list", "-o", "json", "vm") == "[]\n"


def test_a_relative_configuration_is_relative_to_the_working_directory(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.file("snap.conf", 'name = "here"\n')
    monkeypatch.chdir(shell.directory)
    shell.do("snapshot-create", "snap.conf", "vm")
    assert shell.names() == ["here"]


def test_warnings_of_a_configuration_go_to_standard_error(shell: Shell) -> None:
    config = shell.file("snap.conf", 'name = "s"\ncreationtime = 1\n')
    result = shell.xlsnap("snapshot-create", config, "vm")
    assert (result.status, result.out) == (0, "")
    assert result.err.startswith(f"xlsnap: warning: {config}:2:1: ")


def test_configuration_and_options_that_agree(shell: Shell) -> None:
    config = shell.file("snap.conf", 'name = "s"\ndescription = "d"\n')
    data = json.loads(shell.do("snapshot-create", "-N", "-D", "-n", "s", config, "vm"))
    assert (data["name"], data["description"], "memory" in data) == ("s", "d", False)


def test_the_dry_run_shows_the_snapshot_and_makes_none(shell: Shell) -> None:
    before = shell.everything()
    for arguments in (("-N", "snapshot-create"), ("snapshot-create", "-N")):
        data = json.loads(shell.do(*arguments, "-n", "x", "vm"))
        assert (data["name"], data["type"], data["running"]) == ("x", "internal", True)
        assert [disk["device"] for disk in data["disks"]] == ["hda"]
    assert shell.do("-N", "snapshot-list", "vm").count("\n") == 1
    assert shell.everything() == before
    shell.do("snapshot-create", "-n", "x", "vm")
    shell.refused(2, "already has a snapshot 'x'", "-N", "snapshot-create", "-n", "x", "vm")


SNAPSHOTS = (
    DomainSnapshot(
        name="before update",
        description="line 1\nline 2",
        creation_time=1404950400,
        memory="/state/before update.save",
        paused=True,
        disks=(DiskSnapshot(device="hda", name="before update", path="/a.qcow2", format="qcow2"),),
    ),
    DomainSnapshot(
        name="日本",
        creation_time=1404950401,
        running=True,
        type=SnapshotType.EXTERNAL,
        disks=(
            DiskSnapshot(
                device="xvda",
                name="日本",
                path="/b.img",
                format="raw",
                type=SnapshotType.EXTERNAL,
                file="/b.日本.qcow2",
            ),
        ),
        extra={PARENT_KEY: "before update"},
    ),
)


def set_current(shell: Shell, name: str | None) -> None:
    """Let the domain's state come from a snapshot."""
    store = Store(shell.root)
    store.write_record(msgspec.structs.replace(store.resolve("vm"), current=name))


def write_metadata(shell: Shell, *snapshots: DomainSnapshot) -> None:
    store = Store(shell.root)
    paths = shell.root.domain(store.find("vm"))
    for snapshot in snapshots:
        store.write_metadata(paths, snapshot.name, to_json(snapshot))


def child(name: str, parent: str | None, when: int) -> DomainSnapshot:
    extra = {} if parent is None else {PARENT_KEY: parent}
    return DomainSnapshot(name=name, creation_time=when, extra=extra)


def test_what_snapshot_list_prints(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    (uuid,) = (path.name for path in shell.root.domains.iterdir())
    paths = shell.root.domain(uuid)
    paths.snapshots.mkdir(parents=True)
    for snapshot in reversed(SNAPSHOTS):
        paths.metadata(snapshot.name).write_bytes(to_json(snapshot))
    set_current(shell, "日本")
    try:
        assert shell.do("snapshot-list", "vm") == (
            "TAG  NAME           DATE                 STATE   DISK ONLY\n"
            "1    before update  2014-07-10 00:00:00  --p---  no\n"
            "2    日本           2014-07-10 00:00:01  r-----  yes\n"
        )
        assert shell.do("snapshot-list", "--long", "vm") == (
            "name:          before update\n"
            "description:   line 1\\nline 2\n"
            "creation time: 2014-07-10 00:00:00\n"
            "state:         --p---\n"
            "disk only:     no\n"
            "memory image:  /state/before update.save\n"
            "parent:        -\n"
            "current:       no\n"
            "disks:\n"
            "  hda: internal, qcow2, /a.qcow2\n"
            "\n"
            "name:          日本\n"
            "description:\n"
            "creation time: 2014-07-10 00:00:01\n"
            "state:         r-----\n"
            "disk only:     yes\n"
            "memory image:  -\n"
            "parent:        before update\n"
            "current:       yes\n"
            "disks:\n"
            "  xvda: external, raw, /b.img, file /b.日本.qcow2\n"
        )
        assert json.loads(shell.do("snapshot-list", "-o", "json", "vm")) == [
            {**json.loads(to_json(snapshot)), "current": snapshot is SNAPSHOTS[1]} for snapshot in SNAPSHOTS
        ]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_tree(shell: Shell) -> None:
    assert shell.do("snapshot-list", "--tree", "vm") == ""
    write_metadata(
        shell, child("a", None, 1), child("b", "a", 2), child("c\u202e", "a", 3), child("d", "x", 4)
    )
    set_current(shell, "b")
    assert shell.do("snapshot-list", "--tree", "vm") == (
        "a\n|- b *\n|  `- (now)\n`- c\\u202e\nd  (it came from 'x', which does not exist)\n"
    )
    set_current(shell, None)
    assert shell.do("snapshot-list", "--tree", "vm").endswith("not exist)\n(now)\n")


@pytest.mark.parametrize(
    ("variables", "lines"),
    [
        ({"LC_ALL": "C.UTF-8"}, ["a *", "└─ (now)"]),
        ({"LC_ALL": "C"}, ["a *", "`- (now)"]),
        ({"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"}, ["a *", "`- (now)"]),
    ],
    ids=["utf-8", "c", "ascii"],
)
def test_the_tree_is_drawn_as_the_terminal_can(
    shell: Shell, variables: dict[str, str], lines: list[str]
) -> None:
    write_metadata(shell, child("a", None, 1))
    set_current(shell, "a")
    output = on_terminal(shell.command("snapshot-list", "--tree", "vm"), **variables)
    assert output.split("\r\n")[:2] == lines


def on_terminal(command: list[str], **variables: str) -> str:
    """Run a command on a terminal of its own and return what it shows."""
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            command, env={**os.environ, **variables}, stdin=theirs, stdout=theirs, stderr=theirs
        ) as process:
            os.close(theirs)
            shown = b""
            while True:
                try:
                    part = os.read(ours, 65536)
                except OSError:  # the terminal's other end is closed
                    break
                if not part:
                    break
                shown += part
            assert process.wait(60) == 0
    finally:
        os.close(ours)
    return shown.decode()


def test_a_damaged_snapshot_hides_no_other(shell: Shell) -> None:
    write_metadata(shell, child("bad", None, 1), child("good", "bad", 2))
    (path,) = shell.root.path.glob("snapshots/*/snapshotdata-d.bad.libxl-json")
    path.write_text('{"name"')
    for arguments in ([], ["-l"], ["-o", "json"], ["--tree"]):
        result = shell.xlsnap("snapshot-list", *arguments, "vm")
        assert (result.status, "good" in result.out) == (0, True), arguments
        assert re.fullmatch(rf"xlsnap: warning: snapshot 'bad' cannot be read: {path}: .*\n", result.err)
    assert shell.do("snapshot-list", "--tree", "vm") == "bad  (its metadata is damaged)\n`- good\n(now)\n"
    result = shell.xlsnap("snapshot-list", "-n", "good", "vm")
    assert (result.status, result.err) == (0, "")
    shell.refused(3, "not snapshot metadata", "snapshot-list", "-n", "bad", "vm")
    shell.refused(2, "no snapshot 'x'", "snapshot-list", "-n", "x", "vm")


# --- help and completion --------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [name for name in cli._COMMANDS if name != "help"])
def test_every_command_has_help_with_examples(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert cli.run(["help", command]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: xlsnap {command} ")
    assert (
        f"\n    xlsnap {command}" in text or f" | xlsnap {command}" in text or f"$(xlsnap {command}" in text
    )
    assert max(map(len, text.splitlines())) <= 90
    assert cli.run([command, "--help"]) == 0
    assert capsys.readouterr().out == text


def test_help_of_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {command} " in text for command in cli._COMMANDS)
    assert cli.run(["--help"]) == 0
    assert capsys.readouterr().out == text
    assert cli.run([]) == 2  # nothing was asked for
    assert capsys.readouterr() == ("", text)
    assert cli.run(["--version"]) == 0
    assert re.fullmatch(r"xlsnap \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


def complete(shell: Shell, line: str, kind: str = "bash") -> list[str]:
    """Ask as the script of a shell does for what may come next on a line."""
    last = line.count(" ")
    environment = {
        **os.environ,
        "_XLSNAP_COMPLETE": f"{kind}_complete",
        "XLSNAP_ROOT": str(shell.root.path),
        "COMP_WORDS": line,
        "COMP_CWORD": str(last),
    }
    command = [sys.executable, "-m", "xlsnap.cli"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.strip("\n").splitlines()


def test_completion(shell: Shell) -> None:
    shell.do("snapshot-create", "-n", "before it", "vm")
    assert complete(shell, "xlsnap snapshot-") == [
        f"plain,snapshot-{verb}" for verb in ("create", "list", "revert", "delete", "check")
    ]
    assert complete(shell, "xlsnap pause ") == ["plain,vm"]
    assert complete(shell, "xlsnap snapshot-check --repair ") == ["plain,vm"]
    assert complete(shell, "xlsnap snapshot-check --r") == ["plain,--repair"]
    assert complete(shell, "xlsnap snapshot-delete --c") == ["plain,--children", "plain,--children-only"]
    assert complete(shell, "xlsnap snapshot-list --t") == ["plain,--tree"]
    assert complete(shell, "xlsnap snapshot-create --li") == ["plain,--live"]
    assert complete(shell, "xlsnap snapshot-revert -n b") == [r"plain,before\ it"]
    assert complete(shell, "xlsnap snapshot-delete vm -n ") == [r"plain,before\ it"]
    assert complete(shell, "xlsnap snapshot-delete vm -n x") == []
    assert complete(shell, "xlsnap snapshot-delete nope -n ") == []
    assert complete(shell, "xlsnap snapshot-create v") == ["file,v", "plain,vm"]
    assert complete(shell, "xlsnap snapshot-create a.conf ") == ["plain,vm"]
    assert "before it" in complete(shell, "xlsnap snapshot-revert -n b", "zsh")


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes_a_name_with_spaces_as_one_word(shell: Shell) -> None:
    shell.do("snapshot-create", "-n", "be fore's", "vm")
    program = Path(shell.file("xlsnap", f'#!/bin/sh\nexec {sys.executable} -m xlsnap.cli "$@"\n'))
    program.chmod(0o700)
    script = (
        f'PATH={shell.directory}:$PATH; eval "$(xlsnap completion bash)"; COMP_WORDS=(xlsnap pause v)\n'
        "COMP_CWORD=2; _xlsnap_completion xlsnap; printf '<%s>' \"${COMPREPLY[@]}\"; COMPREPLY=()\n"
        "COMP_WORDS=(xlsnap snapshot-delete -n 'be\\ f'); COMP_CWORD=3\n"
        "_xlsnap_completion xlsnap; printf '<%s>' \"${COMPREPLY[@]}\"\n"
    )
    environment = {**os.environ, "XLSNAP_ROOT": str(shell.root.path)}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (r"<vm><be\ fore\'s>", "")


@pytest.mark.parametrize("kind", ["bash", "zsh", "fish"])
def test_completion_scripts_are_valid(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    assert cli.run(["completion", kind]) == 0
    script = capsys.readouterr().out
    assert "_XLSNAP_COMPLETE" in script
    if shutil.which(kind):
        subprocess.run([kind, "-n"], input=script, text=True, check=True)


# --- output ---------------------------------------------------------------------------------------------


def test_listing_loads_nothing_that_only_operations_need(shell: Shell) -> None:
    shell.do("snapshot-create", "-n", "s", "vm")
    heavy = ("asyncio", "qemu.qmp", "lark", "rich", "psutil", "xlsnap_grammars", "platformdirs", "subprocess")
    code = (
        "import sys; from xlsnap import cli;"
        f"cli.run([*{shell.options!r}, 'snapshot-list', 'vm']);"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"


def test_tables_align_and_escape() -> None:
    assert table(("A", "B"), [["x\x1b[31m", "y"]]) == "A          B\nx\\x1b[31m  y"
    assert shown("a\nb\udc80ü") == "a\\nb\\udc80ü"
    assert local_time(1 << 62) == f"@{1 << 62}"
    assert json_text({"a": "\x1b\x9b\u202eü"}) == '{\n    "a": "\\u001b\\u009b\\u202eü"\n}'


@pytest.mark.parametrize(
    ("redirection", "status", "complaint"),
    [
        (">/dev/full", 4, "xlsnap: cannot print the result: No space left on device\n"),
        (">&-", 4, "xlsnap: cannot print the result: standard output is closed\n"),
        ("| true", 141, ""),
        ("2>&-", 0, ""),
    ],
)
def test_output_that_nobody_takes(shell: Shell, redirection: str, status: int, complaint: str) -> None:
    script = f'{{ sleep 0.1; "$@"; echo $? >&3; }} {redirection}'
    if "|" in redirection:
        script = '{ sleep 0.1; "$@"; echo $? >&3; } | true'
    command = ["sh", "-c", f"exec 3>{shell.directory}/status; {script}", "sh"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [*command, *shell.command("snapshot-list", "vm")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ((shell.directory / "status").read_text(), done.stderr) == (f"{status}\n", complaint)


def test_a_name_that_the_locale_lacks_is_escaped(shell: Shell) -> None:
    shell.do("snapshot-create", "-n", "ü", "vm")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        shell.command("snapshot-list", "vm"), env=environment, capture_output=True, text=True, check=True
    )
    assert "\\xfc" in done.stdout


def test_hostile_metadata_does_not_reach_the_terminal(shell: Shell) -> None:
    shell.do("snapshot-create", "-n", "s", "vm")
    (path,) = shell.root.path.glob("snapshots/*/snapshotdata-d.s.libxl-json")
    data = json.loads(path.read_text())
    data["description"] = "\x1b]0;owned\x07\x9b31m"
    path.write_text(json.dumps(data))
    for arguments in (["-l"], ["-o", "json"]):
        output = shell.do("snapshot-list", *arguments, "vm")
        assert "owned" in output
        assert not set(output) & set("\x1b\x07\x9b")
    path.write_text("\x1b{")
    result = shell.xlsnap("snapshot-list", "vm")
    assert "\x1b" not in result.err


# --- console --------------------------------------------------------------------------------------------


def test_attaching_to_the_console_of_a_domain_that_starts(shell: Shell) -> None:
    shell.do("destroy", "vm")
    done = subprocess.run(
        shell.command("create", "-q", "-c", shell.config),
        input=b"\x15900009 ping\n",
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert b"900009 ok" in done.stdout
