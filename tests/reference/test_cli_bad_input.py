# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every kind of bad input and of trouble: one line, the right status, nothing changed, nothing left."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from xlsnap import cli
from xlsnap.store import Store
from xlsnap_conformance import guest

if TYPE_CHECKING:
    from tests.reference.conftest import Shell

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do this")


# --- names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("destroy", "nope"),
        ("pause", "nope"),
        ("unpause", "nope"),
        ("list", "nope"),
        ("domid", "nope"),
        ("console", "nope"),
        ("save", "nope", "new.save"),
        ("snapshot-create", "nope"),
        ("snapshot-list", "nope"),
        ("snapshot-revert", "-n", "x", "nope"),
        ("snapshot-delete", "-n", "x", "nope"),
        ("snapshot-check", "nope"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_unknown_domain(shell: Shell, arguments: tuple[str, ...]) -> None:
    shell.refused(2, "no domain 'nope'", *arguments)


def test_an_unknown_domain_leaves_no_state_root(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = tmp_path / "root"
    for command in ("pause", "snapshot-list", "snapshot-create"):
        assert cli.run(["--root", str(root), command, "nope"]) == 2
    assert not root.exists()


def test_hostile_names_of_domains_are_escaped(shell: Shell) -> None:
    shell.refused(2, r"no domain '\x1b[2J\nx'", "snapshot-list", "\x1b[2J\nx")


def test_unknown_and_duplicate_names(shell: Shell) -> None:
    shell.do("snapshot-create", "-n", "s", "vm")
    shell.refused(2, "no snapshot 'x'", "snapshot-revert", "-n", "x", "vm")
    shell.refused(2, "no snapshot '1'", "snapshot-revert", "-n", "1", "vm")
    shell.refused(2, "no snapshot 'x'", "snapshot-delete", "-n", "x", "vm")
    shell.refused(2, "no snapshot 'x'", "snapshot-list", "-n", "x", "vm")
    shell.refused(2, "already has a snapshot 's'", "snapshot-create", "-n", "s", "vm")
    shell.refused(2, "already has a snapshot 's'", "snapshot-create", "-D", "-n", "s", "vm")
    shell.refused(2, "is active", "create", "-q", shell.config)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../x", "-x", "a\nb", "\x1b[2J", "x" * 201, "\udcff"], ids=ascii
)
def test_bad_names(shell: Shell, name: str) -> None:
    shell.refused(2, "bad snapshot name", "snapshot-create", f"--name={name}", "vm")
    for command in ("snapshot-revert", "snapshot-delete"):
        shell.refused(2, "snapshot", command, f"--name={name}", "vm")


# --- configuration files --------------------------------------------------------------------------------


def test_missing_and_unreadable_configuration(shell: Shell) -> None:
    shell.refused(2, "No such file", "snapshot-create", str(shell.directory / "none"), "vm")
    shell.refused(2, "Is a directory", "snapshot-create", str(shell.directory), "vm")
    shell.refused(2, "null byte", "snapshot-create", "a\0b", "vm")
    shell.refused(2, "No such file", "create", "-q", str(shell.directory / "none"))
    with open(shell.directory / "large", "wb") as file:
        file.truncate((16 << 20) + 1)
    shell.refused(2, "larger than 16 MiB", "snapshot-create", str(shell.directory / "large"), "vm")


def test_invalid_configuration_is_shown_with_a_caret(shell: Shell) -> None:
    bad = shell.file("bad.conf", "\tname = x\x1b[2J\nmemory = maybe\n")
    before = shell.everything()
    result = shell.xlsnap("snapshot-create", bad, "vm")
    assert (result.status, result.out) == (2, "")
    lines = result.err.splitlines()
    assert lines[0].startswith(f"{bad}:1:9: ")
    assert lines[1].endswith(r"name = x\x1b[2J")
    assert lines[2].lstrip() == "^"
    assert any(line.startswith(f"{bad}:2:10: ") for line in lines)
    assert lines[-1] == f"xlsnap: {bad}: not a valid snapshot configuration"
    assert shell.everything() == before


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('name = "vm"\nmemory = 0\n', "memory: 0 is too small"),
        ('memory = "x"\n', "name: it is missing"),
        ('name = "vm"\ndisk = [ "nonsense=1" ]\n', "disk 1"),
    ],
)
def test_unusable_domain_configuration(shell: Shell, text: str, complaint: str) -> None:
    before = shell.everything()
    result = shell.xlsnap("create", "-q", shell.file("bad.cfg", text))
    assert (result.status, result.out) == (2, "")
    assert complaint in result.err
    assert result.err.splitlines()[-1].startswith("xlsnap: ")
    os.unlink(shell.directory / "bad.cfg")
    assert shell.everything() == before


