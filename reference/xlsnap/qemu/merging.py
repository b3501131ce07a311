# SPDX-License-Identifier: LGPL-2.1-or-later
"""Make one image of two: copy what the upper has into the lower, and let the disk go on without the upper.

Within a running QEMU it is a ``block-commit`` job. Its id and the name of its filter node follow from the
images, so that a toolstack finds the job of one that was killed, and goes on with it. Each step can be done
again; what is done already is seen from QEMU's own graph.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

from ..errors import HostError, QmpError
from ..steps import DiskImage
from .graph import NamedByPath, Nodes, read_graph
from .images import Progress, image_options, qemu_img
from .jobs import CONCLUDED, READY, Tell, cancel_job, dismiss_job, find_job, wait_for_job
from .monitor import Monitor
from .nodes import filter_node, image_node
from .overlays import sync

COPY_SECONDS = 120.0
"""How long `qemu-img` may stand still: a slow disk must take a thousandth of the image in this time."""


def telling(progress: Progress | None, top: DiskImage, base: DiskImage) -> Tell | None:
    """Return what tells `progress` of this merge."""
    if progress is None:
        return None
    text = f"merging {os.path.basename(top.path)} into {os.path.basename(base.path)}"
    return lambda done, total: progress(text, done, total)


async def merge_offline(top: DiskImage, base: DiskImage, *, tell: Tell | None = None) -> None:
    """Copy an image that nobody has open into its backing file; `top` stays as it is.

    :raise HostError: if that fails; `top` reads as before.
    """
    try:
        total = os.stat(top.path).st_blocks * 512
        await qemu_img(
            *("commit", "-d", "-b", base.path, "--image-opts", image_options(top)),
            timeout=COPY_SECONDS,
            tell=lambda percent: tell(round(total * percent / 100), total) if tell is not None else None,
        )
    except HostError as error:
        raise _failed(top, base, error.message) from error
    except OSError as error:
        raise _failed(top, base, f"{top.path}: {error.strerror}") from error
    await sync([base.path])


class LiveMerge:
    """The merge of two images that a running QEMU has open, `top` directly over `base`."""

    def __init__(
        self,
        monitor: Monitor,
        top: DiskImage,
        base: DiskImage,
        *,
        tell: Tell | None = None,
        nodes: Nodes | None = None,
    ) -> None:
        self._monitor = monitor
        self._top, self._base = top, base
        self._nodes = nodes or NamedByPath()
        self._top_node, self._base_node = image_node(top), image_node(base)
        self._filter = filter_node(top.vdev)
        self._job = f"merge-{self._top_node}"
        self._tell = tell

    async def _find_nodes(self) -> None:
        """Look for the images' nodes: a QEMU that we have not started may call them otherwise."""
        self._top_node = await self._nodes.node(self._monitor, self._top)
        self._base_node = await self._nodes.node(self._monitor, self._base)

    # --- the present image ------------------------------------------------------------------------------

    async def copy_active(self) -> None:
        """Copy until `base` reads the same as `top`, and go on copying what the guest writes.

        A disk that has another image by now needs nothing.
        """
        await self._find_nodes()
        root = await self._root()
        if root in (self._top_node, self._filter):
            await self._copy_all(root)

    async def _copy_all(self, root: str) -> None:
        job = await find_job(self._monitor, self._job)
        if job is not None and job.status == CONCLUDED:  # it was given up, or nobody saw it fail
            await dismiss_job(self._monitor, self._job)
            job = None
        if job is None:
            await self._begin(root)
        if job is None or job.status != READY:
            job = await wait_for_job(self._monitor, self._job, until=(READY,), tell=self._tell)
        if job.status != READY:
            await dismiss_job(self._monitor, self._job)
            raise _failed(self._top, self._base, job.error or "QEMU ended the job")

    async def switch(self) -> None:
        """Make `base` the disk's image. The domain is paused, so that the copy comes to its end."""
        await self._find_nodes()
        root = await self._root()
        if root in (self._top_node, self._filter):
            await self._copy_all(root)
            await self._monitor.execute("job-complete", {"id": self._job})
            job = await wait_for_job(self._monitor, self._job, tell=self._tell)
            if job.error is not None:
                await dismiss_job(self._monitor, self._job)
                raise _failed(self._top, self._base, job.error)
            root = await self._root()
        if root != self._base_node:
            raise HostError(f"disk {self._top.vdev} has neither {self._top.path} nor {self._base.path} open")
        await asyncio.gather(self._let_go(), sync([self._base.path]))

    # --- below the present image ------------------------------------------------------------------------

    async def copy_below(self) -> bool:
        """Copy `top`, which has another image over it, and let that lie over `base`.

        Return False if neither image is open.
        """
        await self._find_nodes()
        job = await find_job(self._monitor, self._job)
        if job is not None and job.error is not None:  # it was given up, or nobody saw it fail
            await dismiss_job(self._monitor, self._job)
            job = None
        if job is None:
            try:
                await self._begin(await self._root())
            except QmpError:
                graph = await read_graph(self._monitor)
                if self._base_node not in graph.nodes:
                    return False
                if graph.is_used(self._top_node):
                    raise
                await self._let_go()
                return True
        job = await wait_for_job(self._monitor, self._job, tell=self._tell)
        if job.error is not None:
            await dismiss_job(self._monitor, self._job)
            raise _failed(self._top, self._base, job.error)
        await self._let_go()
        return True

    # --- both -------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """End the copying; none going on is no error."""
        await cancel_job(self._monitor, self._job)

    async def _begin(self, root: str) -> None:
        """Start the job; `root` is the disk's node. An error ends it and is told: the guest never waits."""
        arguments = {
            "job-id": self._job,
            "device": root,
            "top-node": self._top_node,
            "base-node": self._base_node,
            "backing-file": self._base.path,
            "on-error": "report",
            "filter-node-name": self._filter,
            "auto-dismiss": False,
        }
        if root == self._top_node:
            del arguments["backing-file"]  # nothing lies over the present image
        await self._monitor.execute("block-commit", arguments)

    async def _root(self) -> str:
        return await self._nodes.root(self._monitor, self._top.vdev)

    async def _let_go(self) -> None:
        """Forget the job and close `top`, over which nothing lies any more; either may be done already."""
        with contextlib.suppress(QmpError):
            await dismiss_job(self._monitor, self._job)
        try:
            await self._monitor.execute("blockdev-del", {"node-name": self._top_node})
        except QmpError:
            if self._top_node in (await read_graph(self._monitor)).nodes:
                raise


def _failed(top: DiskImage, base: DiskImage, reason: str) -> HostError:
    return HostError(f"cannot merge {top.path} into {base.path}: {reason}")
