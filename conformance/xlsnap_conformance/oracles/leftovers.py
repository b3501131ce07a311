# SPDX-License-Identifier: LGPL-2.1-or-later
"""The directory with the images: memory images where they were wanted, the user's files, and no more."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from ..model import World
from ..trace import SCRATCH
from . import Aspect, Finding


def check(
    world: World, images: Mapping[str, Path], scratch: Path, ignored: Collection[str] = ()
) -> Iterator[Finding]:
    """Compare the scratch directory with the model; `ignored` are names of no interest."""

    def name(path: str) -> str:
        return path.removeprefix(f"{SCRATCH}/")

    memory = {name(path) for path in world.memory_files}
    wanted = {path.name for path in images.values()} | memory | {name(path) for path in world.files}
    found = {str(path.relative_to(scratch)) for path in scratch.rglob("*") if not path.is_dir()} - set(
        ignored
    )
    if memory - found:
        yield Finding(
            Aspect.MEMORY_IMAGE, "a memory image is not where it was wanted", sorted(wanted), sorted(found)
        )
    if more := found - wanted:
        yield Finding(
            Aspect.MEMORY_LEFT, f"{sorted(more)[0]} belongs to no snapshot", sorted(wanted), sorted(found)
        )
    for path, content in world.files.items():
        try:
            observed: str | None = (scratch / name(path)).read_text(errors="replace")[:200]
        except OSError as error:
            observed = error.strerror
        if observed != content:
            yield Finding(Aspect.USER_FILE, f"the user's file {name(path)} was changed", content, observed)
