# SPDX-License-Identifier: LGPL-2.1-or-later
"""The wheel: built from a copy of the source, installed into a fresh virtual environment, and used there.

Nothing is downloaded: hatchling is taken from this environment, and the fresh one borrows its dependencies.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
GENERATED = {".git", ".venv", ".hypothesis", "__pycache__", "images"}
GENERATED_AT_TOP = {"dist", "build", "report"}


def generated(directory: str, names: list[str]) -> set[str]:
    """What a clean checkout would not have; for shutil.copytree."""
    top = GENERATED_AT_TOP if Path(directory) == ROOT else set()
    return {name for name in names if name in GENERATED | top or name.endswith("_cache")}


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that must succeed, with nothing of this environment on its path."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The wheel, built once even when several pytest-xdist workers ask for it."""
    shared = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        shared = shared.parent
    with FileLock(shared / "wheel.lock"):
        if not (shared / "wheel").exists():
            source = shared / "source"
            shutil.copytree(ROOT, source, ignore=generated)
            pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel")
            run(*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", shared / "built", ".", cwd=source)
            (shared / "built").rename(shared / "wheel")
    (found,) = (shared / "wheel").glob("*.whl")
    return found


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of a fresh virtual environment with the wheel in it."""
    directory = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", "--without-pip", directory / "venv", cwd=directory)
    python = directory / "venv/bin/python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=directory)
    (site_packages,) = (directory / "venv/lib").glob("python*/site-packages")
    # Python does not read the .pth files of a directory named in one: this checkout stays out of sight.
    lenders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site_packages / "dependencies.pth").write_text("\n".join(sorted(lenders)) + "\n")
    return python.parent


def test_the_wheel_has_every_file_of_the_packages_and_the_specification(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    packages = ("grammars/xlsnap_grammars", "reference/xlsnap", "conformance/xlsnap_conformance")
    expected = {
        path.relative_to(ROOT / package.split("/")[0]).as_posix()
        for package in packages
        for path in (ROOT / package).rglob("*")
        if path.is_file() and not GENERATED & {*path.parts}
    }
    chapters = {f"xlsnap_conformance/spec/{path.name}" for path in (ROOT / "spec").glob("*.md")}
    assert chapters
    assert expected | chapters <= names, f"not in the wheel: {sorted((expected | chapters) - names)}"


@pytest.mark.parametrize(
    "pattern",
    [
        "xlsnap_grammars/*.lark",
        "xlsnap_grammars/py.typed",
        "xlsnap/py.typed",
        "xlsnap_conformance/py.typed",
        "xlsnap_conformance/spec/*.md",
        "xlsnap_conformance/schemas/driver-protocol.schema.json",
        "xlsnap_conformance/guest/images/probe.rom",
        "xlsnap_conformance/guest/images/probe.img",
        "xlsnap_conformance/guest/images/probe.iso",
        "xlsnap-*.dist-info/licenses/LICENSE",
        "xlsnap-*.dist-info/entry_points.txt",
    ],
)
def test_the_wheel_has(wheel: Path, pattern: str) -> None:
    members = [zipfile.Path(wheel, name) for name in zipfile.ZipFile(wheel).namelist()]
    found = [member for member in members if Path(member.at).match(pattern)]
    assert found, f"no {pattern} in {wheel.name}"
    if not pattern.endswith("py.typed"):
        assert all(member.read_bytes() for member in found)


def test_the_wheel_holds_no_other_top_level_package(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    metadata = {top for top in tops if top.endswith(".dist-info")}
    assert tops - metadata == {"xlsnap", "xlsnap_grammars", "xlsnap_conformance"}


def test_the_wheel_is_for_any_platform(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")


@pytest.mark.parametrize("command", ["xlsnap", "xlsnap-conformance"])
def test_the_commands_run(installed: Path, command: str, tmp_path: Path) -> None:
    version = run(
        installed / "python", "-c", "import xlsnap; print(xlsnap.__version__)", cwd=tmp_path
    ).strip()
    assert version in run(installed / command, "--version", cwd=tmp_path)
    assert "Usage:" in run(installed / command, "--help", cwd=tmp_path)


def test_the_packages_are_imported_from_the_wheel_and_find_their_data(
    installed: Path, tmp_path: Path
) -> None:
    script = """
import xlsnap, xlsnap_conformance, xlsnap_grammars
from xlsnap_conformance import guest
from xlsnap_conformance.clauses import load_clauses
for module in (xlsnap, xlsnap_conformance, xlsnap_grammars):
    print(module.__file__)
assert xlsnap_grammars.parse_snapshot_config('name = "a"').name == "a"
assert "XLS-CREATE-001" in load_clauses()
for kind in ("rom", "disk", "iso"):
    path = guest.image(kind)
    assert path.stat().st_size, path
    print(path)
"""
    lines = run(installed / "python", "-c", script, cwd=tmp_path).splitlines()
    assert len(lines) == 6
    assert all(Path(line).is_relative_to(installed.parent) for line in lines), lines
