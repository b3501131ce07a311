# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run `xl`, and say whose fault an error is."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ...protocol import ErrorKind
from ..profile import transport
from ..profile.commands import Transport
from ..serving import Refused

SECONDS = 170.0
"""How long a command may take, times the time scale: less than the protocol allows for a snapshot."""

KINDS_OF_STATUS: Mapping[int, ErrorKind] = {2: "input", 3: "state", 4: "host", 70: "bug"}
"""What exit statuses mean (XLS-CLI-010). Others say only that it failed: then the words have to tell."""

_KINDS_OF_WORDS: tuple[tuple[str, ErrorKind], ...] = (
    (r"invalid domain identifier|does not exist|not found|no such|unknown|usage|invalid", "input"),
    (r"already|duplicate|conflict", "input"),
    (r"not running|is running|paused|shut ?down|dying|busy", "state"),
)
"""Words of xl 4.17, and of snapshot commands as far as they are known; the first that fit count."""


def kind_of(status: int, message: str) -> ErrorKind:
    """Return whose fault it is that `xl` failed.

    >>> kind_of(3, "domain is shut down"), kind_of(1, "web is an invalid domain identifier (rc=-6)")
    ('state', 'input')
    """
    if status in KINDS_OF_STATUS:
        return KINDS_OF_STATUS[status]
    words = (kind for pattern, kind in _KINDS_OF_WORDS if re.search(pattern, message, re.IGNORECASE))
    return next(words, "host")


class Xl:
    """Runs commands of an `xl`, each as a process of its own, through a shell only where ssh uses one."""

    def __init__(self, words: tuple[str, ...], through: Transport, *, scale: float = 1.0) -> None:
        """Use the command `words`, which is `xl` or what stands for it, behind the prefix `through`."""
        self.words = words
        self.through = through
        self._seconds = SECONDS * scale

    def __call__(self, *arguments: str) -> str:
        """Run a command and return what it prints.

        :raise Refused: if its exit status is not 0, or it does not end in time.
        """
        # Dates of a table are in the local time of dom0, unless we say which that is.
        ended = transport.run(self.through, [*self.words, *arguments], {"TZ": "UTC"}, seconds=self._seconds)
        if ended.status != 0:
            lines = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
            message = " ".join(lines) or f"xl {arguments[0]}: exit status {ended.status}"
            raise Refused(kind_of(ended.status, message), message)
        return ended.stdout

    def vector(self, *arguments: str) -> list[str]:
        """Return what to execute for a command that goes on, such as `console`."""
        return transport.vector(self.through, [*self.words, *arguments], {})
