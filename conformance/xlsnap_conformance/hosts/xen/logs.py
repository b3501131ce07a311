# SPDX-License-Identifier: LGPL-2.1-or-later
"""What hypervisor, dom0, `xl` and guests have written, kept beside the report of a run."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path, PurePosixPath

from .failure import XenHostError
from .nested import NestedHost

IN_DOM0 = "/var/log/xen"

LOG_BYTES = 4 << 20
"""Of each log only the end is kept."""

_FIND_SECONDS = 30.0


async def keep(host: NestedHost, directory: Path) -> None:
    """Copy the logs of a host to a directory. What cannot be had is left out."""
    with contextlib.suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True)
        for name in ("console.log", "qemu.log"):
            source = host.places.run / name
            if source.exists() and source.stat().st_size:
                shutil.copyfile(source, directory / name)
        with contextlib.suppress(XenHostError):
            found = await host.link.check(
                ["find", IN_DOM0, "-type", "f", "-size", "+0"], seconds=_FIND_SECONDS
            )
            for path in found.splitlines():
                name = flat(path)
                (directory / name).write_bytes((await host.link.get(path))[-LOG_BYTES:])


def flat(path: str) -> str:
    """Return a file name for a log: guests name them, through their domain's name."""
    inside = PurePosixPath(path).relative_to(IN_DOM0)
    return "dom0-" + "-".join(part.lstrip(".") or "_" for part in inside.parts)
