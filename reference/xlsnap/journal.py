# SPDX-License-Identifier: LGPL-2.1-or-later
"""The journal: the plan that is being carried out, and how far it got.

The first line is the plan, synced before the first step. Each step adds a line when it begins. The file
goes away with the operation; one that is found by a later command is the trace of an interrupted one.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from .errors import HostError, InternalError
from .layout import make_private_directory
from .steps import Plan
from .store import sync_directory, write_durably


class Interrupted(msgspec.Struct, frozen=True):
    """A plan whose process died; ``begun`` is the number of steps that had begun."""

    plan: Plan
    begun: int


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
        write_durably(self.path, msgspec.json.encode(plan) + b"\n")
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def begin(self, index: int) -> None:
        """Note that the step with this index begins.

        Not synced: what must survive the toolstack's death survives in the page cache, and a step that
        begins after a power loss finds its work undone or done and copes with both.
        """
        if self._fd is None:
            raise InternalError("the journal is not open")
        try:
            os.write(self._fd, b"%d\n" % index)
        except OSError as error:
            raise HostError(f"cannot write {self.path}: {error.strerror}") from error

    def close(self, *, keep: bool = False) -> None:
        """End the operation; `keep` leaves the journal for recovery."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        if not keep:
            self.path.unlink(missing_ok=True)
            sync_directory(self.path.parent)

    def interrupted(self) -> Interrupted | None:
        """Return what an earlier process left unfinished, or None."""
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return None
        try:
            plan = msgspec.json.decode(lines[0], type=Plan)
            begun = [int(line) + 1 for line in lines[1:] if line.strip().isdigit()]
        except (msgspec.MsgspecError, ValueError) as error:
            raise InternalError(f"{self.path}: unreadable journal: {error}") from error
        return Interrupted(plan, max(begun, default=0))
