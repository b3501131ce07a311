# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where what was made is kept: directories named by a key over all that decides their content.

A directory appears under its name when it is complete, by a rename; so what is there can be used without
asking. Whoever makes one holds a lock, so that two do not make the same at a time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import platformdirs

from .failure import XenHostError

LOCK_SECONDS = 900.0
"""How long to wait for another process that makes the same thing."""

KEEP_SECONDS = 14 * 86400.0
"""What was not used for so long is removed when something new is made."""

KEEP_NUMBER = 4
"""So many of a kind are kept at most, those that were used last: one takes half a GB."""

_KEY_CHARACTERS = 16


def default_directory() -> Path:
    """Return the directory of the cache, made with mode 0700: ``xen`` in the user's cache of this kit."""
    path = platformdirs.user_cache_path("xlsnap") / "xen"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def key(parts: Iterable[str]) -> str:
    """Return the key of a list of texts; the order counts."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:_KEY_CHARACTERS]


def digest_of(paths: Iterable[Path]) -> str:
    """Return a hash over the contents of files, for a key."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


class Kept:
    """Things of one kind, each a directory with a key for its name."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def find(self, name: str) -> Path | None:
        """Return the directory with this key if there is one, and note that it was used."""
        path = self.directory / name
        if not path.is_dir():
            return None
        os.utime(path)
        return path

    @contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """Yield an empty directory, which is kept under this key if nothing fails.

        :raise XenHostError: if it does not fit on the disk.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=self.directory))
        try:
            yield scratch
            target = self.directory / name
            if target.exists():  # made again on purpose
                shutil.rmtree(target)
            scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let only one process at a time make things of this kind.

        :raise XenHostError: if another takes too long.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.directory / "lock"
        try:
            with filelock.FileLock(path, timeout=LOCK_SECONDS, mode=0o600):
                yield
        except filelock.Timeout:
            raise XenHostError(f"another process holds {path} for more than {LOCK_SECONDS:g} s") from None

    def remove_old(self, *but: str) -> None:
        """Remove what has not been used for long, what is too much, and what a killed process left half made.

        :param but: what is not to be removed in any case.
        """
        now = time.time()
        ages = {path: now - path.stat().st_mtime for path in self.directory.iterdir() if path.is_dir()}
        whole = sorted((path for path in ages if not path.name.startswith(".")), key=ages.__getitem__)
        kept = {path for path in whole[:KEEP_NUMBER] if ages[path] < KEEP_SECONDS}
        for path, age in ages.items():
            at_work = path.name.startswith(".") and age < LOCK_SECONDS
            if path not in kept and path.name not in but and not at_work:
                shutil.rmtree(path, ignore_errors=True)
