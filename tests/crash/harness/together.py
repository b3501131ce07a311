# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two operations at once: what they may do is what they do one after the other, or that one is refused."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fork_server import Call, Failure, ForkServer
from observation import Observation, damage, remains
from verdict import check_listed, check_nothing, check_revert, match, observe
from world import DOMAIN, HISTORY, PRESENT, Operation, World, build, demolish, perform, put_back, run
from xlsnap.toolstack import Toolstack

JITTER_SECONDS = 0.06
"""About as long as a snapshot takes: either may be first, and they meet anywhere."""


@dataclass(frozen=True)
class Together:
    """What became of two operations: the class of the error of each, or None, and the state after them."""

    errors: tuple[str | None, ...]
    state: Observation


class Race:
    """Two operations on one world, again and again. `prepare` breaks the toolstack on purpose."""

    def __init__(
        self,
        server: ForkServer,
        directory: Path,
        operations: Sequence[Callable[[World], Operation]],
        *,
        kind: str = "internal",
        prepare: Iterable[Callable[[], None]] = (),
    ) -> None:
        self.server = server
        self.world = World(directory, kind, 2)
        self.operations = [operation(self.world) for operation in operations]
        self.prepare = tuple(prepare)
        self.allowed: list[Together] = []

    def open(self) -> None:
        """Make the world, and find out what the operations do one after the other, and each alone."""
        self.server.call(build, self.world).unwrap()
        first, second = range(2)
        for order in ((first, second), (second, first), (first,), (second,)):
            self.server.call(put_back, self.world).unwrap()
            errors: list[str | None] = ["BusyError", "BusyError"]
            for index in order:
                errors[index] = _error(self.server.call(perform, self.world, self.operations[index]).failure)
            self.allowed.append(Together(tuple(errors), self.server.call(observe, self.world).unwrap()))

    def close(self) -> None:
        """End all processes and remove all files."""
        self.server.call(demolish, self.world)

    def repeat(self, chance: random.Random) -> str | None:
        """Let the operations happen at once; return what is wrong then, or None."""
        self.server.call(put_back, self.world).unwrap()
        calls = [
            Call(
                perform,
                (self.world, operation),
                (*self.prepare, partial(time.sleep, chance.uniform(0, JITTER_SECONDS))),
            )
            for operation in self.operations
        ]
        outcomes = self.server.call_at_once(*calls)
        unclean = [item.failure for item in outcomes if item.failure and not item.failure.is_clean]
        if unclean:
            return f"not a clean error: {unclean[0]}"
        errors = tuple(_error(outcome.failure) for outcome in outcomes)
        allowed = {f"order {n}": item.state for n, item in enumerate(self.allowed) if item.errors == errors}
        if not allowed:
            return f"they end with {errors}, in no order one after the other"
        judged = self.server.call(judge_together, self.world, allowed)
        return judged.failure.message if judged.failure else None


def _error(failure: Failure | None) -> str | None:
    return failure.kind if failure else None


def judge_together(world: World, allowed: dict[str, Observation]) -> None:
    """Compare the world with the states that are allowed; every snapshot must be what it was.

    :raise Violation: if it is not.
    """
    match(observe(world), allowed)
    check_nothing(remains(world))

    async def reverts(toolstack: Toolstack) -> None:
        for snapshot in toolstack.snapshot_list(DOMAIN):
            words = {HISTORY[snapshot.name]} if snapshot.name in HISTORY else {PRESENT, *HISTORY.values()}
            await check_revert(toolstack, world, snapshot.name, words)
        await toolstack.destroy(DOMAIN)
        check_nothing(await damage(world, leaks=True))

    run(world, reverts)


def list_until(world: World, name: str, comes: bool, limit: float) -> list[tuple[str, ...]]:
    """List snapshots until one of this name has come, or gone; return the different lists in order.

    :raise Violation: if one that comes is not complete.
    """
    toolstack = world.toolstack()
    lists: list[tuple[str, ...]] = []
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        names = tuple(snapshot.name for snapshot in toolstack.snapshot_list(DOMAIN))
        if not lists or lists[-1] != names:
            lists.append(names)
        if (name in names) == comes:
            break
    if name in names:
        check_listed(world)
    return lists
