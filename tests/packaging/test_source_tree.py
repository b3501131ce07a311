# SPDX-License-Identifier: LGPL-2.1-or-later
"""What holds for every source file: import arrows, licence line, size, nothing of a developer's machine."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "xlsnap_grammars": ROOT / "grammars/xlsnap_grammars",
    "xlsnap": ROOT / "reference/xlsnap",
    "xlsnap_conformance": ROOT / "conformance/xlsnap_conformance",
}
DEPENDENCIES = {
    re.split(r"[<>=~! \[;]", requirement)[0]
    for requirement in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
}

#: Names that a distribution, and what it is made of, is imported by.
IMPORT_NAMES = {
    "attrs": {"attr", "attrs"},
    "jinja2": {"jinja2", "markupsafe"},
    "pytest-xdist": {"xdist"},
    "qemu.qmp": {"qemu"},
}

#: What a package may import, besides itself and the standard library. The suite shares no code with what it
#: judges; only the driver that plugs the reference in may import that, and its grammars.
ALLOWED = {
    "xlsnap_grammars": {"lark"},
    "xlsnap": DEPENDENCIES - {"hypothesis", "pytest", "pytest-xdist", "jinja2"} | {"xlsnap_grammars"},
    "xlsnap_conformance": DEPENDENCIES,
}
#: What one module may import although it is an extra, which not everybody installs.
OPTIONAL = {"sharing.py": {"redis"}}
REFERENCE_DRIVER = PACKAGES["xlsnap_conformance"] / "drivers/reference"

#: Modules longer than this need a reason below.
MAX_LINES = 400
LONG_MODULES: dict[str, str] = {}

#: Directories that hold no source: anywhere, and at the top.
GENERATED = {".git", ".venv", ".hypothesis", "__pycache__", "images"}
GENERATED_AT_TOP = {"dist", "build", "report"}


def source_files() -> Iterator[Path]:
    """All text files of the project that people write."""
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        generated = any(part in GENERATED or part.endswith("_cache") for part in parts)
        if path.is_file() and not generated and parts[0] not in GENERATED_AT_TOP:
            yield path


def modules(package: str) -> list[Path]:
    return sorted(path for path in PACKAGES[package].rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The top-level names that a module imports, wherever in it the import stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(), path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module or "")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names |= {str(part.value) for part in node.args if isinstance(part, ast.Constant)}
    return {name.split(".")[0] for name in names}


def allowed(package: str, path: Path) -> set[str]:
    names = {package}
    for dependency in ALLOWED[package]:
        names |= IMPORT_NAMES.get(dependency, {dependency})
    if path.is_relative_to(REFERENCE_DRIVER):
        names |= {"xlsnap", "xlsnap_grammars"}
    return names | OPTIONAL.get(path.name, set()) | set(sys.stdlib_module_names)


@pytest.mark.parametrize("package", PACKAGES)
def test_import_arrows_hold(package: str) -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imported(path) - allowed(package, path)
    }
    assert not wrong


def test_the_asyncio_client_of_qemu_qmp_is_the_only_one_used() -> None:
    """qemu.qmp.legacy is GPL-2.0-only; the rest of qemu.qmp is LGPL-2.0-or-later."""
    legacy = re.compile(r"qemu\.qmp\.legacy|from qemu\.qmp import .*\blegacy\b")
    assert not [path for package in PACKAGES for path in modules(package) if legacy.search(path.read_text())]


def test_every_source_file_has_its_licence_line() -> None:
    line = "SPDX-License-Identifier: LGPL-2.1-or-later"
    suffixes = {".py", ".lark", ".c", ".h", ".S", ".ld", ".sh"}
    wrong = [
        str(path.relative_to(ROOT))
        for path in source_files()
        if (path.suffix in suffixes or path.name in ("Makefile", "run"))
        and not any(line in text for text in path.read_text().splitlines()[:3])
    ]
    assert not wrong


def test_modules_are_short() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for package in PACKAGES
        for path in modules(package)
    }
    too_long = {name: length for name, length in lengths.items() if length > MAX_LINES}
    assert too_long.keys() == LONG_MODULES.keys(), f"longer than {MAX_LINES} lines: {too_long}"


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(r"(?<![\w.<>}])/(root|home/\w+|Users/\w+|work|mnt)/", id="a path of somebody's machine"),
        pytest.param(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b", id="a mark of unfinished work"),
        pytest.param(r"<<<<" "<<< |>>>>" ">>> ", id="a mark of a merge conflict"),
        pytest.param("\r|[ \t]+$", id="a carriage return, or space at the end of a line"),
    ],
)
def test_no_source_file_holds(what: str) -> None:
    pattern = re.compile(what, re.MULTILINE)
    found = []
    for path in source_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match[0]!r}" for match in pattern.finditer(text)]
    assert not found


def test_set_up_and_packaging_agree_on_the_oldest_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    minor = re.search(r"^oldest_minor=(\d+)", (ROOT / "scripts/setup.sh").read_text(), re.MULTILINE)
    assert minor
    assert project["requires-python"] == f">=3.{minor[1]}"


def test_documents_name_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in ("README.md", "CONTRIBUTING.md", "tests/bench/README.md"):
        named = set(re.findall(r"(?:`|^    )make ([a-z]+)", (ROOT / document).read_text(), re.MULTILINE))
        assert named <= targets, f"{document} names {named - targets}"


def test_documents_link_to_files_that_exist() -> None:
    for document in ROOT.glob("*.md"):
        links = re.findall(r"\]\(([^):#]+)\)", document.read_text())
        missing = [link for link in links if not (ROOT / link).exists()]
        assert not missing, f"{document.name} links to {missing}"
