# SPDX-License-Identifier: LGPL-2.1-or-later
"""What images say of themselves, for `snapshot-check`: header, internal snapshots, `qemu-img check`.

Only the image itself is opened, never what it names: a header can have been written by a guest.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Collection, Sequence
from typing import Any

from ..check import ImageFacts
from ..errors import HostError
from ..steps import DiskImage
from .images import alone, qemu_img, tags_of

CHECK_SECONDS = 1800.0
"""`qemu-img check` reads all metadata of an image, which takes a while for a large one."""

AT_ONCE = 4
"""So many images are looked at at the same time."""

_CHECKED_FORMATS = frozenset({"qcow2"})
_CHECKED = (0, 2, 3)
"""Exit statuses of `qemu-img check` that are a verdict: fine, damaged, lost space (which harms nobody)."""


async def examine(images: Sequence[DiskImage], *, in_use: Collection[str] = ()) -> list[ImageFacts]:
    """Look at images, each by itself. Those `in_use` change meanwhile, so that they are not checked."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def look(image: DiskImage) -> ImageFacts:
        async with gate:
            return await _examine(image, check=image.path not in in_use)

    return list(await asyncio.gather(*(look(image) for image in images)))


async def _examine(image: DiskImage, *, check: bool) -> ImageFacts:
    try:
        os.stat(image.path)
    except (FileNotFoundError, NotADirectoryError):
        return ImageFacts(image=image, exists=False)
    except OSError as error:
        return ImageFacts(image=image, problem=error.strerror)
    try:
        info = json.loads(await qemu_img("info", "--output=json", "-U", alone(image)))
        damage = _marked(info) or (await _damage(image) if check else None)
    except HostError as error:
        return ImageFacts(image=image, problem=error.message)
    backing = info.get("backing-filename")
    return ImageFacts(
        image=image,
        damage=damage,
        tags=tuple(tag.name for tag in tags_of(info)),
        backing=None if backing is None else _absolute(image.path, backing),
        backing_format=info.get("backing-filename-format"),
    )


def _absolute(path: str, backing: str) -> str:
    """Return what a header names; a relative path is relative to the image."""
    return os.path.normpath(os.path.join(os.path.dirname(path), backing))


def _marked(info: dict[str, Any]) -> str | None:
    corrupt = info.get("format-specific", {}).get("data", {}).get("corrupt")
    return "QEMU has marked it as corrupt" if corrupt else None


async def _damage(image: DiskImage) -> str | None:
    if image.format not in _CHECKED_FORMATS:
        return None
    output = await qemu_img("check", "--output=json", alone(image), timeout=CHECK_SECONDS, allowed=_CHECKED)
    result = json.loads(output)
    count = result.get("corruptions", 0)
    return f"qemu-img check finds {count} errors" if count else None
