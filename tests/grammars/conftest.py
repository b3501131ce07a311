# SPDX-License-Identifier: LGPL-2.1-or-later
"""The oracle for differential tests, and how many examples Hypothesis tries.

``XLSNAP_REQUIRE_ORACLE=1`` makes a missing oracle a failure (CI sets it); ``XLSNAP_EXAMPLES`` sets the number
of examples of each property, for a long search.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent / "oracle"))

from libxlu_oracle import Oracle, OracleMissingError, build

settings.register_profile(
    "grammars",
    max_examples=int(os.environ.get("XLSNAP_EXAMPLES", "400")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("grammars")


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
