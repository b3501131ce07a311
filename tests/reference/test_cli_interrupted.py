# SPDX-License-Identifier: LGPL-2.1-or-later
"""Commands that are cut short at any step: QEMU dies, a signal comes, the command itself is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.reference.conftest import Shell

CUT_SHORT = """
import os, sys
from xlsnap import cli
from xlsnap.executor import Executor

index, when, signum, pid = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
perform = Executor.perform
steps = []

async def performed(self, step):
    steps.append(type(step).__name__)
    now = len(steps) == index + 1
    if now and when == "before":
        os.kill(pid or os.getpid(), signum)
    await perform(self, step)
    if now and when == "after":
        os.kill(pid or os.getpid(), signum)

Executor.perform = performed
status = cli.run(sys.argv[5:])
if len(steps) <= index:
    print("no such step")
sys.exit(status)
"""

CREATE_STEPS = 8
REVERT_STEPS = 5


def test_the_steps_are_counted_right(shell: Shell) -> None:
    """Each test below goes through all steps of its operation."""
    for count, command in ((CREATE_STEPS, "snapshot-create"), (REVERT_STEPS, "snapshot-revert")):
        control = [str(count), "before", str(int(signal.SIGKILL)), "0"]
        arguments = [sys.executable, "-c", CUT_SHORT, *control, *shell.options, command, "-n", "s", "vm"]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stdout) == (0, "no such step\n"), command


def cut_short(
    shell: Shell, step: int, when: str, signum: int, pid: int, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run a command and send a signal to a process (0: itself) before or after one of its steps."""
    control = [str(step), when, str(signum), str(pid)]
    command = [sys.executable, "-c", CUT_SHORT, *control, *shell.options, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "no such step" not in done.stdout, "the plan has fewer steps than this test thinks"
    return done


def check_outcome(shell: Shell, before: dict[str, str], *, made: bool) -> None:
    """Check that the snapshot `s1` is there in full or not at all, and that `s0` is intact."""
    assert shell.names() == (["s0", "s1"] if made else ["s0"])
    assert shell.tags() == shell.names()
    kept = {name: digest for name, digest in shell.files().items() if "snapshots/" in name}
    if not made:
        assert kept == {name: digest for name, digest in before.items() if "snapshots/" in name}
    for name in shell.names():
        shell.do("snapshot-revert", "-n", name, "vm")
        with shell.probe() as probe:
            assert (probe.get("word"), probe.read(0, 1)) == ("one", "one")


@pytest.mark.parametrize("step", range(CREATE_STEPS))
def test_qemu_dies_while_a_snapshot_is_made(shell: Shell, step: int) -> None:
    """What the command says; `tests/crash` looks at all moments."""
    when = ("before", "after")[step % 2]
    shell.do("snapshot-create", "-n", "s0", "vm")
    before = shell.files()
    (pid,) = shell.pids()
    done = cut_short(shell, step, when, signal.SIGKILL, pid, "snapshot-create", "-n", "s1", "vm")
    assert done.stdout == ""
    if done.returncode == 0:  # QEMU was no longer needed
        assert done.stderr == ""
    else:
        assert done.returncode == 4
        assert done.stderr.startswith("xlsnap: ")
        assert done.stderr.count("\n") == 1, done.stderr
    check_outcome(shell, before, made=done.returncode == 0)


@pytest.mark.parametrize("step", range(CREATE_STEPS))
def test_a_signal_while_a_snapshot_is_made(shell: Shell, step: int) -> None:
    """All or nothing, at once: the guest goes on as if nothing had been."""
    signum = (signal.SIGINT, signal.SIGTERM)[step % 2]
    shell.do("snapshot-create", "-n", "s0", "vm")
    before = shell.files()
    done = cut_short(shell, step, "before", signum, 0, "snapshot-create", "-n", "s1", "vm")
    assert (done.returncode, done.stdout, done.stderr) == (128 + signum, "", "xlsnap: interrupted\n")
    made = "s1" in shell.tags()
    assert shell.everything()[3] == ["r"]
    if not made:
        assert set(shell.files()) == set(before)
    check_outcome(shell, before, made=made)


@pytest.mark.parametrize("step", range(CREATE_STEPS))
def test_the_command_is_killed_while_a_snapshot_is_made(shell: Shell, step: int) -> None:
    """The list shows nothing that is not complete, and the next command undoes the rest."""
    shell.do("snapshot-create", "-n", "s0", "vm")
    before = shell.files()
    done = cut_short(shell, step, "after", signal.SIGKILL, 0, "snapshot-create", "-n", "s1", "vm")
    assert done.returncode == -signal.SIGKILL
    made = step == CREATE_STEPS - 1
    assert shell.names() == (["s0", "s1"] if made else ["s0"])
    shell.do("unpause", "vm")
    check_outcome(shell, before, made=made)


@pytest.mark.parametrize("step", range(REVERT_STEPS))
def test_the_command_is_killed_while_it_reverts(shell: Shell, step: int) -> None:
    shell.do("snapshot-create", "-n", "s0", "vm")
    with shell.probe() as probe:
        probe.set("word", "two")
        probe.write(0, 1, "two")
    done = cut_short(shell, step, "after", signal.SIGKILL, 0, "snapshot-revert", "-n", "s0", "vm")
    assert done.returncode == -signal.SIGKILL
    shell.do("unpause", "vm")  # finishes or undoes
    with shell.probe() as probe:
        assert (probe.get("word"), probe.read(0, 1)) in {("one", "one"), ("two", "two")}
    assert len(shell.pids()) == 1
    shell.do("snapshot-revert", "-n", "s0", "vm")
    with shell.probe() as probe:
        assert (probe.get("word"), probe.read(0, 1)) == ("one", "one")


def test_a_signal_of_the_terminal_does_not_reach_qemu(shell: Shell) -> None:
    """Ctrl-C goes to all processes of a session; domains are none of them."""
    (pid,) = shell.pids()
    assert os.getsid(pid) != os.getsid(0)
