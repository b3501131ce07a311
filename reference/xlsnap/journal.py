# SPDX-License-Identifier: LGPL-2.1-or-later
"""The journal: the plan that is being carried out, and how far it got.

The first line is the plan, synced before the first step. Each step adds a line when it begins. The file is
emptied when the operation ends; one with content is the trace of an interrupted operation.
"""

from __future__ import annotations

import contextlib
import os
from functools import cache
from pathlib import Path

import msgspec

from .errors import HostError, InternalError
from .layout import make_private_directory
from .steps import Plan
from .store import space_hint, sync_directory


class _Entry(msgspec.Struct, frozen=True):
    """The journal's first line; ``boot`` tells the boot of the machine that it was written in."""

    plan: Plan
    boot: str


class Interrupted(msgspec.Struct, frozen=True):
    """A plan whose process died; ``begun`` is the number of steps that had begun.

    After a ``reboot`` of the machine nobody knows: every step counts as begun, and none as done.
    """

    plan: Plan
    begun: int
    reboot: bool = False


class Journal:
    """The journal file of one domain. The domain's lock must be held."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def open(self, plan: Plan) -> None:
        """Begin an operation: the plan is durable when this returns.

        :raise HostError: if the journal cannot be written; nothing has been done then.
        """
        make_private_directory(self.path.parent)
        new = not self.path.exists()
        content = msgspec.json.encode(_Entry(plan, _boot_id())) + b"\n"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self.path, flags, 0o600)
            try:
                os.ftruncate(self._fd, 0)
                if os.write(self._fd, content) != len(content):
                    raise OSError(28, "No space left on device")
                os.fdatasync(self._fd)
                if new:
                    sync_directory(self.path.parent)
            except OSError:
                with contextlib.suppress(OSError):
                    self.close()
                raise
        except OSError as error:
            raise HostError(f"cannot write {self.path}: {error.strerror}", hint=space_hint(error)) from error

    def begin(self, index: int) -> None:
        """Note that the step with this index begins.

        Not synced: this is for the toolstack's own death, which the page cache survives. After a power
        loss every step counts as begun.
        """
        if self._fd is None:
            raise InternalError("the journal is not open")
        try:
            os.write(self._fd, b"%d\n" % index)
        except OSError as error:
            raise HostError(f"cannot write {self.path}: {error.strerror}") from error

    def close(self, *, keep: bool = False) -> None:
        """End the operation; `keep` leaves the journal for recovery."""
        if self._fd is None:
            return
        if not keep:
            os.ftruncate(self._fd, 0)
            os.fdatasync(self._fd)
        os.close(self._fd)
        self._fd = None

    def interrupted(self) -> Interrupted | None:
        """Return what an earlier process left unfinished, or None.

        :raise InternalError: if the journal cannot be read.
        """
        try:
            first, newline, rest = self.path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HostError(f"cannot read {self.path}: {error.strerror}") from error
        if not newline:
            return None  # empty, or cut before the first step could begin
        try:
            entry = msgspec.json.decode(first, type=_Entry)
        except msgspec.MsgspecError as error:
            raise InternalError(f"{self.path}: unreadable journal: {error}") from error
        begun = max((int(line) + 1 for line in rest.split() if line.isdigit()), default=0)
        if entry.boot != _boot_id():
            return Interrupted(entry.plan, len(entry.plan.steps), reboot=True)
        return Interrupted(entry.plan, begun)

    def clear(self) -> None:
        """Forget what was interrupted: it has been finished or undone."""
        fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._fd = fd
        self.close()


@cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
