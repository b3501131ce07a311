# SPDX-License-Identifier: LGPL-2.1-or-later
"""The real libxlu for differential tests. ``XLSNAP_REQUIRE_ORACLE=1`` makes it a failure if it is missing."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "oracle"))

from libxlu_oracle import Oracle, OracleMissingError, build


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    """The real libxlu, in a process of its own."""
    try:
        program = build(tmp_path_factory.mktemp("oracle"))
    except OracleMissingError as missing:
        reason = f"NOT COMPARED WITH THE REAL libxlu: {missing}"
        if os.environ.get("XLSNAP_REQUIRE_ORACLE") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    running = Oracle(program)
    yield running
    running.close()
