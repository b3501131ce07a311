# SPDX-License-Identifier: LGPL-2.1-or-later
"""The journal: the plan that is being carried out, and how far it got.

The plan is synced before the first step. Each step is noted when it begins. The plan is blotted out when the
operation ends; one that can be read is the trace of an interrupted operation.

The file keeps its size and is overwritten in place, because to sync that takes a third of what a file that
grows takes: only its content has changed. So a write that was cut short leaves parts of two plans, which the
checksum tells from one. Layout::

    xlsnap journal 1 CHECKSUM LENGTH BEGUN     hexadecimal; of the text, its bytes, the steps that had begun
    {"plan": …, "boot": …}                     LENGTH bytes of JSON
    …                                          what is left of longer plans before it
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import zlib
from functools import cache
from pathlib import Path

import msgspec

from .errors import HostError, InternalError
from .layout import make_private_directory
from .steps import Plan
from .store import space_hint, sync_directory

_HEAD = b"xlsnap journal 1 %08x %08x %08x\n"
_HEAD_PATTERN = re.compile(rb"xlsnap journal 1 ([0-9a-f]{8}) ([0-9a-f]{8}) ([0-9a-f]{8})\n")
_HEAD_BYTES = len(_HEAD % (0, 0, 0))
_BEGUN_AT = _HEAD_BYTES - 9
_NOTHING = bytes(_HEAD_BYTES)

_BLOCK_BYTES = 16384
"""The size of the file is a multiple of this, so that most plans fit in where others have been."""


class _Entry(msgspec.Struct, frozen=True):
    """The journal's text; ``boot`` tells the boot of the machine that it was written in."""

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
        text = msgspec.json.encode(_Entry(plan, _boot_id()))
        content = _HEAD % (zlib.crc32(text), len(text), 0) + text
        try:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                _check_space(self._fd)
                grows = os.fstat(self._fd).st_size < len(content)
                if grows:
                    content += bytes(-len(content) % _BLOCK_BYTES)
                if os.write(self._fd, content) != len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fdatasync(self._fd)
                if grows:  # it may be new
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
            os.pwrite(self._fd, b"%08x" % (index + 1), _BEGUN_AT)
        except OSError as error:
            raise HostError(f"cannot write {self.path}: {error.strerror}") from error

    def close(self, *, keep: bool = False) -> None:
        """End the operation; `keep` leaves the journal for recovery."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        try:
            if not keep:
                os.pwrite(fd, _NOTHING, 0)
                os.fdatasync(fd)
        finally:
            os.close(fd)

    def interrupted(self) -> Interrupted | None:
        """Return what an earlier process left unfinished, or None.

        :raise InternalError: if the journal cannot be read.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HostError(f"cannot read {self.path}: {error.strerror}") from error
        if len(content) < _HEAD_BYTES or b"\0" in content[:_HEAD_BYTES]:
            return None  # over, or cut before the first step could begin
        head = _HEAD_PATTERN.match(content)
        if head is None:
            raise InternalError(f"{self.path}: unreadable journal: it does not begin as one")
        checksum, length, begun = (int(number, 16) for number in head.groups())
        text = content[_HEAD_BYTES : _HEAD_BYTES + length]
        if len(text) != length or zlib.crc32(text) != checksum:
            return None  # cut too, with something of an earlier plan in it
        try:
            entry = msgspec.json.decode(text, type=_Entry)
        except msgspec.MsgspecError as error:
            raise InternalError(f"{self.path}: unreadable journal: {error}") from error
        if entry.boot != _boot_id():
            return Interrupted(entry.plan, len(entry.plan.steps), reboot=True)
        return Interrupted(entry.plan, begun)

    def clear(self) -> None:
        """Forget what was interrupted: it has been finished or undone."""
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self.close()


def _check_space(fd: int) -> None:
    """Refuse to begin where there is no space at all: not the journal needs it, but what comes after.

    :raise OSError: if there is none.
    """
    space = os.fstatvfs(fd)
    if space.f_blocks and space.f_bfree * space.f_frsize < _BLOCK_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
