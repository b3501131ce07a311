# SPDX-License-Identifier: LGPL-2.1-or-later
"""scripts/setup.sh on made-up machines: every command that it may find is a fake on a PATH of its own."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Real programs that the script may use on any machine.
TOOLS = "awk basename cat cksum cp dirname env find grep mkdir mktemp rm sed sh sort tail touch xargs"

#: What is on a machine that lacks nothing but a virtual environment.
EVERYTHING = ("qemu-system-x86_64", "qemu-img", "qemu-io", "gcc", "ld", "objcopy", "jq", "python3.11")

#: An interpreter, as far as the script looks at it. `-m venv` copies it; `-m pip install` makes the directory
#: of the probe guest's images, as the build does.
PYTHON = """
case "$*" in
    -c*) exit ${PYTHON_STATUS:-0} ;;
    --version) echo "Python 9.9.9 ($(basename "$0"))" ;;
    *'-m venv '*) mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
    *'pip --version'*) [ ! -e .venv/no-pip ] ;;
    *install*) [ -z "${PIP_BREAKS:-}" ] || { echo "ERROR: no matching distribution"; exit 1; }
               mkdir -p conformance/xlsnap_conformance/guest/images ;;
esac
"""

#: apt-get that knows some packages, and puts their commands on the PATH.
APT_GET = """
[ -z "${APT_BREAKS:-}" ] || { echo "E: Unable to fetch some archives"; exit 100; }
for word in "$@"; do
    case $word in
        qemu-system-x86) new=qemu-system-x86_64 ;;
        qemu-utils) new='qemu-img qemu-io' ;;
        binutils) new='ld objcopy' ;;
        gcc) new=gcc ;;
        jq) new=jq ;;
        python3.12-venv) new=python3.12; cp "$bin/../python" "$bin/python3.12"; continue ;;
        libxen-dev) touch "$bin/../libxlutil.h"; continue ;;
        *) continue ;;
    esac
    for command in $new; do cp "$bin/../gcc" "$bin/$command"; done
