# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two commands on one domain at the same time: as if one came after the other, or one is refused."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fork_server import Call, ForkServer
from mutants import locks_hold_nobody
from together import Race, list_until
from world import DOMAIN, Operation, World, perform, put_back

ROUNDS = 2
LIST_ROUNDS = 3
LIST_SECONDS = 60.0


def create(name: str) -> Callable[[World], Operation]:
    return lambda world: Operation("snapshot_create", (DOMAIN, world.request(name)))


def revert(name: str) -> Callable[[World], Operation]:
    return lambda world: Operation("snapshot_revert", (DOMAIN, name))


def delete(name: str) -> Callable[[World], Operation]:
    return lambda world: Operation("snapshot_delete", (DOMAIN, name))


PAIRS = {
    "create and create": (create("s2"), create("s3")),
    "create and create of the same name": (create("s2"), create("s2")),
    "create and delete": (create("s2"), delete("s0")),
    "create and revert": (create("s2"), revert("s0")),
    "revert and delete": (revert("s0"), delete("s0")),
    "revert and delete of another": (revert("s0"), delete("s1")),
    "delete and delete": (delete("s0"), delete("s0")),
}


@pytest.fixture
def race(server: ForkServer, tmp_path: Path) -> Iterator[Callable[..., Race]]:
    opened = []

    def opening(pair: str, **options: object) -> Race:
        opened.append(Race(server, tmp_path / "world", PAIRS[pair], **options))  # type: ignore[arg-type]
        opened[-1].open()
        return opened[-1]

    try:
        yield opening
    finally:
        for item in opened:
            item.close()


@pytest.mark.parametrize("kind", ["internal", "mixed"])
@pytest.mark.parametrize("pair", PAIRS)
def test_two_at_once(pair: str, kind: str, race: Callable[..., Race], every_round: int) -> None:
    running = race(pair, kind=kind)
    chance = random.Random(pair)
    complaints = [running.repeat(chance) for _ in range(ROUNDS * every_round)]
    assert not any(complaints), "\n".join(filter(None, complaints))


def test_operations_without_locks_are_caught(race: Callable[..., Race]) -> None:
    running = race("create and revert", prepare=[locks_hold_nobody])
    chance = random.Random(1)
    assert any(running.repeat(chance) for _ in range(6)), "two operations at once go unnoticed"


@pytest.mark.parametrize(("pair", "name"), [("create and create", "s2"), ("create and delete", "s0")])
def test_a_list_shows_whole_snapshots(
    pair: str, name: str, race: Callable[..., Race], server: ForkServer, every_round: int
) -> None:
    running = race(pair)
    operation = running.operations[0 if name == "s2" else 1]
    for _ in range(LIST_ROUNDS * every_round):
        server.call(put_back, running.world).unwrap()
        done, listed = server.call_at_once(
            Call(perform, (running.world, operation)),
            Call(list_until, (running.world, name, name == "s2", LIST_SECONDS)),
        )
        done.unwrap()
        before, after = ("s0", "s1"), ("s0", "s1", "s2") if name == "s2" else ("s1",)
        assert listed.unwrap() in ([before, after], [after])
