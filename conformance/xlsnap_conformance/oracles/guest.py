# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the guest reads: its variables in memory and the words in its sectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..guest import Probe, ProbeError
from ..model import World
from . import Aspect, Finding


def check(
    world: World,
    probe: Probe,
    disk_numbers: Mapping[str, int],
    keys: Iterable[str],
    sectors: Iterable[tuple[str, int]],
) -> Iterator[Finding]:
    """Let the running guest read all `keys` and `sectors` (vdev, number), also those that must be empty."""
    for key in keys:
        expected, observed = world.variables.get(key), probe.get(key)
        if observed != expected:
            yield Finding(Aspect.VARIABLES, f"guest variable {key} has another value", expected, observed)
    for vdev, lba in sectors:
        word = world.word(vdev, lba)
        try:
            found = probe.read(disk_numbers[vdev], lba)
        except ProbeError as error:
            found = f"damaged: {error}"
        if found != word:
            yield Finding(Aspect.SECTORS, f"sector {lba} of {vdev} has another content", word, found, vdev)
