# SPDX-License-Identifier: LGPL-2.1-or-later
"""Metadata files, domain records and locks: all of the toolstack's own files.

Files are written under a temporary name, synced and renamed, and their directory is synced, so that a
reader sees the old content or the new one and nothing in between.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from .errors import BusyError, HostError, InputError, InternalError, UnknownDomainError
from .layout import DomainPaths, StateRoot, make_private_directory
from .snapshot import DomainSnapshot
from .stored import Listing, StoredSnapshots, listing

if TYPE_CHECKING:
    from filelock import FileLock

    from .domain import DomainConfig, DomainRecord

T = TypeVar("T")

LOCK_POLL_SECONDS = 0.01
MAX_FILE_NAME_BYTES = 255
"""Limit of the file systems of Linux."""
ROOT_LOCK_SECONDS = 10.0


class DomainKey(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a domain's record that finding it takes, and the list of its snapshots."""

    uuid: str
    name: str
    domid: int | None = None
    current: str | None = None


class Store:
    """The files under one state root."""

    def __init__(self, root: StateRoot) -> None:
        self.root = root
        self._idle_locks: dict[Path, FileLock] = {}  # to make one costs as much as to use it

    # --- domains ----------------------------------------------------------------------------------------

    def domain_keys(self) -> list[DomainKey]:
        """Return how all known domains can be named, in the order of their ids; stopped ones come last.

        :raise HostError: if the state cannot be read.
        """
        try:
            uuids = sorted(os.listdir(self.root.domains))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise HostError(f"cannot read {self.root.domains}: {error.strerror}") from error
        found = [key for uuid in uuids if (key := _read(self.root.domain(uuid).record, DomainKey))]
        return sorted(found, key=lambda key: (key.domid is None, key.domid or 0, key.name))

    def find(self, ref: str) -> str:
        """Return the uuid of the domain with this name, id or uuid.

        :raise UnknownDomainError: if there is none.
        """
        return self.find_key(ref).uuid

    def find_key(self, ref: str) -> DomainKey:
        """Return what names the domain with this name, id or uuid, looked for in this order.

        :raise UnknownDomainError: if there is none.
        """
        keys = self.domain_keys()
        for matches in (
            lambda key: key.name == ref,
            lambda key: key.domid is not None and str(key.domid) == ref,
            lambda key: key.uuid == ref.lower(),
        ):
            for key in keys:
                if matches(key):
                    return key
        raise UnknownDomainError(f"no domain {ref!r}", hint="xlsnap list shows the domains")

    def resolve(self, ref: str) -> DomainRecord:
        """Return the record of the domain with this name, id or uuid.

        :raise UnknownDomainError: if there is none.
        """
        uuid = self.find(ref)
        record = self.record(uuid)
        if record is None:
            raise UnknownDomainError(f"domain {ref!r} is gone: another command removed it")
        return record

    def records(self) -> list[DomainRecord]:
        """Return the records of all known domains, ordered as `domain_keys`."""
        return [record for key in self.domain_keys() if (record := self.record(key.uuid))]

    def record(self, uuid: str) -> DomainRecord | None:
        """Return the record of the domain with this uuid, if it is known."""
        from .domain import DomainRecord  # only here: listing snapshots must be quick to start

        return _read(self.root.domain(uuid).record, DomainRecord)

    def write_record(self, record: DomainRecord) -> None:
        """Store what we know of a domain."""
        paths = self.root.domain(record.uuid)
        make_private_directory(paths.directory)
        write_durably(paths.record, msgspec.json.encode(record), temporary=paths.new_record)

    def forget_domain(self, uuid: str) -> None:
        """Remove the domain's directory with all that is in it, and its empty snapshot directory."""
        paths = self.root.domain(uuid)
        with contextlib.suppress(OSError):
            for entry in os.scandir(paths.directory):
                os.unlink(entry.path)
            os.rmdir(paths.directory)
        with contextlib.suppress(OSError):
            os.rmdir(paths.snapshots)

    def allocate_domid(self) -> int:
        """Return a domain id that was not used before under this root.

        :raise HostError: if it cannot be noted.
        """
        counter = self.root.path / "next-domid"
        with self.locked(self.root.lock, what=f"state root {self.root.path}", timeout=ROOT_LOCK_SECONDS):
            try:
                domid = self._read_counter(counter)
                fd = os.open(counter, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
                with open(fd, "w") as file:
                    file.write(str(domid + 1))
            except OSError as error:
                raise HostError(
                    f"cannot write {counter}: {error.strerror}", hint=space_hint(error)
                ) from error
        return domid

    def _read_counter(self, counter: Path) -> int:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int(counter.read_text())
        return max((key.domid or 0 for key in self.domain_keys()), default=0) + 1

    # --- snapshots --------------------------------------------------------------------------------------

    def snapshots(self, uuid: str) -> StoredSnapshots:
        """Return the complete snapshots of a domain by name; each is read when it is asked for."""
        return StoredSnapshots(self.root.domain(uuid))

    def list_snapshots(self, uuid: str) -> list[DomainSnapshot]:
        """Return all complete snapshots of a domain, ordered by creation time.

        A program that is to go on when one is damaged uses `listing`.

        :raise SnapshotDamagedError: if the metadata of one cannot be understood.
        """
        found = self.listing(uuid)
        for damaged in found.damaged:
            raise damaged.error
        return list(found.snapshots)

    def listing(self, uuid: str, *, hidden: bool = False) -> Listing:
        """Return all complete snapshots of a domain, or the `hidden` ones; damage of one hides no other.

        :raise HostError: if the directory cannot be read.
        """
        return listing(StoredSnapshots(self.root.domain(uuid), hidden=hidden))

    def hidden_names(self, uuid: str) -> list[str]:
        """Return the names of snapshots that are not complete or being deleted."""
        return list(StoredSnapshots(self.root.domain(uuid), hidden=True))

    def write_metadata(self, paths: DomainPaths, name: str, content: bytes) -> None:
        """Store the metadata of a snapshot, under its hidden name first."""
        make_private_directory(paths.snapshots)
        write_durably(paths.metadata(name), content, temporary=paths.hidden_metadata(name))

    def hide_metadata(self, paths: DomainPaths, name: str) -> None:
        """Take a snapshot out of the list; once more is no error.

        Not synced: the journal tells of a deletion that a power loss interrupts.
        """
        _rename(paths.metadata(name), paths.hidden_metadata(name))

    def show_metadata(self, paths: DomainPaths, name: str) -> None:
        """Put a hidden snapshot back into the list; once more is no error."""
        _rename(paths.hidden_metadata(name), paths.metadata(name))
        sync_directory(paths.snapshots)

    def forget_metadata(self, paths: DomainPaths, name: str) -> None:
        """Remove the metadata of a snapshot, hidden or not; once more is no error."""
        for path in (paths.metadata(name), paths.hidden_metadata(name)):
            path.unlink(missing_ok=True)
        if paths.snapshots.is_dir():
            sync_directory(paths.snapshots)

    # --- locks ------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self, path: Path, *, what: str, timeout: float) -> Iterator[None]:
        """Hold a lock file; wait for at most `timeout` seconds.

        :raise BusyError: if another process keeps it longer.
        """
        from filelock import FileLock, Timeout

        make_private_directory(path.parent)
        lock = self._idle_locks.pop(path, None)
        if lock is None:
            lock = FileLock(path, mode=0o600, is_singleton=False, thread_local=False)
        try:
            lock.acquire(timeout=timeout, poll_interval=LOCK_POLL_SECONDS)
        except Timeout:
            raise BusyError(
                f"{what} is busy: another operation holds {path}",
                hint=f"waited {timeout:g} s; try again when it has finished",
            ) from None
        except OSError as error:
            raise HostError(f"cannot lock {path}: {error.strerror}") from error
        try:
            yield
        finally:
            lock.release()
            self._idle_locks[path] = lock


def _read(path: Path, kind: type[T]) -> T | None:
    """Read a JSON file of ours, or return None if there is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise InternalError(f"{path}: not a domain record: {error}") from error


def new_file_problem(path: str) -> str | None:
    """Say why a new file cannot be made at `path` by us, or None. It must be absolute and not exist."""
    if not os.path.isabs(path):
        return "not an absolute path"
    parent, name = os.path.split(path)
    if len(os.fsencode(name)) > MAX_FILE_NAME_BYTES:
        return f"a file name has at most {MAX_FILE_NAME_BYTES} bytes"
    if os.path.lexists(path):
        return "exists already"
    if not os.path.isdir(parent):
        return f"{parent} is not a directory"
    if not os.access(parent, os.W_OK | os.X_OK):
        return f"no permission to write in {parent}"
    return None


def check_files_exist(config: DomainConfig) -> None:
    """Refuse a configuration that names files which are not there, before anything is started.

    :raise InputError: naming the first one.
    """
    # What a script's target is only the script knows: xl-disk-configuration(5).
    named: dict[str, str | None] = {str(disk.vdev): disk.target for disk in config.disks if not disk.script}
    named |= {"kernel": config.kernel, "ramdisk": config.ramdisk, "bios_path_override": config.bios}
    for what, path in named.items():
        if not path:
            continue
        try:
            os.stat(path)
        except OSError as error:
            raise InputError(f"{what}: {path}: {error.strerror}") from error


def prepare_parent(path: str, paths: DomainPaths) -> None:
    """Create the domain's snapshot directory if `path` is in it; other directories are the user's."""
    if Path(path).parent == paths.snapshots:
        make_private_directory(paths.snapshots)


def write_durably(path: Path, content: bytes, *, temporary: Path | None = None) -> None:
    """Write a file of mode 0600 so that it has its old or its new content at any time.

    :raise HostError: if that fails; the temporary file is removed then.
    """
    temporary = temporary or path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns():x}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(fd)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        sync_directory(path.parent)
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror}", hint=space_hint(error)) from error


def space_hint(error: OSError) -> str | None:
    """Say what to do when there is no space, nothing for other errors."""
    return "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: str, paths: DomainPaths) -> None:
    """Make a memory image and its name durable; its name in our directory is synced with the metadata.

    :raise HostError: if the file system reports an error only now.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        if Path(path).parent != paths.snapshots:
            sync_directory(Path(path).parent)
    except OSError as error:
        raise HostError(f"cannot sync {path}: {error.strerror}", hint=space_hint(error)) from error


def _rename(source: Path, target: Path) -> None:
    try:
        os.rename(source, target)
    except FileNotFoundError:
        if not target.exists():
            raise HostError(f"{source} is gone") from None
        return
    except OSError as error:
        raise HostError(f"cannot rename {source}: {error.strerror}") from error