done
"""

#: gcc that finds <stdio.h>, and <libxlutil.h> once its package is there.
GCC = """
case $(cat) in *libxlutil*) [ -e "$bin/../libxlutil.h" ] ;; esac
"""


class Machine:
    """A checkout, and a PATH with fakes that log how they were called."""

    def __init__(self, directory: Path) -> None:
        self.bin = directory / "bin"
        self.bin.mkdir()
        self.log = directory / "log"
        self.log.touch()
        self.checkout = directory / "a checkout"
        guest = self.checkout / "conformance/xlsnap_conformance/guest"
        guest.mkdir(parents=True)
        (guest / "probe.c").write_text("int x;\n")
        (guest / "NOTES.md").write_text("Notes.\n")
        (self.checkout / "scripts").mkdir()
        shutil.copy(ROOT / "scripts/setup.sh", self.checkout / "scripts")
        for name in ("pyproject.toml", "hatch_build.py"):
            shutil.copy(ROOT / name, self.checkout)
        for name in TOOLS.split():
            real = shutil.which(name)
            assert real, f"this test needs {name}"
            (self.bin / name).symlink_to(real)
        for name, body in (("python", PYTHON), ("gcc", GCC)):  # for the fakes to copy
            self._write(directory / name, body)
        self.has("id", body='echo "${FAKE_UID:-0}"')

    def _write(self, path: Path, body: str) -> None:
        call = f'echo "$(basename "$0") $*" >> "{self.log}"'
        path.write_text(f'#!/bin/sh\nbin="{self.bin}"\n{call}\n{body}\n')
        path.chmod(0o755)

    def has(self, *names: str, body: str | None = None) -> None:
        """Put fakes on the PATH."""
        for name in names:
            default = PYTHON if name.startswith("python") else GCC if name == "gcc" else ":"
            self._write(self.bin / name, default if body is None else body)

    def has_apt(self, newest_python: str = "python3.12-venv") -> None:
        self.has("apt-get", body=APT_GET)
        self.has("apt-cache", body=f'[ "$2" = {newest_python} ]')

    def has_libxlu(self) -> None:
        (self.bin.parent / "libxlutil.h").touch()

    def set_up(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the script; forget what was logged before."""
        self.log.write_text("")
        return subprocess.run(
            [self.checkout / "scripts/setup.sh"],
            env={"PATH": str(self.bin), "TMPDIR": str(self.bin.parent), **environment},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )

    def calls(self, name: str) -> list[str]:
        """The arguments of each call of a fake."""
        lines = self.log.read_text().splitlines()
        return [line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")]

    def pip_installs(self) -> list[str]:
        return [call for call in self.calls("python") if "pip" in call and "install" in call]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


PACKAGE_LINES = {
    "apt-get install": "qemu-system-x86 qemu-utils gcc binutils python3-venv libc6-dev jq libxen-dev",
    "dnf install": "qemu-system-x86-core qemu-img gcc binutils python3 glibc-devel jq xen-devel",
    "zypper install": "qemu-x86 qemu-tools gcc binutils python311 glibc-devel jq xen-devel",
    "pacman -S": "qemu-system-x86 qemu-img gcc binutils python glibc jq",
}


def assert_one_message(result: subprocess.CompletedProcess[str], why: str) -> None:
    assert result.returncode == 1
    assert result.stderr.count("set-up: cannot install it:") == 1
    assert why in result.stderr
    for command, packages in PACKAGE_LINES.items():
        assert f"{command} {packages}\n" in result.stderr


def test_without_apt_get_one_message_names_the_packages_of_four_package_managers(machine: Machine) -> None:
    result = machine.set_up()
    assert_one_message(result, "there is no apt-get")
    assert "Python 3.11 or newer with venv" in result.stderr
    assert result.stdout == ""
    assert not (machine.checkout / ".venv").exists()


def test_the_message_names_only_what_is_missing(machine: Machine) -> None:
    machine.has(*EVERYTHING)
    machine.has_libxlu()
    (machine.bin / "qemu-img").unlink()
    result = machine.set_up()
    assert result.returncode == 1
    assert "missing: qemu-img\n" in result.stderr
    assert "apt-get install qemu-utils\n" in result.stderr


def test_without_root_and_sudo_nothing_is_tried(machine: Machine) -> None:
    machine.has_apt()
    result = machine.set_up(FAKE_UID="1000")
    assert_one_message(result, "no sudo")
    assert machine.calls("apt-get") == []


def test_root_installs_without_sudo(machine: Machine) -> None:
    machine.has_apt()
    machine.has("sudo", body="exit 1")
    result = machine.set_up()
    assert result.returncode == 0, result.stderr
    assert machine.calls("sudo") == []
    update, install = machine.calls("apt-get")
    assert update.endswith(" update")
    packages = install.split("--no-install-recommends ")[1]
    assert packages == PACKAGE_LINES["apt-get install"].replace("python3-venv", "python3.12-venv")
    assert "Python 9.9.9 (python3.12) in .venv" in result.stdout
    (pip,) = machine.pip_installs()
    assert pip.endswith("-e .[dev]")


def test_a_user_installs_through_sudo_and_only_the_system_packages(machine: Machine) -> None:
    machine.has_apt()
    machine.has("sudo", body='exec "$@"')
    result = machine.set_up(FAKE_UID="1000")
    assert result.returncode == 0, result.stderr
    assert [call.split()[:3] for call in machine.calls("sudo")] == [
        ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    ] * 2
    assert len(machine.pip_installs()) == 1


def test_sudo_that_is_refused_ends_in_the_message(machine: Machine) -> None:
    machine.has_apt()
    machine.has("sudo", body='echo "sudo: a password is required"; exit 1')
    result = machine.set_up(FAKE_UID="1000")
    assert_one_message(result, "apt-get did not provide it")
    assert "a password is required" in result.stderr


def test_apt_get_that_fails_shows_why(machine: Machine) -> None:
    machine.has_apt()
    result = machine.set_up(APT_BREAKS="1")
    assert_one_message(result, "apt-get did not provide it")
    assert "Unable to fetch some archives" in result.stderr


def test_a_machine_that_has_everything_needs_no_package_manager(machine: Machine) -> None:
    machine.has_apt()
    machine.has(*EVERYTHING)
    machine.has_libxlu()
    result = machine.set_up()
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert machine.calls("apt-get") == []


def test_the_second_run_does_nothing(machine: Machine) -> None:
    machine.has(*EVERYTHING)
    machine.has_libxlu()
    assert machine.set_up().returncode == 0
    again = machine.set_up()
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert machine.log.read_text() == ""


@pytest.mark.parametrize(
    ("path", "repeated"),
    [
        ("pyproject.toml", True),
        ("hatch_build.py", True),
        ("conformance/xlsnap_conformance/guest/probe.c", True),
        ("conformance/xlsnap_conformance/guest/NOTES.md", False),
    ],
)
def test_the_set_up_is_repeated_when_what_it_depends_on_changes(
    machine: Machine, path: str, repeated: bool
) -> None:
    machine.has(*EVERYTHING)
    assert machine.set_up().returncode == 0
    stamps = os.stat(machine.checkout / path)
    with (machine.checkout / path).open("a") as file:
        file.write("\n")
    os.utime(machine.checkout / path, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))  # content counts, not time
    assert machine.set_up().returncode == 0
    assert len(machine.pip_installs()) == repeated
    assert not any("venv" in call for call in machine.calls("python3.11"))


