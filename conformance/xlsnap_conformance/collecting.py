# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests the suite has and which clauses each can find broken, as pytest collects them; nothing is run.

A clause is named by the marker of a test, and by nothing else: what the markers of fixed and generated
scenarios say is computed from the model and the oracles (`coverage`). That a test really finds its clauses
broken is not to be seen here: the kill matrix of the mutants shows it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from .coverage import BEYOND_CORE, metadata_clauses
from .failures import HarnessError
from .plugin import clause_ids
from .trace import Trace
from .wording import capabilities

SUITE = "xlsnap_conformance.suite"
PACKAGE = Path(__file__).parent / "suite"


class Kind(StrEnum):
    """How a test is made."""

    SCENARIO = "scenario"
    """A trace of ``suite/scenarios``."""
    FUNCTION = "function"
    """A test function, for what traces cannot say."""
    GENERATED = "generated"
    """Scenarios that are drawn from the model."""


class SuiteTest(msgspec.Struct, frozen=True, kw_only=True):
    """A test of the suite.

    ``id`` is pytest's, from the suite's directory on: "test_live.py::test_x[case]". ``purpose`` are the
    clauses that it is for, ``watches`` all others that it finds broken when they are. ``steps`` is the length
    of a fixed scenario, 0 for all others.
    """

    id: str
    kind: Kind
    purpose: tuple[str, ...] = ()
    watches: tuple[str, ...] = ()
    steps: int = 0

    @property
    def clauses(self) -> tuple[str, ...]:
        """All clauses that it can find broken."""
        return (*self.purpose, *self.watches)

    @property
    def short(self) -> str:
        """What a reader recognises it by: the scenario's name, or the id."""
        return self.id.partition("[")[2].rstrip("]") if self.kind is Kind.SCENARIO else self.id


def suite_arguments(scratch: Path | str) -> list[str]:
    """Return the arguments that keep a pytest run of the suite free of whatever is around it.

    :param scratch: a directory of the caller's for temporary files.
    """
    return [
        "-c", os.devnull,
        f"--rootdir={PACKAGE}",
        f"--basetemp={scratch}/pytest",
        "-p", "no:cacheprovider",
        "-p", "_hypothesis_pytestplugin",
        "-p", "xlsnap_conformance.plugin",
    ]  # fmt: skip


@contextmanager
def without_other_plugins() -> Iterator[None]:
    """Keep the environment's plugins and options away: they could take our options, or change results."""
    names = ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "PYTEST_ADDOPTS", "PYTEST_PLUGINS")
    before = {name: os.environ.get(name) for name in names}
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.pop("PYTEST_ADDOPTS", None)
    os.environ.pop("PYTEST_PLUGINS", None)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@cache
def collect() -> tuple[SuiteTest, ...]:
    """Return all tests of the suite.

    :raise HarnessError: if they cannot be collected.
    """
    collected = _Collected()
    arguments = [*suite_arguments("."), "--collect-only", "--profile", "all", "-p", "no:terminal", "-s"]
    with without_other_plugins():
        status = pytest.main([*arguments, "--pyargs", SUITE], plugins=[collected])
    if collected.errors or status != 0:
        raise HarnessError("\n".join(["the suite cannot be collected", *collected.errors]))
    return tuple(described(item) for item in collected.items)


class _Collected:
    """A pytest plugin that keeps what was collected."""

    def __init__(self) -> None:
        self.items: list[pytest.Item] = []
        self.errors: list[str] = []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.errors.append(report.longreprtext)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = list(session.items)


def described(item: pytest.Item) -> SuiteTest:
    """Return what an item that pytest has collected is."""
    named = clause_ids(item)
    parameters: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    trace = parameters.get("trace")
    fixtures = getattr(item, "fixturenames", ())
    kind, steps = Kind.FUNCTION, 0
    purpose: tuple[str, ...] = named
    if isinstance(trace, Trace):
        kind, steps, purpose = Kind.SCENARIO, len(trace.steps), trace.clauses
    elif "test_generated" in item.nodeid:
        kind, purpose = Kind.GENERATED, ()
    # Where the implementation keeps metadata files, the fixtures that play scenarios add their clauses.
    if isinstance(trace, Trace):
        named += metadata_clauses(*capabilities(trace).intersection(BEYOND_CORE))
    elif "new_scenario" in fixtures:
        named += metadata_clauses()
    watches = tuple(dict.fromkeys(clause for clause in named if clause not in purpose))
    return SuiteTest(id=suite_id(item.nodeid), kind=kind, purpose=purpose, watches=watches, steps=steps)


def suite_id(nodeid: str) -> str:
    """Return a node id from the suite's directory on."""
    path, _, rest = nodeid.partition("::")
    return f"{Path(path).name}::{rest}"
