# SPDX-License-Identifier: LGPL-2.1-or-later
"""Give a paused domain its disks.

A QEMU that has saved its memory gives its images up, and one that loads memory with the capability
`late-block-activate` does not take them yet. Both take them when the guest runs. A domain that is to stay
paused must not run, not even for an instant; but QEMU also activates a node when an export of it begins
(block/export/export.c, measured with QEMU 7.2), and with it all nodes below, which are its backing files.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from ..errors import QmpError
from .graph import root_node
from .monitor import Monitor
from .process import ProcessPaths, listening


async def activate_disks(monitor: Monitor, paths: ProcessPaths, vdevs: Iterable[str]) -> None:
    """Let the process take the images of its disks, for reading and writing, without running.

    Each is exported over NBD for a moment, read-only, on a socket whose name is removed before anybody
    could connect to it.
    """
    address = paths.directory / "activation.sock"
    address.unlink(missing_ok=True)  # both can be left by a toolstack that was killed here
    with contextlib.suppress(QmpError):
        await monitor.execute("nbd-server-stop")
    with listening(address) as fd:
        os.unlink(address)
        await monitor.pass_fd("activation", fd)
    await monitor.execute("nbd-server-start", {"addr": {"type": "fd", "data": {"str": "activation"}}})
    for vdev in vdevs:
        export = {"type": "nbd", "id": f"activate-{vdev}", "node-name": await root_node(monitor, vdev)}
        await monitor.execute("block-export-add", export)
        await monitor.execute("block-export-del", {"id": export["id"]})
    await monitor.execute("nbd-server-stop")
