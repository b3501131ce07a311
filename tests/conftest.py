# SPDX-License-Identifier: LGPL-2.1-or-later
"""What all tests rely on, in whatever way they are started and however busy the machine is."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

KILL_POINTS = "kill points"
"""Under this name each test of `tests/crash` notes how many it has tried."""

# Time says nothing on a busy machine. With CI set all runs try the same examples; `make deep` tries others.
settings.register_profile(
    "kit", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("kit")

# A shell starts what runs in its background with SIGINT ignored, and processes inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many kill points were tried; with pytest-xdist only the leading process knows all of them."""
    tried = kill_points(report for group in terminalreporter.stats.values() for report in group)
    if tried:
        terminalreporter.write_line(f"{tried} kill points tried")


def kill_points(reports: Iterable[object]) -> int:
    """Count the kill points that tests have noted."""
    ended = (item for item in reports if isinstance(item, pytest.TestReport) and item.when == "teardown")
    return sum(int(str(dict(report.user_properties).get(KILL_POINTS, 0))) for report in ended)