def test_settings_of_the_command_line_are_reported_as_such(shell: Shell) -> None:
    result = shell.xlsnap("create", "-q", shell.config, "memory=2", "name=other")
    assert result.status == 2
    assert result.err.startswith("<command line>:2:6: ")
    assert "name=other" in result.err


def test_configuration_and_options_that_conflict(shell: Shell) -> None:
    config = shell.file("snap.conf", 'name = "a"\nmemory = "yes"\n')
    shell.refused(2, "names the snapshot 'a', option -n 'b'", "snapshot-create", "-n", "b", config, "vm")
    shell.refused(2, "option -D asks for disks only", "snapshot-create", "-D", config, "vm")
    config = shell.file("snap.conf", 'type = "external"\n')
    shell.refused(2, "has type='external'", "snapshot-create", "-D", config, "vm")
    shell.refused(2, "asks for disks only", "snapshot-create", "--live", config, "vm")
    config = shell.file("snap.conf", 'memory = "yes"\nlive = 0\n')
    shell.refused(2, "live=0, option --live", "snapshot-create", "--live", config, "vm")


# --- disks and memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("disk = [ 'vdev=xvdb' ]", "disk xvdb is read-only"),
        ("disk = [ 'vdev=hda', 'vdev=hdz' ]", "no disk 'hdz'"),
    ],
)
def test_disks_that_cannot_be_chosen(shell: Shell, setting: str, complaint: str) -> None:
    config = shell.file("snap.conf", f'memory = "yes"\n{setting}\n')
    shell.refused(2, complaint, "snapshot-create", config, "vm")


def test_a_raw_disk_cannot_be_snapshotted_internally(shell: Shell) -> None:
    shell.do("destroy", "vm")
    text = Path(shell.config).read_text().replace("'b.qcow2,qcow2,xvdb,r'", "'raw.img,raw,xvdb,w'")
    shell.do("create", "-q", shell.file("vm.cfg", text))
    shell.refused(2, "disk xvdb has format raw", "snapshot-create", "-n", "s", "vm")
    assert shell.tags() == []


def test_a_memory_file_that_exists(shell: Shell) -> None:
    precious = shell.file("precious", "precious")
    config = shell.file("snap.conf", f'memory = "{precious}"\n')
    shell.refused(2, "exists already", "snapshot-create", config, "vm")
    shell.refused(2, "exists already", "save", "vm", precious)
    os.symlink("nowhere", shell.directory / "dangling")
    config = shell.file("snap.conf", f'memory = "{shell.directory}/dangling"\n')
    shell.refused(2, "exists already", "snapshot-create", config, "vm")
    missing = shell.file("snap.conf", f'memory = "{shell.directory}/none/memory"\n')
    shell.refused(2, "is not a directory", "snapshot-create", missing, "vm")


def test_save_files_that_are_none(shell: Shell) -> None:
    shell.do("snapshot-create", "-n", "s", "vm")
    shell.refused(2, "No such file", "restore", str(shell.directory / "none"))
    shell.refused(2, "exclude each other", "save", "-c", "-p", "vm", str(shell.directory / "new"))


# --- the domain's state ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["pause", "unpause", "destroy", "domid", "console", "snapshot-create"])
def test_a_domain_that_is_not_running(shell: Shell, command: str) -> None:
    shell.do("snapshot-create", "-n", "s", "vm")
    shell.do("destroy", "vm")
    before = shell.files()
    result = shell.xlsnap(command, "vm")
    assert (result.status, result.out) == (3, "")
    assert re.fullmatch(r"xlsnap: domain 'vm' is not running \(.*\)\n", result.err)
    assert shell.files() == before


