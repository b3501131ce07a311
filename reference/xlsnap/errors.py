# SPDX-License-Identifier: LGPL-2.1-or-later
"""What can go wrong, sorted by whose fault it is.

The tree::

    XlsnapError                    exit status
     +-- InputError                2   your input: names, options, configuration files
     |    +-- UnknownDomainError
     |    +-- UnknownSnapshotError
     |    +-- BadNameError
     |    +-- NameTakenError
     |    +-- ConfigFileError      carries the parser's diagnostics
     |    +-- ConfigConflictError
     |    +-- DiskChoiceError
     |    +-- MemoryPathError
     +-- DomainStateError          3   the domain is not in a state that allows this
     |    +-- BusyError
     |    +-- SnapshotDamagedError
     +-- HostError                 4   QEMU, an image or the operating system failed
     |    +-- QemuDiedError
     |    +-- QmpError
     |    +-- HostTimeoutError
     +-- InternalError             70  our bug

Every message is one line: what was wrong and why. ``hint`` says what to do about it.
"""

from __future__ import annotations

from typing import ClassVar


class XlsnapError(Exception):
    """Base of all errors that this package raises on purpose.

    ``message`` is one line without a final full stop; ``hint``, if any, is one line that says what to do.
    """

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "bug"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InputError(XlsnapError):
    """The request itself is wrong; the same request will fail again (XLS-CLI, "your input")."""

    exit_code = 2
    kind = "input"


class UnknownDomainError(InputError):
    """No domain has this name, id or uuid."""


class UnknownSnapshotError(InputError):
    """The domain has no snapshot of this name."""


class BadNameError(InputError):
    """A snapshot or domain name breaks the rules for names."""


class NameTakenError(InputError):
    """The domain already has a snapshot of this name, or a domain of this name runs."""


class ConfigFileError(InputError):
    """A configuration file cannot be read or parsed; ``details`` are the parser's lines, ready to print."""

    def __init__(self, message: str, *, hint: str | None = None, details: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.details = details


class ConfigConflictError(InputError):
    """A configuration file and the options say different things."""


class DiskChoiceError(InputError):
    """A disk was named that does not exist, is read-only, or cannot be snapshotted in this way."""


class MemoryPathError(InputError):
    """The path for the memory image cannot be used: not absolute, taken, or its directory is missing."""


class DomainStateError(XlsnapError):
    """The domain is not in a state that allows the operation; it may be later."""

    exit_code = 3
    kind = "state"


class BusyError(DomainStateError):
    """Another operation on the same domain holds the lock."""


class SnapshotDamagedError(DomainStateError):
    """Something that the snapshot needs (image, tag, memory image) is missing or incomplete."""


class HostError(XlsnapError):
    """QEMU, an image tool or the operating system failed."""

    exit_code = 4
    kind = "host"


class QemuDiedError(HostError):
    """The domain's QEMU process ended while it was needed."""


class QmpError(HostError):
    """QEMU answered a monitor command with an error; ``description`` is QEMU's own text."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(f"QEMU refused {command}: {description}")
        self.command = command
        self.description = description


class HostTimeoutError(HostError):
    """Something did not happen within its time limit."""


class InternalError(XlsnapError):
    """A bug of ours."""

    exit_code = 70
    kind = "bug"
