# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line on real guests: what it prints, its exit status, and every kind of bad input."""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from xlsnap import cli
from xlsnap.cli.text import local_time, shown, table
from xlsnap.executor import Executor
from xlsnap.layout import StateRoot
from xlsnap.qemu.process import ProcessPaths, living_pid
from xlsnap.store import Store
from xlsnap_conformance import guest


class Result:
    """What a command did."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    def __repr__(self) -> str:
        return f"status {self.status}\n{self.out}\n{self.err}"


class Lab:
    """A state root with a domain `vm` of a writable, a read-only and a raw disk, and a user who types."""

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

    def xlsnap(self, *arguments: str) -> Result:
        self.capsys.readouterr()
        status = cli.run(["--root", str(self.root.path), "--accelerator", "tcg", *arguments])
        return Result(status, *self.capsys.readouterr())

    def do(self, *arguments: str) -> str:
        result = self.xlsnap(*arguments)
        assert result.status == 0, result
        return result.out

    def process_paths(self) -> ProcessPaths:
        store = Store(self.root)
        record = store.resolve("vm")
        return ProcessPaths(self.root.domain(record.uuid).directory / f"process-{record.process}")

    def probe(self) -> guest.Probe:
        return guest.Probe(self.process_paths().console)

    def everything(self) -> tuple[object, ...]:
        """Return all that a refused command must leave: files with sizes, tags, domain, guest."""
        files = {
            str(path): path.stat().st_size
            for path in self.directory.rglob("*")
            if path.is_file() and path.name not in {"lock", "journal.json", "session.lock"}
        }
        command = ["qemu-img", "info", "-U", "-f", "qcow2", "--output=json", str(self.directory / "a.qcow2")]
        tags = json.loads(subprocess.run(command, check=True, capture_output=True).stdout).get("snapshots")
        pid = living_pid(self.process_paths())
        with self.probe() as probe:
            seen = (probe.get("word"), probe.read(0, 1), probe.variables())
        return files, tags, pid, seen

    def close(self) -> None:
        for path in self.root.domains.glob("*/process-*"):
            pid = living_pid(ProcessPaths(path))
            if pid is not None:
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def lab(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.delenv("XLSNAP_ROOT", raising=False)
    lab = Lab(tmp_path, capsys)
    try:
        lab.do("create", "-q", lab.config)
        with lab.probe() as probe:
            probe.set("word", "one")
            probe.write(0, 1, "one")
        yield lab
    finally:
        lab.close()


# --- what commands print --------------------------------------------------------------------------------


def test_a_session(lab: Lab) -> None:
    assert re.fullmatch(
        r"Name +ID +Mem VCPUs\tState\tTime\(s\)\nvm {38} +\d+ +1 +1 +r----- +\d+\.\d\n", lab.do("list")
    )
    domid = lab.do("domid", "vm").strip()
    config = lab.file(
        "snap.conf", 'name = "with space"\ndescription = "why"\nmemory = "yes"\ndisk = [ "vdev=hda" ]\n'
    )
    assert lab.do("snapshot-create", config, "vm") == ""
    assert lab.do("snapshot-create", "-D", "-n", "disks", domid) == ""
    automatic = re.fullmatch(r"Domain snapshot (\d+) created\n", lab.do("snapshot-create", "vm"))
    assert automatic is not None
    assert abs(int(automatic[1]) - time.time()) < 60

    rows = [re.split(r" {2,}", line) for line in lab.do("snapshot-list", "vm").splitlines()]
    assert rows[0] == ["TAG", "NAME", "DATE", "STATE", "DISK ONLY"]
    assert [(row[0], row[1], row[3], row[4]) for row in rows[1:]] == [
        ("1", "with space", "r-----", "no"),
        ("2", "disks", "r-----", "yes"),
        ("3", automatic[1], "r-----", "no"),
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", row[2]) for row in rows[1:])

    details = lab.do("snapshot-list", "-l", "-n", "with space", "vm")
    assert "description:   why\n" in details
    assert f"  hda: internal, qcow2, {lab.directory}/a.qcow2\n" in details
    data = json.loads(lab.do("snapshot-list", "-o", "json", "vm"))
    assert [item["name"] for item in data] == ["with space", "disks", automatic[1]]

    with lab.probe() as probe:
        probe.set("word", "two")
    lab.do("snapshot-revert", "-p", "-n", "with space", "vm")
    assert "--p---" in lab.do("list", "vm")
    lab.do("unpause", "vm")
    with lab.probe() as probe:
        assert probe.get("word") == "one"
    lab.do("destroy", "vm")
    assert lab.do("list").count("\n") == 1
    assert re.search(r"^vm +- ", lab.do("list", "vm"), re.MULTILINE)
    for row in rows[1:]:
        lab.do("snapshot-delete", "-n", row[1], "vm")
    assert not list(lab.root.domains.iterdir())


def test_pause_save_restore(lab: Lab) -> None:
    lab.do("pause", "vm")
    assert json.loads(lab.do("list", "-o", "json"))[0]["run_state"] == "p"
    lab.do("unpause", "vm")
    path = str(lab.directory / "vm.save")
    lab.do("save", "vm", path)
    lab.do("restore", path)
    with lab.probe() as probe:
        assert probe.get("word") == "one"


def test_the_dry_run_shows_the_snapshot_and_makes_none(lab: Lab) -> None:
    before = lab.everything()
    for arguments in (("-N", "snapshot-create"), ("snapshot-create", "-N")):
        data = json.loads(lab.do(*arguments, "-n", "x", "vm"))
        assert (data["name"], data["type"], data["running"]) == ("x", "internal", True)
        assert [disk["device"] for disk in data["disks"]] == ["hda"]
    assert lab.everything() == before


def test_overrides_of_a_configuration(lab: Lab) -> None:
    data = json.loads(lab.do("-N", "create", lab.config, 'name="other"', "memory=2"))
    assert (data["name"], data["memory_mib"]) == ("other", 2)


@pytest.mark.parametrize("command", [name for name in cli._COMMANDS if name != "help"])
def test_every_command_has_help(lab: Lab, command: str) -> None:
    text = lab.do("help", command)
    assert text.startswith("Usage: xlsnap ")
    assert lab.do(command, "--help") == text


def test_completion(lab: Lab) -> None:
    assert "_XLSNAP_COMPLETE" in lab.do("completion", "bash")
    lab.do("snapshot-create", "-n", "before", "vm")
    words = f"xlsnap --root {lab.root.path} snapshot-revert -n b"
    environment = {**os.environ, "_XLSNAP_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "5"}
    command = [sys.executable, "-c", "from xlsnap.cli import main; main()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "plain,before\n"


def test_listing_loads_nothing_that_only_operations_need(lab: Lab) -> None:
    code = (
        "import sys; from xlsnap import cli;"
        f"cli.run(['--root', {str(lab.root.path)!r}, 'snapshot-list', 'vm']);"
        "print([name for name in ('asyncio', 'qemu.qmp', 'lark', 'rich', 'psutil') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"


def test_tables_align_and_escape() -> None:
    assert table(("A", "B"), [["x\x1b[31m", "y"]]) == "A          B\nx\\x1b[31m  y"
    assert shown("a\nb\udc80ü") == "a\\nb\\udc80ü"
    assert local_time(1 << 62) == f"@{1 << 62}"


# --- console --------------------------------------------------------------------------------------------


def test_the_console_on_pipes(lab: Lab) -> None:
    command = [sys.executable, "-m", "xlsnap.cli", "--root", str(lab.root.path), "console", "vm"]
    done = subprocess.run(
        command, input=b"\x15900001 get word\n", capture_output=True, timeout=60, check=True
    )
    assert b"900001 ok one\n" in done.stdout


def test_the_console_on_a_terminal_leaves_at_its_escape(lab: Lab) -> None:
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "xlsnap.cli", "--root", str(lab.root.path), "console", "vm"]
    process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower)
    try:
        os.close(follower)
        seen = b""
        deadline = time.monotonic() + 60
        while b"900002 ok one" not in seen and time.monotonic() < deadline:
            os.write(leader, b"\x15900002 get word\n")
            if select.select([leader], [], [], 0.5)[0]:
                seen += os.read(leader, 4096)
        assert b"900002 ok one" in seen
        os.write(leader, b"\x1d")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(leader)


# --- bad input ------------------------------------------------------------------------------------------


def refused(lab: Lab, status: int, complaint: str, *arguments: str, lines: int = 1) -> None:
    """Check that a command is refused in one line, with this status, and changes nothing."""
    before = lab.everything()
    result = lab.xlsnap(*arguments)
    assert result.status == status, result
    assert result.out == ""
    assert complaint in result.err
    assert "Traceback" not in result.err
    assert result.err.count("\n") == lines, result
    assert result.err.splitlines()[-1].startswith("xlsnap: ")
    assert lab.everything() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("destroy", "nope"),
        ("pause", "nope"),
        ("unpause", "nope"),
        ("list", "nope"),
        ("domid", "nope"),
        ("console", "nope"),
        ("save", "nope", "/tmp/never"),
        ("snapshot-create", "nope"),
        ("snapshot-list", "nope"),
        ("snapshot-revert", "-n", "x", "nope"),
        ("snapshot-delete", "-n", "x", "nope"),
    ],
)
def test_unknown_domain(lab: Lab, arguments: tuple[str, ...]) -> None:
    refused(lab, 2, "no domain 'nope'", *arguments)


def test_unknown_and_duplicate_names(lab: Lab) -> None:
    lab.do("snapshot-create", "-n", "s", "vm")
    refused(lab, 2, "no snapshot 'x'", "snapshot-revert", "-n", "x", "vm")
    refused(lab, 2, "no snapshot '1'", "snapshot-revert", "-n", "1", "vm")
    refused(lab, 2, "no snapshot 'x'", "snapshot-delete", "-n", "x", "vm")
    refused(lab, 2, "no snapshot 'x'", "snapshot-list", "-n", "x", "vm")
    refused(lab, 2, "already has a snapshot 's'", "snapshot-create", "-n", "s", "vm")
    refused(lab, 2, "is active", "create", "-q", lab.config)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "a\nb", "\x1b[2J", "x" * 201, "\udcff"])
def test_bad_names(lab: Lab, name: str) -> None:
    refused(lab, 2, "bad snapshot name", "snapshot-create", f"--name={name}", "vm")


def test_missing_and_unreadable_configuration(lab: Lab) -> None:
    refused(lab, 2, "No such file", "snapshot-create", str(lab.directory / "none"), "vm")
    refused(lab, 2, "Is a directory", "snapshot-create", str(lab.directory), "vm")
    refused(lab, 2, "No such file", "create", "-q", str(lab.directory / "none"))
    large = lab.directory / "large"
    with open(large, "wb") as file:
        file.truncate((16 << 20) + 1)
    refused(lab, 2, "larger than 16 MiB", "snapshot-create", str(large), "vm")


def test_invalid_configuration_is_shown_with_a_caret(lab: Lab) -> None:
    bad = lab.file("bad.conf", "name = x\n")
    result = lab.xlsnap("snapshot-create", bad, "vm")
    assert result.status == 2
    lines = result.err.splitlines()
    assert lines[0].startswith(f"{bad}:1:8: ")
    assert lines[1] == "    name = x"
    assert lines[2] == "           ^"
    assert lines[-1] == f"xlsnap: {bad}: not a valid snapshot configuration"


def test_configuration_and_options_that_conflict(lab: Lab) -> None:
    config = lab.file("snap.conf", 'name = "a"\nmemory = "yes"\n')
    refused(lab, 2, "names the snapshot 'a', option -n 'b'", "snapshot-create", "-n", "b", config, "vm")
    refused(lab, 2, "option -D asks for disks only", "snapshot-create", "-D", config, "vm")


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("disk = [ 'vdev=xvdb' ]", "disk xvdb is read-only"),
        ("disk = [ 'vdev=hdz' ]", "no disk 'hdz'"),
    ],
)
def test_disks_that_cannot_be_chosen(lab: Lab, setting: str, complaint: str) -> None:
    refused(lab, 2, complaint, "snapshot-create", lab.file("snap.conf", f'memory = "yes"\n{setting}\n'), "vm")


def test_a_raw_disk_cannot_be_snapshotted_internally(lab: Lab) -> None:
    lab.do("destroy", "vm")
    text = Path(lab.config).read_text().replace("'b.qcow2,qcow2,xvdb,r'", "'raw.img,raw,xvdb,w'")
    lab.do("create", "-q", lab.file("vm.cfg", text))
    refused(lab, 2, "disk xvdb has format raw", "snapshot-create", "-n", "s", "vm")


def test_a_memory_file_that_exists(lab: Lab) -> None:
    precious = lab.file("precious", "precious")
    config = lab.file("snap.conf", f'memory = "{precious}"\n')
    refused(lab, 2, "exists already", "snapshot-create", config, "vm")
    refused(lab, 2, "exists already", "save", "vm", precious)
    assert Path(precious).read_text() == "precious"


def test_a_domain_that_is_not_running(lab: Lab) -> None:
    lab.do("snapshot-create", "-n", "s", "vm")
    lab.do("destroy", "vm")
    for arguments in (("pause", "vm"), ("domid", "vm"), ("snapshot-create", "vm"), ("console", "vm")):
        result = lab.xlsnap(*arguments)
        assert result.status == 3
        assert result.err.startswith("xlsnap: domain 'vm' is not running")
        assert result.err.count("\n") == 1


def test_usage_errors(lab: Lab) -> None:
    refused(lab, 2, "missing option '-n'", "snapshot-revert", "vm")
    refused(lab, 2, "did you mean snapshot-list?", "snapshot-lst", "vm")
    refused(lab, 2, "no such option", "snapshot-list", "--frobnicate", "vm")
    refused(lab, 2, "too many arguments", "snapshot-create", "a", "b", "vm")
    refused(lab, 2, "option -F is not supported", "snapshot-revert", "-F", "-n", "s", "vm")
    refused(lab, 2, "destroy has no dry run", "-N", "destroy", "vm")
    refused(lab, 2, "unknown accelerator", "--accelerator", "warp", "pause", "vm")


def test_qemu_is_not_installed(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lab.do("snapshot-create", "-n", "s", "vm")
    empty = tmp_path / "empty"
    empty.mkdir()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(empty))
        before = living_pid(lab.process_paths())
        result = lab.xlsnap("snapshot-revert", "-n", "s", "vm")
        assert result.status == 4
        assert "qemu-system-x86_64 is not installed (install the package qemu-system-x86" in result.err
        assert living_pid(lab.process_paths()) == before
    with lab.probe() as probe:
        assert probe.get("word") == "one"


def test_a_disk_image_that_is_missing(lab: Lab) -> None:
    lab.do("destroy", "vm")
    os.unlink(lab.directory / "a.qcow2")
    result = lab.xlsnap("create", "-q", lab.config)
    assert result.status == 2
    assert re.fullmatch(r"xlsnap: hda: .*/a\.qcow2: No such file or directory\n", result.err)
    assert not list(lab.root.domains.iterdir())


def test_qemu_does_not_start(lab: Lab) -> None:
    lab.do("destroy", "vm")
    (lab.directory / "a.qcow2").write_bytes(b"not an image")
    result = lab.xlsnap("create", "-q", lab.config)
    assert result.status == 4
    assert "not in qcow2 format" in result.err
    assert result.err.count("\n") == 1
    assert not list(lab.root.domains.iterdir())


def test_qemu_dies_in_the_middle(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    perform = Executor.perform

    async def deadly(self: Executor, step: object) -> None:
        if type(step).__name__ == "SaveMemory":
            pid = living_pid(lab.process_paths())
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        await perform(self, step)  # type: ignore[arg-type]

    lab.do("snapshot-create", "-n", "s0", "vm")
    monkeypatch.setattr(Executor, "perform", deadly)
    result = lab.xlsnap("snapshot-create", "-n", "s1", "vm")
    assert result.status == 4
    assert result.err.startswith("xlsnap: ")
    assert result.err.count("\n") == 1
    assert [item["name"] for item in json.loads(lab.do("snapshot-list", "-o", "json", "vm"))] == ["s0"]


def test_an_unexpected_exception_is_our_bug(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("oh")

    monkeypatch.setattr(Store, "find", broken)
    result = lab.xlsnap("snapshot-list", "vm")
    assert result.status == 70
    assert result.err == "xlsnap: internal error: RuntimeError: oh (please report it; -v shows where)\n"
    assert "Traceback" in lab.xlsnap("-v", "snapshot-list", "vm").err


def test_hostile_metadata_does_not_reach_the_terminal(lab: Lab) -> None:
    lab.do("snapshot-create", "-n", "s", "vm")
    (path,) = lab.root.path.glob("snapshots/*/snapshotdata-d.s.libxl-json")
    data = json.loads(path.read_text())
    data["description"] = "\x1b]0;owned\x07"
    path.write_text(json.dumps(data))
    assert "\x1b" not in lab.do("snapshot-list", "-l", "vm")
    path.write_text("{")
    result = lab.xlsnap("snapshot-list", "vm")
    assert result.status == 3
    assert "not snapshot metadata" in result.err


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare")
def test_no_space(lab: Lab) -> None:
    """On a file system that is nearly full: all is undone, the guest goes on, and a retry succeeds."""
    lab.do("destroy", "vm")
    (lab.directory / "small").mkdir()
    inner = lab.file("inner.py", NO_SPACE)
    script = 'mount -t tmpfs -o size=2m none "$1/small" && exec "$2" "$3" "$1" "$4"'
    arguments = [str(lab.directory), sys.executable, inner, str(guest.image("rom"))]
    command = ["unshare", "-m", "sh", "-c", script, "sh", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all checks done" in done.stdout


NO_SPACE = """
import os, subprocess, sys
from pathlib import Path
from xlsnap import cli
from xlsnap.layout import StateRoot
from xlsnap.store import Store
from xlsnap.qemu.process import ProcessPaths
from xlsnap_conformance import guest

