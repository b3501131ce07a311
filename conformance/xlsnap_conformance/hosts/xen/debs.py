# SPDX-License-Identifier: LGPL-2.1-or-later
"""The files inside of Debian packages, read without unpacking them anywhere."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

from .cpio import Entry, Tree
from .failure import XenHostError

MERGED = ("bin", "sbin", "lib", "lib64")
"""Directories that are links into ``usr/`` on an installed system, while packages may still have them."""

_KINDS = {tarfile.REGTYPE: 0o100000, tarfile.AREGTYPE: 0o100000, tarfile.SYMTYPE: 0o120000}


def read(packages: Iterable[Path], wanted: Callable[[str], bool]) -> Tree:
    """Return the files and links that ``wanted`` says yes to, by their paths below a merged ``usr/``.

    Directories are left out: an archive makes those that it needs.

    :raise XenHostError: for a package that cannot be read.
    """
    tree: Tree = {}
    for package in packages:
        tree.update(_read(package, wanted))
    return tree


def merged(path: str) -> str:
    """Return a path of a package as it is on a system whose ``/bin`` is a link to ``usr/bin``."""
    path = path.removeprefix("./").strip("/")
    return f"usr/{path}" if path.partition("/")[0] in MERGED else path


def _read(package: Path, wanted: Callable[[str], bool]) -> Tree:
    tree: Tree = {}
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    path = merged(member.name)
                    if not wanted(path):
                        continue
                    if member.islnk():  # to a member before it
                        target = tree.get(merged(member.linkname))
                        if target is not None:
                            tree[path] = target
                    elif member.type in _KINDS:
                        content = archive.extractfile(member).read() if member.isreg() else b""  # type: ignore[union-attr]  # a regular file has one
                        data = content if member.isreg() else member.linkname.encode()
                        tree[path] = Entry(_KINDS[member.type] | member.mode & 0o7777, data)
            process.stdout.read()  # to its end, or dpkg-deb complains
        except tarfile.TarError as error:
            process.kill()
            raise XenHostError(f"{package.name} cannot be read: {error}; remove it and build again") from None
        complaint = process.stderr.read().decode(errors="replace").strip()
    if process.returncode != 0:
        raise XenHostError(f"{package.name} cannot be read: {complaint}; remove it and build again")
    return tree
