# SPDX-License-Identifier: LGPL-2.1-or-later
"""Make and change image files that no QEMU writes to: new overlays, copies, backing file names.

A new file is ours from its first instant: it is made here, exclusively and with mode 0600, and filled by
`qemu-img`. What each costs does not depend on the depth of the chain, except that a copy must be read.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..chain import OVERLAY_FORMAT
from ..domain import Overlay
from ..errors import HostError, InputError
from ..steps import DiskImage, TaggedImage
from ..store import sync_directory
from .images import Progress, image_options, qemu_img
from .qcow2 import read_header

COPY_SECONDS = 120.0
"""How long a copy may stand still: a slow disk must show a thousandth of the image in this time."""


async def create_overlays(overlays: Sequence[Overlay]) -> None:
    """Make empty qcow2 images, all at the same time, and make them durable.

    :raise InputError: if there is something at a path already; it stays.
    :raise HostError: if one cannot be made; none is left then.
    """
    made: list[str] = []
    try:
        for overlay in overlays:
            _make_file(overlay.path)
            made.append(overlay.path)
        async with asyncio.TaskGroup() as group:
            for overlay in overlays:
                group.create_task(_fill(overlay))
        await sync(made)
    except BaseException as error:
        _remove(made)
        if isinstance(error, BaseExceptionGroup):
            raise error.exceptions[0] from None
        raise


async def _fill(overlay: Overlay) -> None:
    """Write the header of an overlay. Its size is given, so that nothing is opened to find it."""
    if overlay.backing is None or overlay.backing_format is None:
        raise HostError(f"overlay {overlay.path} has no backing file")
    size = read_header(DiskImage("", overlay.backing, overlay.backing_format)).size
    backing = ("-u", "-b", overlay.backing, "-F", overlay.backing_format)
    try:
        await qemu_img("create", "-q", "-f", OVERLAY_FORMAT, *backing, overlay.path, str(size))
    except HostError as error:
        raise HostError(f"cannot create overlay {overlay.path}: {error.message}") from error


async def copy_snapshot(source: TaggedImage, path: str, *, progress: Progress | None = None) -> None:
    """Write the state of an internal snapshot to a new qcow2 image that stands alone.

    The source may be in use: what belongs to an internal snapshot never changes.

    :raise InputError: if there is something at the path already; it stays.
    :raise HostError: if it fails; nothing is left then.
    """
    _make_file(path)
    text = f"copying a snapshot of {os.path.basename(source.image.path)}"
    try:
        total = read_header(source.image).size
        await qemu_img(
            *("convert", "-U", "-l", f"snapshot.id={source.tag_id}", "-O", OVERLAY_FORMAT),
            *("--image-opts", image_options(source.image), path),
            timeout=COPY_SECONDS,
            tell=lambda percent: progress(text, round(total * percent / 100), total) if progress else None,
        )
        await sync([path])
    except BaseException as error:
        _remove([path])
        if isinstance(error, HostError):
            raise HostError(
                f"cannot copy a snapshot of {source.image.path} to {path}: {error.message}"
            ) from error
        raise


async def lay_over(overlay: str, base: DiskImage) -> None:
    """Enter another backing file in the header of an overlay that nobody has open."""
    image = image_options(DiskImage(base.vdev, overlay, OVERLAY_FORMAT))
    try:
        await qemu_img("rebase", "-q", "-u", "-b", base.path, "-F", base.format, "--image-opts", image)
    except HostError as error:
        raise HostError(f"cannot lay {overlay} over {base.path}: {error.message}") from error
    await sync([overlay])


async def sync(paths: Iterable[str]) -> None:
    """Make files and their names durable, whoever wrote them."""

    def sync_all() -> None:
        directories = set()
        for path in paths:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            directories.add(Path(path).parent)
        for directory in directories:
            sync_directory(directory)

    try:
        await asyncio.to_thread(sync_all)
    except OSError as error:
        raise HostError(f"cannot write images to disk: {error.strerror}") from error


def _make_file(path: str) -> None:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise InputError(f"{path} exists", hint="choose another target") from None
    except OSError as error:
        raise HostError(f"cannot create {path}: {error.strerror}") from error


def _remove(paths: Iterable[str]) -> None:
    for path in paths:
        Path(path).unlink(missing_ok=True)
