# SPDX-License-Identifier: LGPL-2.1-or-later
"""Python code for dom0: libraries, which are part of a host, and the kit's own, which is sent to it.

The kit's own is no part of a frozen host, so that a change of it does not cost a boot. Libraries with
compiled parts are those of dom0's Python (3.11, x86-64): from this environment if it is such a one, else by
pip.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import marshal
import os
import platform
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from . import cpio
from .cache import Kept, key
from .cpio import Tree
from .failure import XenHostError

VERSION = (3, 11)
"""Python of dom0, as `contents` chooses it."""

PACKAGES = "usr/local/lib/python3.11/dist-packages"
"""Where Debian's Python looks for what was not installed by Debian."""

COMMANDS = "usr/local/bin"

OURS = ("xlsnap_grammars", "xlsnap", "xlsnap_conformance")
LIBRARIES = ("attrs", "click", "filelock", "lark", "msgspec", "platformdirs", "psutil", "qemu.qmp", "rich")
_ENTRIES = {"xlsnap": "xlsnap.cli", "xlsnap-conformance": "xlsnap_conformance.cli"}

PIP_SECONDS = 300

_UNCHECKED_HASH = 1  # flags of a compiled file: PEP 552


def kit() -> bytes:
    """Return a tar archive of the kit's own code, to unpack at the root of dom0.

    :raise XenHostError: if a part of it is not installed.
    """
    tree = _tree({f"{PACKAGES}/{name}": path for name, path in _our_files()})
    for command, module in _ENTRIES.items():
        script = f'#!/bin/sh\nexec python3 -m {module} "$@"\n'
        tree[f"{COMMANDS}/{command}"] = cpio.file(script.encode(), 0o755)
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, entry in tree.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(entry.data), entry.mode & 0o777
            archive.addfile(member, io.BytesIO(entry.data))
    return output.getvalue()


def library_versions() -> list[str]:
    """Return names and versions of the libraries, and whether they are taken from here: for a key."""
    return [*_wanted(), str(is_like_dom0())]


def libraries(cache: Path) -> Tree:
    """Return the libraries' files, compiled if that can be done here.

    :raise XenHostError: if they cannot be had.
    """
    if is_like_dom0():
        files = {name: path for library in LIBRARIES for name, path in _files_of(library)}
    else:
        top = _fetched(cache)
        files = {str(path.relative_to(top)): path for path in sorted(top.rglob("*")) if path.is_file()}
    return _tree({f"{PACKAGES}/{name}": path for name, path in files.items()})


def _tree(files: dict[str, Path]) -> Tree:
    tree = {
        name: cpio.file(path.read_bytes(), 0o755 if os.access(path, os.X_OK) else 0o644)
        for name, path in files.items()
    }
    return tree | compiled(tree)


def compiled(tree: Tree) -> Tree:
    """Return the compiled forms of the Python sources in a tree; none if this is another Python than dom0's.

    Source: PEP 552 and PEP 3147. The hash is not looked at again, and the path in it is that in dom0.
    """
    result: Tree = {}
    if sys.implementation.name != "cpython" or sys.version_info[:2] != VERSION:
        return result
    for name, entry in tree.items():
        parent, _, file = name.rpartition("/")
        if not file.endswith(".py"):
            continue
        try:
            code = compile(entry.data, f"/{name}", "exec", dont_inherit=True)
        except (SyntaxError, ValueError):  # a template, say
            continue
        header = importlib.util.MAGIC_NUMBER + _UNCHECKED_HASH.to_bytes(4, "little")
        data = header + importlib.util.source_hash(entry.data) + marshal.dumps(code)
        result[f"{parent}/__pycache__/{file.removesuffix('.py')}.cpython-311.pyc"] = cpio.file(data)
    return result


def _our_files() -> Iterator[tuple[str, Path]]:
    for name in OURS:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise XenHostError(f"the package {name} is not installed beside this one")
        top = Path(next(iter(spec.submodule_search_locations)))
        for path in sorted(top.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield f"{name}/{path.relative_to(top)}", path
    yield from _files_of("xlsnap", only=".dist-info")


def _files_of(library: str, only: str = "") -> Iterator[tuple[str, Path]]:
    """Yield the files of an installed distribution, those outside of the directory of packages left out."""
    try:
        distribution = importlib.metadata.distribution(library)
    except importlib.metadata.PackageNotFoundError:
        raise XenHostError(f"the package {library} is not installed") from None
    for file in distribution.files or ():
        path = Path(str(distribution.locate_file(file)))
        if ".." not in file.parts and file.suffix != ".pyc" and only in file.parts[0] and path.is_file():
            yield str(file), path


def is_like_dom0() -> bool:
    """Say whether libraries of this environment run in dom0."""
    python = sys.implementation.name, sys.version_info[:2], platform.machine(), platform.libc_ver()[0]
    return python == ("cpython", VERSION, "x86_64", "glibc")


def _wanted() -> list[str]:
    try:
        return [f"{library}=={importlib.metadata.version(library)}" for library in LIBRARIES]
    except importlib.metadata.PackageNotFoundError as error:
        raise XenHostError(f"the package {error.name} is not installed") from None


def _fetched(cache: Path) -> Path:
    """Return a directory with the libraries for dom0's Python, in the versions that are installed here."""
    wanted = _wanted()
    kept = Kept(cache / "libraries")
    name = key(wanted)
    with kept.lock():
        found = kept.find(name)
        if found is not None:
            return found
        with kept.new(name) as directory:
            _pip("--target", str(directory), *wanted)
        return kept.directory / name


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    command += ["--no-compile", "--only-binary", ":all:", "--implementation", "cp"]
    command += ["--python-version", ".".join(map(str, VERSION))]
    for tag in ("manylinux2014_x86_64", "manylinux_2_28_x86_64"):
        command += ["--platform", tag]
    try:
        done = subprocess.run(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PIP_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise XenHostError(f"pip could not fetch libraries for dom0 within {PIP_SECONDS} s") from None
    if done.returncode != 0:
        raise XenHostError("pip could not fetch libraries for dom0's Python", detail=done.stderr.strip())
