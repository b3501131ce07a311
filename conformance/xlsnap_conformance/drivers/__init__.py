# SPDX-License-Identifier: LGPL-2.1-or-later
"""Drivers: what plugs an implementation into the suite, and how one is named on the command line."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from ..failures import HarnessError

if TYPE_CHECKING:
    from importlib import metadata

BUILT_IN: dict[str, tuple[str, ...]] = {
    "reference": (sys.executable, "-m", "xlsnap_conformance.drivers.reference"),
    "xl": (sys.executable, "-m", "xlsnap_conformance.drivers.xl"),
    "xen": (sys.executable, "-m", "xlsnap_conformance.drivers.xen"),
    "virsh": (sys.executable, "-m", "xlsnap_conformance.drivers.virsh"),
}
"""Drivers that come with the kit: name to command. Options may follow the name."""

DEFAULT = "reference"

PROFILE = "profile:"
"""A driver that begins so is a TOML file of shell commands."""

GROUP = "xlsnap_conformance.drivers"
"""Group of the entry points by which a Python package offers a driver."""


def plugged_in() -> dict[str, metadata.EntryPoint]:
    """Return the drivers that installed packages offer, by name; a name of ours stays ours."""
    from importlib import metadata  # late: it is slow to import, and drivers import this package

    return {point.name: point for point in metadata.entry_points(group=GROUP) if point.name not in BUILT_IN}


def command_of(driver: str) -> list[str]:
    """Return the command of a driver: a name with options, ``profile:FILE``, or a command line.

    A line is split as a shell would, but no shell runs it. A name is one of `BUILT_IN` or `plugged_in`.

    :raise HarnessError: if it is empty or has an open quote.
    """
    try:
        words = shlex.split(driver)
    except ValueError as error:
        raise HarnessError(f"bad driver command {driver!r}: {error}") from None
    if not words:
        raise HarnessError("the driver command is empty")
    name, *options = words
    if name in BUILT_IN:
        return [*BUILT_IN[name], *options]
    if name.startswith(PROFILE):
        file = name.removeprefix(PROFILE)
        return [sys.executable, "-m", "xlsnap_conformance.drivers.profile", file, *options]
    if "/" not in name and name in plugged_in():
        return [sys.executable, "-m", "xlsnap_conformance.drivers.plugged", name, *options]
    return [name, *options]
