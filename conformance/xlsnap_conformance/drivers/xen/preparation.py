# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a driver of the nested Xen host needs before the first one starts: a frozen host in the cache."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ...hosts.xen.accelerator import CHOICES
from ...hosts.xen.build import Tell
from ...hosts.xen.machine import Places
from ...hosts.xen.store import open_store

INSIDE = {"reference": ("--host", "xen"), "xl": ()}
"""Drivers that can run in dom0, and what they are told."""


def options() -> argparse.ArgumentParser:
    """Return the parser of the options that are ours; all others are those of the driver in dom0."""
    parser = argparse.ArgumentParser(prog="xlsnap_conformance.drivers.xen", allow_abbrev=False)
    parser.add_argument(
        "--accelerator",
        choices=CHOICES,
        default="auto",
        help="of the nested host: auto (the default) takes KVM only if a host has really booted under it",
    )
    parser.add_argument(
        "--inside",
        choices=INSIDE,
        default="reference",
        help="driver that runs in dom0: reference (the default), or xl with a wrapped xl",
    )
    return parser


def prepare_host(command: Sequence[str], tell: Tell) -> None:
    """Build and freeze a host, unless that was done.

    :param command: of the driver; its accelerator counts.
    :raise XenHostError: if that fails.
    """
    chosen, _ = options().parse_known_args(list(command[1:]))

    async def work() -> None:
        store = await open_store(chosen.accelerator, tell)
        with tempfile.TemporaryDirectory(prefix="xlsnap-xen-") as directory:
            await store.freeze(store.built(), Places(Path(directory), Path(directory)))

    asyncio.run(work())