directory, rom = Path(sys.argv[1]), sys.argv[2]
root = StateRoot.at(directory / "small/root")
def xlsnap(*arguments):
    return cli.run(["--root", str(root.path), "--accelerator", "tcg", *arguments])
config = directory / "small.cfg"
disk = f"{directory}/a.qcow2,qcow2,hda,w"
config.write_text(f'name="vm"\\nmemory=1\\nbios_path_override="{rom}"\\ndisk=["{disk}"]\\n')
assert xlsnap("create", "-q", str(config)) == 0
try:
    store = Store(root)
    record = store.resolve("vm")
    console = ProcessPaths(root.domain(record.uuid).directory / f"process-{record.process}").console
    with guest.Probe(console) as probe:
        probe.set("word", "one")
        ballast = directory / "small/ballast"
        with open(ballast, "wb", buffering=0) as file:
            stat = os.statvfs(directory / "small")
            file.write(bytes(stat.f_bavail * stat.f_frsize - 64 * 1024))
        before = sorted(str(path) for path in (directory / "small").rglob("*"))
        status = xlsnap("snapshot-create", "-n", "s", "vm")
        assert status == 4, status
        names = [path.name for path in (directory / "small").rglob("*") if str(path) not in before]
        assert not any("save" in name or "snapshotdata" in name for name in names), names
        assert all(name in {"journal.json"} or "-" in name or name == "snapshots" for name in names), names
        assert probe.get("word") == "one"
        ballast.unlink()
        assert xlsnap("snapshot-create", "-n", "s", "vm") == 0
        assert [name for name in store.snapshots(record.uuid)] == ["s"]
finally:
    xlsnap("destroy", "vm")
print("all checks done")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="another user cannot be tried without root")
def test_no_permission(lab: Lab) -> None:
    """As another user: nothing can be read or changed, and one line says so."""
    code = (
        "import os, sys, difflib, asyncio, filelock; from xlsnap import cli;"
        "import xlsnap.qemu, xlsnap.toolstack, xlsnap.cli.domains, xlsnap.cli.snapshots;"
        "os.setgid(65534); os.setuid(65534);"
        "sys.exit(cli.run(sys.argv[1:]))"
    )
    before = lab.everything()
    for arguments in (("snapshot-list", "vm"), ("snapshot-create", "-n", "s", "vm"), ("list",)):
        command = [sys.executable, "-c", code, "--root", str(lab.root.path), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 4, done
        assert re.fullmatch(r"xlsnap: cannot read .*: Permission denied.*\n", done.stderr), done
    assert lab.everything() == before
