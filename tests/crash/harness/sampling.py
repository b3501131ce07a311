# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which kill points a run tries: all, one, or some that are spread evenly."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass
class Selection:
    """A choice of kill points. The same `seed` chooses the same ones; others choose those between."""

    every: bool = False
    only: int | None = None
    seed: str = ""
    tried: int = 0

    @property
    def rotation(self) -> int:
        """A number that differs between seeds: of few things each test takes another one."""
        return zlib.crc32(self.seed.encode())

    def points(self, events: Sequence[str], budget: int, *, salt: str = "") -> Iterator[int]:
        """Yield the numbers of the events to try, at most `budget` unless all are wanted."""
        if self.only is not None:
            chosen = [self.only] if self.only < len(events) else []
        elif self.every or budget >= len(events):
            chosen = list(range(len(events)))
        else:
            shift = zlib.crc32(f"{self.seed} {salt}".encode()) / (1 << 32)
            chosen = [int((number + shift) * len(events) / budget) for number in range(budget)]
        for point in chosen:
            self.tried += 1
            yield point