def test_a_disk_image_that_is_missing(shell: Shell) -> None:
    shell.do("destroy", "vm")
    os.unlink(shell.directory / "a.qcow2")
    result = shell.xlsnap("create", "-q", shell.config)
    assert result.status == 2
    assert re.fullmatch(r"xlsnap: hda: .*/a\.qcow2: No such file or directory\n", result.err)
    assert not list(shell.root.domains.iterdir())


def test_a_disk_image_of_another_format(shell: Shell) -> None:
    shell.do("destroy", "vm")
    (shell.directory / "a.qcow2").write_bytes(b"not an image")
    result = shell.xlsnap("create", "-q", shell.config)
    assert result.status == 4
    assert "not in qcow2 format" in result.err
    assert result.err.count("\n") == 1
    assert not list(shell.root.domains.iterdir())


# --- usage ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("snapshot-revert", "vm"), "missing option '-n' / '--name' (see xlsnap help snapshot-revert)"),
        (("snapshot-delete", "vm"), "missing option '-n' / '--name' (see xlsnap help snapshot-delete)"),
        (("snapshot-lst", "vm"), "no command 'snapshot-lst' (did you mean snapshot-list?)"),
        (("help", "snapshot-lst"), "no command 'snapshot-lst' (did you mean snapshot-list?)"),
        (("snapshot-list",), "missing argument 'DOMAIN'"),
        (("snapshot-list", "--frobnicate", "vm"), "no such option"),
        (("snapshot-list", "-o", "yaml", "vm"), "'yaml' is not one of 'table', 'json'"),
        (("snapshot-create", "a", "b", "vm"), "too many arguments"),
        (("snapshot-create", "-D", "--live", "vm"), "option -D asks for disks only, --live"),
        (("snapshot-list", "--tree", "-l", "vm"), "leave out -n, -l and -o"),
        (("snapshot-list", "--tree", "-n", "s", "vm"), "leave out -n, -l and -o"),
        (("snapshot-list", "--tree", "-o", "json", "vm"), "leave out -n, -l and -o"),
        (("snapshot-delete", "--children", "--children-only", "-n", "s", "vm"), "exclude each other"),
        (("snapshot-delete", "--children", "vm"), "missing option '-n' / '--name'"),
        (("snapshot-check",), "missing argument 'DOMAIN'"),
        (("snapshot-revert", "-F", "-n", "s", "vm"), "option -F is not supported"),
        (("restore", "--vncviewer", "file"), "option -V is not supported"),
        (("-N", "destroy", "vm"), "destroy has no dry run"),
        (("-N", "snapshot-revert", "-n", "s", "vm"), "snapshot-revert has no dry run"),
        (("--accelerator", "warp", "pause", "vm"), "unknown accelerator"),
        (("--root", "", "list"), "bad state root"),
    ],
)
def test_usage_errors(shell: Shell, arguments: tuple[str, ...], complaint: str) -> None:
    shell.refused(2, complaint, *arguments)


def test_an_unexpected_exception_is_our_bug(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("oh\nno")

    monkeypatch.setattr(Store, "find_key", broken)
    result = shell.xlsnap("snapshot-list", "vm")
    assert result.status == 70
    assert result.err == "xlsnap: internal error: RuntimeError: oh\\nno (please report it; -v shows where)\n"
    result = shell.xlsnap("-vN", "snapshot-list", "vm")
    assert (result.status, "Traceback" in result.err) == (70, True)


# --- the host -------------------------------------------------------------------------------------------


def test_qemu_is_not_installed(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.do("snapshot-create", "-n", "s", "vm")
    (shell.directory / "empty").mkdir()
    before = shell.everything()
    hint = "qemu-system-x86_64 is not installed (install the package qemu-system-x86"
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(shell.directory / "empty"))
        result = shell.xlsnap("snapshot-revert", "-n", "s", "vm")
    assert (result.status, result.out) == (4, "")
    assert hint in result.err
    assert result.err.count("\n") == 1
    assert shell.everything() == before
    shell.do("snapshot-delete", "-n", "s", "vm")
    shell.do("destroy", "vm")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(shell.directory / "empty"))
        result = shell.xlsnap("create", "-q", shell.config)
    assert result.status == 4
    assert hint in result.err
    assert not list(shell.root.domains.iterdir())