def test_a_moved_checkout_is_set_up_again(machine: Machine) -> None:
    machine.has(*EVERYTHING)
    assert machine.set_up().returncode == 0
    machine.checkout = machine.checkout.rename(machine.checkout.with_name("moved"))
    assert machine.set_up().returncode == 0
    assert len(machine.pip_installs()) == 1


def test_images_that_were_removed_are_built_again(machine: Machine) -> None:
    machine.has(*EVERYTHING)
    assert machine.set_up().returncode == 0
    shutil.rmtree(machine.checkout / "conformance/xlsnap_conformance/guest/images")
    assert machine.set_up().returncode == 0
    assert len(machine.pip_installs()) == 1


@pytest.mark.parametrize("damage", ["dangling interpreter", "no pip", "empty directory"])
def test_a_broken_virtual_environment_is_made_again(machine: Machine, damage: str) -> None:
    machine.has(*EVERYTHING)
    assert machine.set_up().returncode == 0
    venv = machine.checkout / ".venv"
    (venv / ".xlsnap-setup").unlink()
    match damage:
        case "dangling interpreter":
            (venv / "bin/python").unlink()
            (venv / "bin/python").symlink_to("/nonexistent/python3.11")
        case "no pip":
            (venv / "no-pip").touch()
        case "empty directory":
            shutil.rmtree(venv)
            venv.mkdir()
    result = machine.set_up()
    assert result.returncode == 0, result.stderr
    assert ".venv is broken or too old: making it again" in result.stdout
    assert len(machine.pip_installs()) == 1
    assert machine.set_up().stdout == ""


def test_pip_that_fails_shows_its_last_lines_and_is_tried_again(machine: Machine) -> None:
    machine.has(*EVERYTHING)
    broken = machine.set_up(PIP_BREAKS="1")
    assert broken.returncode == 1
    assert "no matching distribution" in broken.stderr
    assert "PIP_INDEX_URL" in broken.stderr
    assert "done" not in broken.stdout
    assert machine.set_up().returncode == 0
    assert len(machine.pip_installs()) == 1


def test_the_newest_python_is_chosen(machine: Machine) -> None:
    machine.has(*EVERYTHING, "python3.13", "python3.12", "python3")
    assert "(python3.13) in .venv" in machine.set_up().stdout


def test_an_older_python_that_works_is_chosen_before_a_newer_one_that_does_not(machine: Machine) -> None:
    machine.has(*EVERYTHING)
    machine.has("python3.13", body="exit 1")
    assert "(python3.11) in .venv" in machine.set_up().stdout


def test_python_can_be_chosen(machine: Machine) -> None:
    machine.has(*EVERYTHING, "python3.13")
    assert "(python3.11) in .venv" in machine.set_up(PYTHON="python3.11").stdout


def test_python_that_is_all_too_old_is_one_clear_message(machine: Machine) -> None:
    machine.has(*EVERYTHING)
    machine.has_libxlu()
    result = machine.set_up(PYTHON_STATUS="1")
    assert result.returncode == 1
    assert "missing: Python 3.11 or newer with venv\n" in result.stderr


def test_a_chosen_python_that_is_not_suitable_is_refused_before_anything_is_installed(
    machine: Machine,
) -> None:
    machine.has_apt()
    result = machine.set_up(PYTHON="python2.7")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "PYTHON=python2.7 is not Python 3.11 or newer" in result.stderr
    assert machine.calls("apt-get") == []


def test_a_distribution_without_a_new_python_is_one_clear_message(machine: Machine) -> None:
    machine.has(*EVERYTHING)
    (machine.bin / "python3.11").unlink()
    machine.has_apt(newest_python="python3.9-venv")
    result = machine.set_up()
    assert result.returncode == 1
    assert "missing: Python 3.11 or newer with venv\n" in result.stderr
    assert "this distribution has no Python 3.11; choose one of your own with PYTHON=COMMAND" in result.stderr


def test_without_libxlu_the_set_up_goes_on_and_says_what_is_lost(machine: Machine) -> None:
    machine.has(*EVERYTHING)
    result = machine.set_up()
    assert result.returncode == 0
    assert "without libxlutil.h: the tests that need it will be skipped" in result.stdout


def test_nothing_is_left_in_the_directory_for_temporary_files(machine: Machine) -> None:
    before = {path.name for path in machine.bin.parent.iterdir()}
    machine.set_up()
    machine.has(*EVERYTHING)
    machine.set_up(PIP_BREAKS="1")
    machine.set_up()
    assert {path.name for path in machine.bin.parent.iterdir()} == before
