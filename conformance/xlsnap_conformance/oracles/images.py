# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each image holds the internal snapshots that the model says and no others, and is consistent."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..failures import HarnessError
from ..model import World
from . import Aspect, Finding
from .chains import Chains, Graph, look

QEMU_IMG_SECONDS = 60.0


def check(
    world: World, chains: Chains, graph: Graph, tags: Mapping[tuple[str, str], str] | None = None
) -> Iterator[Finding]:
    """Compare the snapshot tables of all qcow2 images with the model; the domain may be running.

    :param tags: (snapshot, vdev) to the tag that the metadata names, where that is not the snapshot's name.
    """
    expected: dict[str, list[str]] = {}
    for snapshot in world.snapshots:
        for vdev in snapshot.internal:
            if vdev not in snapshot.lost:
                tag = (tags or {}).get((snapshot.name, vdev), snapshot.name)
                expected.setdefault(chains.places[snapshot.name, vdev].path, []).append(tag)
    unsure = {vdev for _, vdev in chains.unknown}
    foreign: dict[str, list[str]] = {}
    for vdev, name in world.foreign_tags:
        foreign.setdefault(chains.first[vdev].path, []).append(name)
    for path, vdev in _users(chains, graph).items():
        node = graph.nodes.get(path) or look(path, chains.format_of(path))
        if node.image is None:
            continue  # raw; or told by `chains.check_graph`
        observed = [tag.name for tag in node.image.tags]
        if vdev not in unsure:
            yield from _compare(vdev, expected.get(path, []), foreign.get(path, []), observed)
        if node.image.corrupt:
            summary = f"image of {vdev} is marked corrupt"
            yield Finding(Aspect.IMAGE_SOUND, summary, "not corrupt", "corrupt", vdev)


def _users(chains: Chains, graph: Graph) -> dict[str, str]:
    """Return all images of the domain, each with a vdev that it is for."""
    users = {image.path: vdev for vdev, image in chains.first.items()}
    for path, vdev in graph.needed.items():
        for lower in (path, *graph.below(path)):
            users.setdefault(lower, vdev)
    return users


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


def check_deeply(chains: Chains, graph: Graph) -> Iterator[Finding]:
    """Let `qemu-img check` judge every qcow2 image; no process may have them open.

    Leaked clusters are allowed: they lose space, not data, and a killed QEMU leaves them.
    """
    for path, vdev in _users(chains, graph).items():
        if chains.format_of(path) == "qcow2":
            report = _qemu_img_check(Path(path))
            bad = {key: report[key] for key in ("corruptions", "check-errors") if report.get(key)}
            if bad:
                summary = f"qemu-img check finds an image of {vdev} damaged"
                yield Finding(Aspect.IMAGE_SOUND, summary, {"corruptions": 0, "check-errors": 0}, bad, vdev)


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
