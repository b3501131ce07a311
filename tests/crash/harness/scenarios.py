# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table of what is cut short: operations, kinds of snapshots, numbers of disks, states of the domain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from world import DOMAIN, KINDS, Initial, Operation, World

OPERATIONS: dict[str, Callable[[World], Operation]] = {
    "create": lambda world: Operation("snapshot_create", (DOMAIN, world.request("s2")), needs_active=True),
    "create-live": lambda world: Operation(
        "snapshot_create", (DOMAIN, world.request("s2", live=True)), needs_active=True
    ),
    "revert": lambda _: Operation("snapshot_revert", (DOMAIN, "s0")),
    "delete-first": lambda _: Operation("snapshot_delete", (DOMAIN, "s0")),
    "delete-last": lambda _: Operation("snapshot_delete", (DOMAIN, "s1")),
    "save": lambda world: Operation("save", (DOMAIN, str(world.directory / "user.save")), needs_active=True),
    "save-and-go-on": lambda world: Operation(
        "save", (DOMAIN, str(world.directory / "user.save")), {"leave": "running"}, needs_active=True
    ),
    "restore": lambda world: Operation("restore", (str(world.save_file),)),
    "destroy": lambda _: Operation("destroy", (DOMAIN,)),
    "start": lambda world: Operation("create", (world.config,)),
}


@dataclass(frozen=True)
class Scenario:
    """An operation on a world."""

    operation: str
    kind: str
    disks: int
    initial: Initial = "running"

    def __str__(self) -> str:
        return f"{self.operation}-{self.kind}-{self.disks}-{self.initial}"


def _scenarios() -> Iterator[Scenario]:
    for kind in KINDS:
        for disks in range(len({*KINDS[kind]}), 4):
            for operation in ("create", "revert", "delete-first", "delete-last"):
                yield Scenario(operation, kind, disks)
        yield Scenario("create", kind, 2, "paused")
        yield Scenario("revert", kind, 2, "stopped")
        yield Scenario("delete-first", kind, 2, "stopped")
    for operation in ("save", "save-and-go-on", "destroy"):
        yield Scenario(operation, "internal", 2)
    yield Scenario("save-and-go-on", "internal", 2, "paused")
    yield Scenario("create-live", "mixed", 2)
    yield Scenario("restore", "internal", 2, "saved")
    yield Scenario("start", "internal", 2, "stopped")


SCENARIOS = tuple(_scenarios())
