# SPDX-License-Identifier: LGPL-2.1-or-later
"""`qemu-img`, and internal snapshots of images that no QEMU has open.

The format is always named: an image that a guest has written could pretend to be of another.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Collection
from typing import Any

from ..errors import HostError, HostTimeoutError
from ..host import Tag
from ..steps import DiskImage
from .process import brief, find_binary

QEMU_IMG_SECONDS = 120.0

Progress = Callable[[str, int, int], None]
"""Is told what is being copied, how many bytes are done and how many there are."""

_PERCENT = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)")


async def qemu_img(
    *arguments: str,
    timeout: float = QEMU_IMG_SECONDS,
    allowed: Collection[int] = (0,),
    tell: Callable[[float], None] | None = None,
) -> bytes:
    """Run `qemu-img` and return its standard output; `allowed` are the exit statuses that are no failure.

    With `tell`, which is told the percentage from time to time, the limit is on standing still.

    :raise HostError: with its last line if it fails.
    """
    command = (find_binary("qemu-img"), *arguments, *(() if tell is None else ("-p",)))
    try:
        async with (
            brief(*command, seconds=timeout, output=asyncio.subprocess.PIPE) as (process, limit),
            asyncio.TaskGroup() as group,
        ):
            reading = group.create_task(_read(process.stdout, limit, timeout, tell))
            complaining = group.create_task(_read(process.stderr, None, timeout, None))
    except TimeoutError:
        problem = "end within" if tell is None else "make progress for"
        raise HostTimeoutError(f"qemu-img {arguments[0]} did not {problem} {timeout:g} s") from None
    if process.returncode not in allowed:
        errors = complaining.result().decode(errors="replace")
        lines = errors.strip().splitlines() or [f"qemu-img {arguments[0]}: {_ending(process.returncode)}"]
        raise HostError(lines[-1].removeprefix("qemu-img: "))
    return reading.result()


def _ending(status: int | None) -> str:
    return f"killed by signal {-status}" if status is not None and status < 0 else f"exit status {status}"


async def _read(
    stream: asyncio.StreamReader | None,
    limit: asyncio.Timeout | None,
    timeout: float,
    tell: Callable[[float], None] | None,
) -> bytes:
    """Read a stream to its end; where percentages are told, each that is new puts the limit off."""
    assert stream is not None
    content = b""
    percent = None
    while data := await stream.read(65536):
        content += data
        if tell is None or not (found := _PERCENT.findall(content)):
            continue
        content = content[-16:]
        if found[-1] != percent:
            percent = found[-1]
            tell(float(percent))
            if limit is not None:
                limit.reschedule(asyncio.get_running_loop().time() + timeout)
    return content


def image_options(image: DiskImage) -> str:
    """Return the image with its format named, in the syntax of ``--image-opts``."""
    path = image.path.replace(",", ",,")
    return f"driver={image.format},file.driver=file,file.filename={path}"


def alone(image: DiskImage) -> str:
    """Return the image with its format named, as a file name for `qemu-img`; nothing below it is opened."""
    options: dict[str, Any] = {
        "driver": image.format,
        "file": {"driver": "file", "filename": image.path},
    }
    if image.format == "qcow2":
        options["backing"] = None
    return "json:" + json.dumps(options)


def tags_of(info: dict[str, Any]) -> tuple[Tag, ...]:
    """Return the internal snapshots in QEMU's ImageInfo."""
    return tuple(
        Tag(str(item["id"]), str(item["name"]), item["date-sec"] * 1_000_000_000 + item["date-nsec"])
        for item in info.get("snapshots", ())
    )


async def apply_tag(image: DiskImage, tag_id: str) -> None:
    """Make the state of the snapshot with this id the current one. The image must not be in use.

    `qemu-img` takes ids and names and looks for ids first, so that a snapshot named "1" could be mistaken:
    hence the id.
    """
    await qemu_img("snapshot", "-q", "-a", tag_id, alone(image))


async def drop_tag(image: DiskImage, name: str) -> None:
    """Delete the snapshot of this name (never an id). The image must not be in use."""
    await qemu_img("snapshot", "-q", "-d", name, alone(image))