@as_root
def test_no_permission(shell: Shell) -> None:
    """As another user nothing can be read or changed, and one line says so."""
    code = (
        "import os, sys, difflib, asyncio, filelock, traceback; from xlsnap import cli;"
        "import xlsnap.qemu, xlsnap.toolstack, xlsnap.cli.domains, xlsnap.cli.snapshots;"
        "os.setgid(65534); os.setuid(65534);"
        "sys.exit(cli.run(sys.argv[1:]))"
    )
    secret = shell.directory / "secret.conf"
    secret.write_text('name = "s"\n')
    secret.chmod(0o600)
    before = shell.everything()
    for arguments, status in (
        (("snapshot-list", "vm"), 4),
        (("snapshot-create", "-n", "s", "vm"), 4),
        (("list",), 4),
        (("snapshot-create", str(secret), "vm"), 2),
    ):
        command = [sys.executable, "-c", code, *shell.options, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (status, "")
        assert re.fullmatch(r"xlsnap: cannot read .*: Permission denied.*\n", done.stderr), done
    assert shell.everything() == before


def test_a_state_root_that_cannot_be_made(shell: Shell) -> None:
    result = shell.xlsnap("--root", "/proc/nowhere", "create", "-q", shell.config)
    assert (result.status, result.out) == (4, "")
    assert re.fullmatch(r"xlsnap: cannot create directory /proc/nowhere: .*\n", result.err)


@as_root
@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare")
def test_no_space(shell: Shell) -> None:
    """On a file system that is full: all is undone, the guest goes on, and a retry succeeds."""
    shell.do("destroy", "vm")
    (shell.directory / "small").mkdir()
    inner = shell.file("inner.py", NO_SPACE)
    script = 'mount -t tmpfs -o size=2m none "$1/small" && exec "$2" "$3" "$1" "$4"'
    arguments = [str(shell.directory), sys.executable, inner, str(guest.image("rom"))]
    command = ["unshare", "-m", "sh", "-c", script, "sh", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    messages = done.stderr.splitlines()
    assert len(messages) == 2, messages
    assert all(re.fullmatch("xlsnap: .*No space left on device.*", line) for line in messages), messages
    assert json.loads(done.stdout) == {"before": [], "statuses": [4, 4], "after": ["s"], "word": "one"}


NO_SPACE = """
import json, os, sys
from pathlib import Path
from xlsnap import cli
from xlsnap.layout import StateRoot
from xlsnap.store import Store
from xlsnap.qemu.process import ProcessPaths
from xlsnap_conformance import guest

directory, rom = Path(sys.argv[1]), sys.argv[2]
small = directory / "small"
root = StateRoot.at(small / "root")

def xlsnap(*arguments):
    return cli.run(["--root", str(root.path), "--accelerator", "tcg", *arguments])

def files():
    unstable = {"journal.json", "lock", "session.lock"}
    return {
        (str(path), path.read_bytes()) for path in small.rglob("*")
        if path.is_file() and path.name not in unstable
    }

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
        statuses = []
        for left in (64 * 1024, 0):  # no space for the memory image, none at all
            with open(small / "ballast", "wb", buffering=0) as file:
                stat = os.statvfs(small)
                file.write(bytes(stat.f_bavail * stat.f_frsize - left))
            before = files()
            statuses.append(xlsnap("snapshot-create", "-n", "s", "vm"))
            assert files() == before, [path for path, _ in files() ^ before]
            (small / "ballast").unlink()
        listed = list(store.snapshots(record.uuid))
        word = probe.get("word")
        assert xlsnap("snapshot-create", "-n", "s", "vm") == 0
        after = list(store.snapshots(record.uuid))
    print(json.dumps({"before": listed, "statuses": statuses, "after": after, "word": word}))
finally:
    xlsnap("destroy", "vm")
"""
