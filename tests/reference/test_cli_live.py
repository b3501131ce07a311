# SPDX-License-Identifier: LGPL-2.1-or-later
"""Live snapshots where the kernel does not allow them: said, and nothing is done.

userfaultfd(2) takes the capability CAP_SYS_PTRACE. Root is without it here: the refusals are the kernel's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from xlsnap.qemu.background import live_problem

if TYPE_CHECKING:
    from tests.reference.conftest import Shell

WITHOUT_THE_RIGHT = ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace")

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or live_problem() is not None or shutil.which("setpriv") is None,
    reason="takes root's right to userfaultfd, and setpriv to give it up",
)


def without_the_right(shell: Shell, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own that may not use userfaultfd."""
    command = [*WITHOUT_THE_RIGHT, *shell.command(*arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@needs_root
def test_the_command_may_not_use_userfaultfd(shell: Shell) -> None:
    before = shell.everything()
    done = without_the_right(shell, "snapshot-create", "--live", "-n", "s", "vm")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == (
        "xlsnap: no live snapshot on this host: userfaultfd is for root only, unless "
        "/proc/sys/vm/unprivileged_userfaultfd is 1 (leave out --live)\n"
    )
    assert shell.everything() == before
    assert without_the_right(shell, "snapshot-create", "-n", "s", "vm").returncode == 0


@needs_root
def test_the_qemu_of_the_domain_may_not_use_userfaultfd(shell: Shell) -> None:
    shell.do("destroy", "vm")
    assert without_the_right(shell, "create", "-q", shell.config).returncode == 0
    before = shell.everything()
    result = shell.xlsnap("snapshot-create", "--live", "-n", "s", "vm")
    assert (result.status, result.out, result.err.count("\n")) == (4, "", 1)
    assert result.err.startswith("xlsnap: no live snapshot of this domain: ")
    after = shell.everything()
    assert (shell.names(), after[0].keys(), after[1:]) == ([], before[0].keys(), before[1:])
    shell.do("snapshot-create", "-n", "s", "vm")
    assert shell.names() == shell.tags() == ["s"]


def test_a_live_snapshot(shell: Shell) -> None:
    """Where the kernel allows it; else it says why not."""
    if problem := live_problem():
        shell.refused(4, problem, "snapshot-create", "--live", "-n", "s", "vm")
        return
    shell.do("snapshot-create", "--live", "-n", "s", "vm")
    assert shell.names() == ["s"]
    with shell.probe() as probe:
        probe.set("word", "two")
    shell.do("snapshot-revert", "-n", "s", "vm")
    with shell.probe() as probe:
        assert probe.get("word") == "one"
