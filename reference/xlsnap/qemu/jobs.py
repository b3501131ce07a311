# SPDX-License-Identifier: LGPL-2.1-or-later
"""Background jobs of QEMU: wait for them, tell how far they are, end them.

All of ours are started with ``auto-dismiss`` off, so that one which has come to its end stays until somebody
has seen how it ended: also a toolstack that was started after the one that began it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection

import msgspec

from ..errors import HostError, HostTimeoutError, QmpError
from .monitor import Monitor

STILL_SECONDS = 60.0
"""How long a job may stand still before it is given up: a disk flush can take long."""

LOOK_SECONDS = 0.2
"""How often progress is told; that a job is done is noticed at once."""

CONCLUDED = "concluded"
READY = "ready"

Tell = Callable[[int, int], None]
"""Is told how many bytes are done and how many there are."""


class Job(msgspec.Struct, frozen=True):
    """A job as QEMU sees it; ``error`` are its words if it has failed."""

    id: str
    status: str
    done: int
    total: int
    error: str | None = None


async def find_job(monitor: Monitor, job_id: str) -> Job | None:
    """Return the job, if there is one of this id."""
    for item in await monitor.execute("query-jobs"):
        if item["id"] == job_id:
            return Job(
                job_id, item["status"], item["current-progress"], item["total-progress"], item.get("error")
            )
    return None


async def wait_for_job(
    monitor: Monitor, job_id: str, *, until: Collection[str] = (CONCLUDED,), tell: Tell | None = None
) -> Job:
    """Wait until the job is in one of the states `until`, or has come to its end; return it.

    :raise HostTimeoutError: if it stands still for `STILL_SECONDS`.
    """
    loop = asyncio.get_running_loop()
    last, since = None, loop.time()
    with monitor.listening("JOB_STATUS_CHANGE") as events:
        while True:
            job = await find_job(monitor, job_id)
            if job is None:
                raise HostError(f"QEMU's job {job_id} is gone: somebody else has ended it")
            if tell is not None:
                tell(job.done, job.total)
            if job.status in until or job.status == CONCLUDED:
                return job
            now = (job.status, job.done)
            if now != last:
                last, since = now, loop.time()
            elif loop.time() - since > STILL_SECONDS:
                raise HostTimeoutError(
                    f"QEMU's job {job_id} made no progress for {STILL_SECONDS:g} s at {job.done} bytes"
                )
            await monitor.next_event(events, min(LOOK_SECONDS, STILL_SECONDS))


async def dismiss_job(monitor: Monitor, job_id: str) -> None:
    """Let QEMU forget a job that has come to its end."""
    await monitor.execute("job-dismiss", {"id": job_id})


async def cancel_job(monitor: Monitor, job_id: str) -> None:
    """End a job at once; one that does not exist is no error."""
    job = await find_job(monitor, job_id)
    if job is None:
        return
    if job.status != CONCLUDED:
        with contextlib.suppress(QmpError):  # it may have come to its end meanwhile
            await monitor.execute("job-cancel", {"id": job_id})
        await wait_for_job(monitor, job_id)
    await dismiss_job(monitor, job_id)
