# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where things are: the only module that turns names into paths.

::

    <root>/lock                                        guards domain names and ids
    <root>/domains/<uuid>/domain.json                  what we know of a domain
    <root>/domains/<uuid>/{lock,journal.json,qemu.log,*.sock}
    <root>/snapshots/<uuid>/snapshotdata-d.NAME.libxl-json
    <root>/snapshots/<uuid>/snapshotdata-n.NAME.libxl-json   not complete, or being deleted
    <root>/snapshots/<uuid>/NAME.save                  memory image

Directories have mode 0700, files 0600.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path

import msgspec

from .errors import HostError, InputError
from .names import check_name

ROOT_VARIABLE = "XLSNAP_ROOT"
"""Environment variable that chooses the state root."""

COMPLETE_PREFIX = "snapshotdata-d."
HIDDEN_PREFIX = "snapshotdata-n."
METADATA_SUFFIX = ".libxl-json"
MEMORY_SUFFIX = ".save"


class StateRoot(msgspec.Struct, frozen=True):
    """The directory under which all state of the toolstack is."""

    path: Path

    @classmethod
    def default(cls) -> StateRoot:
        """``$XLSNAP_ROOT``; else ``/var/lib/xen`` for root and the XDG state directory for others."""
        chosen = os.environ.get(ROOT_VARIABLE)
        if chosen:
            return cls.at(chosen)
        if os.geteuid() == 0:
            return cls(Path("/var/lib/xen"))
        import platformdirs

        return cls(Path(platformdirs.user_state_dir("xlsnap", appauthor=False)))

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> StateRoot:
        """Use the directory `path`, made absolute."""
        text = os.fspath(path)
        if not text or "\0" in text:
            raise InputError(f"bad state root {text!r}", hint=f"set --root or {ROOT_VARIABLE} to a directory")
        return cls(Path(os.path.abspath(text)))

    @property
    def domains(self) -> Path:
        """The directory of all domain directories."""
        return self.path / "domains"

    @property
    def lock(self) -> Path:
        """Lock file that guards the allocation of names and ids."""
        return self.path / "lock"

    @property
    def accelerator_cache(self) -> Path:
        """What the last trial of the accelerators found."""
        return self.path / "accelerator.json"

    def domain(self, uuid: str) -> DomainPaths:
        """Return the paths of the domain with this uuid."""
        return _domain_paths(self.path, uuid)


class DomainPaths(msgspec.Struct, frozen=True):
    """All paths that belong to one domain. Names are checked before they become paths."""

    root: Path
    uuid: str

    @property
    def directory(self) -> Path:
        """Run-time state: record, lock, journal, sockets."""
        return self.root / "domains" / self.uuid

    @property
    def record(self) -> Path:
        """What we know of the domain (JSON)."""
        return self.directory / "domain.json"

    @property
    def new_record(self) -> Path:
        """The record that is being written; left by a toolstack that was killed there."""
        return self.directory / ".domain.json.new"

    @property
    def lock(self) -> Path:
        """Lock file: one operation at a time."""
        return self.directory / "lock"

    @property
    def journal(self) -> Path:
        """The plan that is being carried out, or that was when its process died."""
        return self.directory / "journal.json"

    @property
    def log(self) -> Path:
        """What QEMU wrote to its standard error."""
        return self.directory / "qemu.log"

    @property
    def console(self) -> Path:
        """Unix socket of the first serial port."""
        return self.directory / "console.sock"

    @property
    def snapshots(self) -> Path:
        """Snapshot metadata and default memory images."""
        return self.root / "snapshots" / self.uuid

    def metadata(self, name: str) -> Path:
        """Return the metadata file of a complete snapshot."""
        return self.snapshots / f"{COMPLETE_PREFIX}{check_name(name)}{METADATA_SUFFIX}"

    def hidden_metadata(self, name: str) -> Path:
        """Return the metadata file of a snapshot that is not complete yet, or no longer."""
        return self.snapshots / f"{HIDDEN_PREFIX}{check_name(name)}{METADATA_SUFFIX}"

    def memory_image(self, name: str) -> Path:
        """Return the default place of the memory image."""
        return self.snapshots / f"{check_name(name)}{MEMORY_SUFFIX}"


@lru_cache(maxsize=1024)
def _domain_paths(root: Path, uuid: str) -> DomainPaths:
    return DomainPaths(root=root, uuid=canonical_uuid(uuid))


def name_of_metadata(filename: str, prefix: str = COMPLETE_PREFIX) -> str | None:
    """Return the snapshot name in the name of a metadata file, or None if it is none."""
    if filename.startswith(prefix) and filename.endswith(METADATA_SUFFIX):
        return filename[len(prefix) : -len(METADATA_SUFFIX)]
    return None


_UUID = re.compile(r"([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})")


def canonical_uuid(text: str) -> str:
    """Return a uuid in its usual lower-case form with dashes.

    :raise InputError: if it is none.
    """
    match = _UUID.fullmatch(text.lower())
    if match is None:
        raise InputError(f"bad uuid {text!r}", hint="32 hexadecimal digits, usually as 8-4-4-4-12")
    return "-".join(match.groups())


def make_private_directory(path: Path) -> None:
    """Create a directory and its missing parents with mode 0700.

    :raise HostError: if that is not possible.
    """
    try:
        missing = []
        while not path.is_dir():
            missing.append(path)
            if path.parent == path:
                break
            path = path.parent
        for directory in reversed(missing):
            directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise HostError(
            f"cannot create directory {error.filename or path}: {error.strerror}",
            hint=f"choose another state root with --root or {ROOT_VARIABLE}",
        ) from error
