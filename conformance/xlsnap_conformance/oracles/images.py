# SPDX-License-Identifier: LGPL-2.1-or-later
"""The image graph: each image holds the internal snapshots that the model says, and no others."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..failures import HarnessError
from ..model import World
from . import Aspect, Finding, qcow2

QEMU_IMG_SECONDS = 60.0


def check(
    world: World, images: Mapping[str, Path], tags: Mapping[tuple[str, str], str] | None = None
) -> Iterator[Finding]:
    """Compare the snapshot tables of all qcow2 images with the model; the domain may be running.

    :param images: vdev to the image that was made for it.
    :param tags: (snapshot, vdev) to the tag that the metadata names, where that is not the snapshot's name.
    """
    for disk in world.domain.disks:
        if disk.format != "qcow2":
            continue
        path = images[disk.vdev]
        try:
            image = qcow2.read(path)
        except (qcow2.ImageError, OSError) as error:
            yield Finding(
                Aspect.IMAGE_SOUND, f"image of {disk.vdev} cannot be read", "a qcow2 image", str(error)
            )
            continue
        expected = [
            (tags or {}).get((snapshot.name, disk.vdev), snapshot.name)
            for snapshot in world.snapshots
            if disk.vdev in snapshot.disks and disk.vdev not in snapshot.lost
        ]
        foreign = [name for vdev, name in world.foreign_tags if vdev == disk.vdev]
        yield from _compare(disk.vdev, expected, foreign, [tag.name for tag in image.tags])
        if image.corrupt:
            yield Finding(
                Aspect.IMAGE_SOUND, f"image of {disk.vdev} is marked corrupt", "not corrupt", "corrupt"
            )


def _compare(vdev: str, expected: list[str], foreign: list[str], observed: list[str]) -> Iterator[Finding]:
    wanted, found = Counter(expected) + Counter(foreign), Counter(observed)

    def finding(aspect: Aspect, summary: str) -> Finding:
        return Finding(aspect, f"image of {vdev} {summary}", [*expected, *foreign], observed, vdev)

    for name in wanted - found:
        if name in foreign:
            yield finding(Aspect.FOREIGN_TAG, f"has lost the internal snapshot {name!r}, which is the user's")
        else:
            yield finding(Aspect.TAG_MISSING, f"has no internal snapshot {name!r}")
    for name in found - wanted:
        if wanted[name]:
            yield finding(Aspect.TAG_TWICE, f"has {found[name]} internal snapshots {name!r}")
        else:
            yield finding(Aspect.TAG_LEFT, f"has an internal snapshot {name!r} that belongs to nothing")


def check_deeply(world: World, images: Mapping[str, Path]) -> Iterator[Finding]:
    """Let `qemu-img check` judge every qcow2 image; no process may have them open.

    Leaked clusters are allowed: they lose space, not data, and a killed QEMU leaves them.
    """
    for disk in world.domain.disks:
        if disk.format == "qcow2":
            report = _qemu_img_check(images[disk.vdev])
            bad = {key: report[key] for key in ("corruptions", "check-errors") if report.get(key)}
            if bad:
                summary = f"qemu-img check finds image of {disk.vdev} damaged"
                yield Finding(Aspect.IMAGE_SOUND, summary, {"corruptions": 0, "check-errors": 0}, bad)


def _qemu_img_check(path: Path) -> dict[str, int]:
    command = ["qemu-img", "check", "--output=json", "-f", "qcow2", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=QEMU_IMG_SECONDS, check=False)
    except FileNotFoundError:
        raise HarnessError("qemu-img is not installed: install qemu-utils") from None
    except subprocess.TimeoutExpired:
        raise HarnessError(f"qemu-img check did not end within {QEMU_IMG_SECONDS:g} s") from None
    if done.returncode not in (0, 2, 3):
        error = done.stderr.decode(errors="replace").strip()
        raise HarnessError(f"qemu-img check of {path.name} failed: {error}")
    report: dict[str, int] = json.loads(done.stdout)
    return report
