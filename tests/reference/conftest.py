# SPDX-License-Identifier: LGPL-2.1-or-later
"""A user at the command line, with a state root and a running domain of their own."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from xlsnap import cli
from xlsnap.layout import StateRoot
from xlsnap.qemu.process import ProcessPaths, living_pid
from xlsnap.store import Store
from xlsnap_conformance import guest

UNSTABLE = {"lock", "journal.json", "session.lock"}
"""Files that any operation may make or take away."""


class Result(NamedTuple):
    """What a command did."""

    status: int
    out: str
    err: str


class Shell:
    """A state root with a domain `vm`, which has a writable and a read-only disk, and commands on it."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.capsys = capsys
        self.root = StateRoot.at(directory / "root")
        for name in ("a", "b"):
            self.image(f"{name}.qcow2", "qcow2")
        self.image("raw.img", "raw")
        self.config = self.file(
            "vm.cfg",
            f"""name = "vm"
memory = 1
bios_path_override = "{guest.image("rom")}"
disk = [ 'a.qcow2,qcow2,hda,w', 'b.qcow2,qcow2,xvdb,r' ]
""",
        )

    def image(self, name: str, image_format: str) -> None:
        command = ["qemu-img", "create", "-q", "-f", image_format, str(self.directory / name), "1M"]
        subprocess.run(command, check=True)

    def file(self, name: str, content: str) -> str:
        path = self.directory / name
        path.write_text(content)
        return str(path)

    # --- commands ---------------------------------------------------------------------------------------

    @property
    def options(self) -> list[str]:
        """Global options that choose this root."""
        return ["--root", str(self.root.path), "--accelerator", "tcg"]

    def xlsnap(self, *arguments: str) -> Result:
        """Run a command in this process, which is much faster."""
        self.capsys.readouterr()
        status = cli.run([*self.options, *arguments])
        out, err = self.capsys.readouterr()
        return Result(status, out, err)

    def do(self, *arguments: str) -> str:
        """Run a command that must succeed and return what it prints."""
        result = self.xlsnap(*arguments)
        assert result.status == 0, result
        return result.out

    def command(self, *arguments: str) -> list[str]:
        """Return the command for a process of its own."""
        return [sys.executable, "-m", "xlsnap.cli", *self.options, *arguments]

    def refused(self, status: int, complaint: str, *arguments: str) -> None:
        """Check that a command is refused in one line, with this status, and changes nothing."""
        before = self.everything()
        result = self.xlsnap(*arguments)
        assert result.status == status, result
        assert result.out == ""
        assert complaint in result.err
        assert result.err.startswith("xlsnap: ")
        assert result.err.count("\n") == 1, result
        assert self.everything() == before

    # --- what is there ----------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Return the names of the snapshots in the order of the list."""
        return [item["name"] for item in json.loads(self.do("snapshot-list", "-o", "json", "vm"))]

    def process_paths(self) -> ProcessPaths:
        store = Store(self.root)
        record = store.resolve("vm")
        return ProcessPaths(self.root.domain(record.uuid).directory / f"process-{record.process}")

    def probe(self) -> guest.Probe:
        return guest.Probe(self.process_paths().console)

    def pids(self) -> list[int]:
        """Return the processes of all QEMUs under this root."""
        found = (living_pid(ProcessPaths(path)) for path in self.root.domains.glob("*/process-*"))
        return [pid for pid in found if pid is not None]

    def tags(self, image: str = "a.qcow2") -> list[str]:
        """Return the internal snapshots of an image."""
        path = str(self.directory / image)
        command = ["qemu-img", "info", "-U", "-f", "qcow2", "--output=json", path]
        data = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return [item["name"] for item in data.get("snapshots", [])]

    def files(self) -> dict[str, str]:
        """Return a digest of every file under the directory."""
        return {
            str(path.relative_to(self.directory)): hashlib.sha1(path.read_bytes()).hexdigest()
            for path in sorted(self.directory.rglob("*"))
            if path.is_file() and path.name not in UNSTABLE
        }

    def everything(self) -> tuple[dict[str, str], list[str], list[int], list[str], tuple[object, ...]]:
        """Return all that a refused command must leave alone: files, tags, process, run state, guest."""
        state = [row["run_state"] for row in json.loads(self.do("list", "-o", "json", "vm"))]
        with self.probe() as probe:
            seen = (probe.get("word"), probe.read(0, 1), probe.variables())
        return self.files(), self.tags(), self.pids(), state, seen

    def close(self) -> None:
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shell]:
    for variable in ("XLSNAP_ROOT", "XLSNAP_ACCELERATOR"):
        monkeypatch.delenv(variable, raising=False)
    shell = Shell(tmp_path, capsys)
    try:
        shell.do("create", "-q", shell.config)
        with shell.probe() as probe:
            probe.set("word", "one")
            probe.write(0, 1, "one")
        yield shell
    finally:
        shell.close()
