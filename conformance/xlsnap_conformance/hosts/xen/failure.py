# SPDX-License-Identifier: LGPL-2.1-or-later
"""What goes wrong with a nested host, as one line."""

from __future__ import annotations

from ...failures import HarnessError


class XenHostError(HarnessError):
    """The nested host cannot be made, started or reached; the message is one line that says what to do.

    ``detail`` is what a log says about it, in lines: the end of a console, or of apt's output.
    """

    def __init__(self, message: str, *, detail: str = "") -> None:
        lines = "".join(f"\n    {line}" for line in detail.splitlines())
        super().__init__(message + lines)
        self.message = message
        self.detail = detail
