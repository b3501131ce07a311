# SPDX-License-Identifier: LGPL-2.1-or-later
"""Options that choose kill points, and the server in whose calls operations are cut short."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fork_server import ForkServer
from laboratory import Laboratory
from sampling import Selection
from scenarios import Scenario


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("crash safety")
    group.addoption("--every-kill-point", action="store_true", help="try all kill points, not a sample")
    group.addoption("--kill-point", type=int, metavar="N", help="try only the kill point with this number")


@pytest.fixture(scope="session")
def server() -> Iterator[ForkServer]:
    server = ForkServer()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def laboratory(server: ForkServer, tmp_path: Path) -> Iterator[Callable[..., Laboratory]]:
    """Return how a laboratory for a scenario is opened; nothing of it is left after the test."""
    opened = []

    def opening(
        scenario: Scenario, *, server: ForkServer = server, directory: Path = tmp_path, **options: Any
    ) -> Laboratory:
        opened.append(Laboratory(server, directory / "world", scenario, **options))
        opened[-1].open()
        return opened[-1]

    try:
        yield opening
    finally:
        for item in opened:
            item.close()


@pytest.fixture
def every_round(request: pytest.FixtureRequest) -> int:
    """By how much to multiply the repetitions of what is left to chance."""
    return 10 if request.config.getoption("--every-kill-point", default=False) else 1


@pytest.fixture
def selection(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Iterator[Selection]:
    """Which kill points this run tries; it counts them for the summary."""
    selection = Selection(
        every=request.config.getoption("--every-kill-point", default=False),
        only=request.config.getoption("--kill-point", default=None),
        seed=request.node.name,
    )
    yield selection
    record_property("kill points", selection.tried)  # tests/conftest.py sums them up
