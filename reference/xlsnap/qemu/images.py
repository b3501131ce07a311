# SPDX-License-Identifier: LGPL-2.1-or-later
"""Internal snapshots of images that no QEMU has open, through `qemu-img`.

The format is always named: an image that a guest has written could pretend to be of another.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from ..errors import HostError, HostTimeoutError
from ..host import Tag
from ..steps import DiskImage
from .process import find_binary

QEMU_IMG_SECONDS = 120.0


async def qemu_img(*arguments: str, timeout: float = QEMU_IMG_SECONDS) -> bytes:
    """Run `qemu-img` and return its standard output.

    :raise HostError: with its last line if it fails.
    """
    binary = find_binary("qemu-img")
    process = await asyncio.create_subprocess_exec(
        binary,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(timeout):
            output, errors = await process.communicate()
    except TimeoutError:
        raise HostTimeoutError(f"qemu-img {arguments[0]} did not end within {timeout:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        lines = errors.decode(errors="replace").strip().splitlines() or [f"exit status {process.returncode}"]
        raise HostError(lines[-1].removeprefix("qemu-img: "))
    return output


def image_options(image: DiskImage) -> str:
    """Return the image with its format named, in the syntax of ``--image-opts``."""
    path = image.path.replace(",", ",,")
    return f"driver={image.format},file.driver=file,file.filename={path}"


def tags_of(info: dict[str, Any]) -> tuple[Tag, ...]:
    """Return the internal snapshots in QEMU's ImageInfo."""
    return tuple(
        Tag(str(item["id"]), str(item["name"]), item["date-sec"] * 1_000_000_000 + item["date-nsec"])
        for item in info.get("snapshots", ())
    )


async def read_tags(image: DiskImage) -> tuple[Tag, ...]:
    """Return the internal snapshots of an image. It may be in use."""
    output = await qemu_img("info", "--output=json", "-U", "--image-opts", image_options(image))
    return tags_of(json.loads(output))


async def apply_tag(image: DiskImage, tag_id: str) -> None:
    """Make the state of the snapshot with this id the current one. The image must not be in use.

    `qemu-img` takes ids and names and looks for ids first, so that a snapshot named "1" could be mistaken:
    hence the id.
    """
    await qemu_img("snapshot", "-q", "-a", tag_id, "--image-opts", image_options(image))


async def drop_tag(image: DiskImage, name: str) -> None:
    """Delete the snapshot of this name (never an id). The image must not be in use."""
    await qemu_img("snapshot", "-q", "-d", name, "--image-opts", image_options(image))
