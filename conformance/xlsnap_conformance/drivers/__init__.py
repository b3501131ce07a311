# SPDX-License-Identifier: LGPL-2.1-or-later
"""Drivers: what plugs an implementation into the suite, and how one is named on the command line."""

from __future__ import annotations

import shlex
import sys

from ..failures import HarnessError

BUILT_IN: dict[str, tuple[str, ...]] = {
    "reference": (sys.executable, "-m", "xlsnap_conformance.drivers.reference"),
}
"""Drivers that come with the kit: name to command. Options may follow the name."""

DEFAULT = "reference"


def command_of(driver: str) -> list[str]:
    """Return the command of a driver, given as a built-in name with options or as a command line.

    The line is split as a shell would, but no shell runs it.

    :raise HarnessError: if it is empty or has an open quote.
    """
    try:
        words = shlex.split(driver)
    except ValueError as error:
        raise HarnessError(f"bad driver command {driver!r}: {error}") from None
    if not words:
        raise HarnessError("the driver command is empty")
    name, *options = words
    return [*BUILT_IN.get(name, (name,)), *options]
