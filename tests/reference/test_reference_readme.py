# SPDX-License-Identifier: LGPL-2.1-or-later
"""The README of the reference toolstack: its commands work as they stand, its tables are complete."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from xlsnap.errors import DomainStateError, HostError, InputError, InternalError

if TYPE_CHECKING:
    from tests.reference.conftest import Shell

README = Path(__file__).parents[2] / "reference" / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def home(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that the examples think of, with the probe guest in place of a big one."""
    shell.do("destroy", "vm")
    (rom,) = re.findall(r"^bios_path_override.*$", Path(shell.config).read_text(), re.MULTILINE)
    config = blocks("")[0].replace("memory = 64", "memory = 1")
    shell.file("guest.cfg", f"{config}{rom}\n")
    shell.file("night.conf", 'name = "night"\nmemory = "yes"\n')
    shell.image("guest.qcow2", "qcow2")
    monkeypatch.chdir(shell.directory)
    return shell.directory


def test_the_commands(shell: Shell, home: Path) -> None:
    lines = "".join(blocks("console")).splitlines()
    assert len(lines) > 10
    for line in lines:
        assert line.startswith("$ xlsnap ")
        shell.do(*shlex.split(line)[2:])
    assert re.search("^guest +- ", shell.do("list", "--all"), re.MULTILINE)


def test_the_exit_statuses() -> None:
    documented = {int(status) for status in re.findall(r"^\| (\d+) \|", README.read_text(), re.MULTILINE)}
    kinds = (InputError, DomainStateError, HostError, InternalError)
    assert documented == {0, 130, *(kind.exit_code for kind in kinds)}


def test_the_modules() -> None:
    package = README.parent / "xlsnap"
    there = {path.name for path in package.glob("*.py")} | {
        f"{path.parent.name}/" for path in package.glob("*/*.py")
    }
    documented = set(re.findall(r"`([a-z_]+(?:\.py|/))`", README.read_text().partition("## On the")[0]))
    assert documented <= there
    assert there - documented <= {"__init__.py", "errors.py", "host.py", "names.py"}
