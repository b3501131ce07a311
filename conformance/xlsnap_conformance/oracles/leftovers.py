# SPDX-License-Identifier: LGPL-2.1-or-later
"""The directory with the images: memory images where they were wanted, the user's files, and no more."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from ..model import World
from ..trace import SCRATCH
from . import Aspect, Finding, qcow2


def check(
    world: World, images: Collection[str], scratch: Path, ignored: Collection[str] = (), *, sure: bool = True
) -> Iterator[Finding]:
    """Compare the scratch directory with the model.

    :param images: the paths of all images in use.
    :param ignored: names of no interest.
    :param sure: whether all images in use are known; otherwise another one is no finding.
    """

    def name(path: str) -> str:
        return path.removeprefix(f"{SCRATCH}/")

    base = os.path.realpath(scratch)
    memory = {name(path) for path in world.memory_files}
    known = {os.path.relpath(path, base) for path in images}
    wanted = known | memory | {name(path) for path in world.files}
    found = {str(path.relative_to(scratch)) for path in scratch.rglob("*") if not path.is_dir()} - set(
        ignored
    )
    if memory - found:
        yield Finding(
            Aspect.MEMORY_IMAGE, "a memory image is not where it was wanted", sorted(wanted), sorted(found)
        )
    for more in sorted(found - wanted):
        aspect = Aspect.OVERLAY_LEFT if _is_image(scratch / more) else Aspect.MEMORY_LEFT
        if aspect is Aspect.MEMORY_LEFT or sure:
            yield Finding(aspect, f"{more} belongs to no snapshot", sorted(wanted), sorted(found))
    for path, content in world.files.items():
        try:
            observed: str | None = (scratch / name(path)).read_text(errors="replace")[:200]
        except OSError as error:
            observed = error.strerror
        if observed != content:
            yield Finding(Aspect.USER_FILE, f"the user's file {name(path)} was changed", content, observed)


def _is_image(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == qcow2.MAGIC
    except OSError:
        return False
