# SPDX-License-Identifier: LGPL-2.1-or-later
"""scripts/tmpdir.sh: where the tests of make put their files."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLENTY = 8 << 20


def chosen(directory: Path, *, free_kib: int = PLENTY, noexec: bool = False, tmpdir: str = "") -> str:
    """Run the script with a directory of our own as the memory, with this much room in it."""
    shm = directory / "shm"
    shm.mkdir()
    script = (ROOT / "scripts/tmpdir.sh").read_text()
    assert "shm=/dev/shm" in script
    copy = directory / "tmpdir.sh"
    copy.write_text(script.replace("shm=/dev/shm", f"shm={shm}"))
    df = directory / "df"
    df.write_text(f"#!/bin/sh\necho header\necho tmpfs 1 1 {free_kib} 1% /dev/shm\n")
    df.chmod(0o755)
    if noexec:
        (directory / "chmod").write_text("#!/bin/sh\n")
        (directory / "chmod").chmod(0o755)
    environment = {"PATH": f"{directory}:{os.environ['PATH']}", "TMPDIR": tmpdir}
    done = subprocess.run(
        ["sh", copy], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert list(shm.iterdir()) == []
    return done.stdout.removesuffix("\n").replace(str(shm), "memory")


def test_memory_where_there_is_room(tmp_path: Path) -> None:
    assert chosen(tmp_path) in ("memory", "/tmp")  # this machine may have little memory


@pytest.mark.parametrize("free_kib", [0, 65536, (3 << 20) - 1])
def test_not_where_there_is_none(tmp_path: Path, free_kib: int) -> None:
    """Containers have 64 MiB."""
    assert chosen(tmp_path, free_kib=free_kib) == "/tmp"


def test_not_where_nothing_can_be_run(tmp_path: Path) -> None:
    assert chosen(tmp_path, noexec=True) == "/tmp"


def test_the_user_has_the_last_word(tmp_path: Path) -> None:
    assert chosen(tmp_path, tmpdir="/somewhere") == "/somewhere"
