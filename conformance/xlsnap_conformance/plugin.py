# SPDX-License-Identifier: LGPL-2.1-or-later
"""The suite as a pytest plugin.

It is loaded by name, so that it meddles with no other test run of the same environment::

    pytest -p xlsnap_conformance.plugin --pyargs xlsnap_conformance.suite --driver ./my-driver --profile core

The suite's fixtures take what was chosen from the fixture `xlsnap_run`, a `RunContext`, and tell it what they
learn of the driver. Each test carries ``@pytest.mark.clauses("XLS-AREA-NNN", …)``. The exit status is that of
`results.Run.exit_code`. With pytest-xdist, results of all workers end in one report.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from . import known
from .clauses import load_clauses
from .covering import cover
from .driver import LOGS_VARIABLE
from .failures import ConformanceFailure, HarnessError
from .profiles import EFFORTS, Profile, available
from .report import outcome
from .report.text import directory_names, encodable
from .results import Implementation, ShardOf, Status
from .script import dialect_of
from .sharding import Shard, Share, divide, recorded_seconds, shipped_seconds, weigh
from .trace import Trace

if TYPE_CHECKING:
    from hypothesis.database import ExampleDatabase

MARKER = "clauses"
SCENARIOS = "scenarios"
"""Marks tests that play many generated scenarios, which several machines can share out among them."""

WORKER_END_SECONDS = 60
"""How long a worker of an interrupted run may take to remove what it has made; pytest-xdist kills it then."""

OTHER_COST = 60
"""What `_cost` says of a test that is no trace."""


@dataclass(slots=True)
class RunContext:
    """What the suite needs to know of the run, and what it tells the report; one in each process.

    ``seed`` is the same in all workers. ``worker`` is "main", or xdist's name of the process ("gw0").
    The fixture that starts the driver sets ``implementation`` to the driver's reply to ``hello``, ``root`` to
    the directory of this worker, which reports call ``$ROOT``, and ``log`` to a function that returns the end
    of what the driver wrote to its standard error. ``shrink`` says whether failing scenarios are made small.
    ``known`` is what is known to fail.

    ``shard`` is the part of the run that this machine has, ``shares`` what that means for each test, by node
    id; None and empty when it has all. ``examples`` says where runs share what they find.
    """

    driver: str
    profile: Profile
    seed: int
    worker: str
    implementation: Implementation | None = None
    root: Path | None = None
    log: Callable[[], str] | None = None
    shrink: bool = True
    known: known.Known = field(default_factory=known.Known)
    examples: str | None = None
    shard: ShardOf | None = None
    shares: dict[str, Share] = field(default_factory=dict)
    _database: ExampleDatabase | None = None
    _broken_setups: list[tuple[BaseException, str]] = field(default_factory=list)

    def is_known(self, test: str) -> Callable[[ConformanceFailure], bool]:
        """Return a function that says of a failure of a test whether it is known."""
        return lambda failure: self.known.expects(test, failure, self.implementation)

    def blocked_by(self, error: BaseException, test: str) -> str | None:
        """Return the test whose set-up failed with this very exception before ``test``; None for the first.

        pytest raises the exception of a shared fixture again for each test that needs it.
        """
        for seen, first in self._broken_setups:
            if seen is error:
                return first
        self._broken_setups.append((error, test))
        return None

    def database(self) -> ExampleDatabase | None:
        """Return where runs share failing scenarios, opened when it is first asked for.

        :raise HarnessError: if it cannot be opened.
        """
        if self._database is None and self.examples is not None:
            from .sharing import open_database

            self._database = open_database(self.examples)
        return self._database


RUN = pytest.StashKey[RunContext]()

_OWN = pytest.StashKey[tuple[str, ...]]()
"""The clauses that a test names by itself; fixtures add those that they look at."""


@pytest.fixture(scope="session")
def xlsnap_run(request: pytest.FixtureRequest) -> RunContext:
    """What this run is about: driver, profile, seed, worker."""
    return request.config.stash[RUN]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the suite."""
    group = parser.getgroup("xlsnap", "xlsnap conformance suite")
    group.addoption("--driver", default="reference", help="driver to test: a name or a command (reference)")
    group.addoption("--profile", default="core", help="which clauses to test, and how hard (core)")
    group.addoption("--xlsnap-seed", type=int, default=None, help="seed of the generated scenarios (random)")
    group.addoption("--clause", action="append", default=[], metavar="ID", help="only tests of this clause")
    group.addoption("--cover", action="store_true", help="only as many tests as name each clause once")
    group.addoption("--report", type=Path, default=None, metavar="DIR", help="write reports to DIR")
    group.addoption("--shard", default=None, metavar="I/N", help="run the I-th of N parts of the tests")
    group.addoption(
        "--times",
        type=Path,
        default=None,
        metavar="REPORT",
        help="report by whose times tests are shared out",
    )
    group.addoption(
        "--examples", default=None, metavar="WHERE", help="share failing scenarios: a directory or redis://…"
    )
    group.addoption("--expectations", type=Path, metavar="FILE", help="TOML file of what is known to fail")
    group.addoption("--update-expectations", action="store_true", help="rewrite that file from this run")
    group.addoption("--strict-should", action="store_true", help="let SHOULD clauses count like MUST clauses")


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, settle profile and seed, and begin the report in the process that leads."""
    config.addinivalue_line(
        "markers", f"{MARKER}(*ids): clauses of the specification that the test can break"
    )
    config.addinivalue_line(
        "markers", "needs(*capabilities): what an implementation must claim for the test to make sense"
    )
    config.addinivalue_line("markers", f"{SCENARIOS}: the test plays many scenarios, which can be shared out")
    clauses = load_clauses()
    profiles = available({name for clause in clauses.values() for name in clause.profiles})
    name = config.getoption("--profile")
    if name not in profiles:
        raise pytest.UsageError(f"no profile {name!r}; there are: {', '.join(profiles)}")
    for clause in config.getoption("--clause"):
        if clause not in clauses:
            raise pytest.UsageError(f"no clause {clause!r} in the specification")
    worker: dict[str, Any] = getattr(config, "workerinput", {})
    seed = worker.get("xlsnap_seed", config.getoption("--xlsnap-seed"))
    context = RunContext(
        driver=config.getoption("--driver"),
        profile=profiles[name],
        seed=random.SystemRandom().randrange(2**32) if seed is None else seed,
        worker=worker.get("workerid", "main"),
        known=_known(config),
        examples=config.getoption("--examples"),
    )
    config.stash[RUN] = context
    if report := config.getoption("--report"):
        os.environ[LOGS_VARIABLE] = str(Path(report).absolute() / "logs" / context.worker)
    if not _is_worker(config) and not config.option.collectonly:
        from .report.recorder import Recorder

        config.pluginmanager.register(Recorder(config, context, clauses), "xlsnap-recorder")


def _known(config: pytest.Config) -> known.Known:
    file: Path | None = config.getoption("--expectations")
    updating = config.getoption("--update-expectations")
    if file is None:
        if updating:
            raise pytest.UsageError("--update-expectations needs --expectations FILE")
        return known.Known()
    if updating and not file.exists():
        return known.Known()
    try:
        return known.load(file)
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give each xdist worker the seed of the run, and time to clean up: 10 seconds by default."""
    node.nodemanager.EXIT_TIMEOUT = WORKER_END_SECONDS
    node.workerinput["xlsnap_seed"] = node.config.stash[RUN].seed


# --- collection -------------------------------------------------------------------------------------------


def clause_ids(item: pytest.Item | pytest.Collector) -> tuple[str, ...]:
    """Return the clauses that a test names, each once."""
    return tuple(dict.fromkeys(str(id) for marker in item.iter_markers(MARKER) for id in marker.args))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Make a clause that the specification does not have an error of the collection."""
    report = yield
    clauses = load_clauses()
    wrong = [
        f"{item.nodeid}: no clause {id!r} in the specification"
        for item in report.result or ()
        if isinstance(item, pytest.Item)
        for id in clause_ids(item)
        if id not in clauses
    ]
    if wrong:
        report.outcome = "failed"
        report.longrepr = "\n".join(wrong)
        report.result = []
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that are of no clause of the profile, or of none that was asked for.

    With ``--cover`` leave out those too whose clauses other tests name.
    """
    profile, clauses = config.stash[RUN].profile, load_clauses()
    asked = set(config.getoption("--clause"))

    def wanted(item: pytest.Item) -> bool:
        ids = clause_ids(item)
        in_profile = not ids or any(profile.wants(clauses[id].profiles) for id in ids)
        return in_profile and (not asked or bool(asked.intersection(ids)))

    for item in items:
        item.stash[_OWN] = clause_ids(item)
    chosen = [item for item in items if wanted(item)]
    if config.getoption("--shard") is not None:
        chosen = _of_shard(config, chosen)
    if config.getoption("--cover"):
        of_profile = {item: _clauses_of(item, profile, asked) for item in chosen}
        chosen = cover(of_profile, {item: _cost(item) for item in chosen})
    if len(chosen) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
        items[:] = chosen


def _clauses_of(item: pytest.Item, profile: Profile, asked: set[str]) -> set[str]:
    """Return the clauses of a test that the run is about."""
    clauses = load_clauses()
    ids = {id for id in clause_ids(item) if profile.wants(clauses[id].profiles)}
    return ids & asked if asked else ids


def _cost(item: pytest.Item) -> int:
    """Guess how long a test takes: the number of steps of its trace.

    What is no trace often needs what few toolstacks can do: it is taken only where nothing else will do.
    """
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    trace = parameters.get("trace")
    return len(trace.steps) if isinstance(trace, Trace) else OTHER_COST


def _of_shard(config: pytest.Config, items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the tests of this machine's shard."""
    context, path = config.stash[RUN], config.getoption("--times")
    try:
        shard = Shard.parse(config.getoption("--shard"))
        seconds = recorded_seconds(path) if path is not None else shipped_seconds()
    except (ValueError, OSError) as error:
        raise pytest.UsageError(str(error)) from error
    scenarios, _ = EFFORTS[context.profile.effort]
    ids = {item.nodeid: scenarios if item.get_closest_marker(SCENARIOS) else 1 for item in items}
    division = divide(weigh(ids, seconds), shard.of)
    context.shard = ShardOf(index=shard.index, of=shard.of, division=division)
    context.shares = {share.id: share for share in division[shard.index - 1]}
    return [item for item in items if item.nodeid in context.shares]


# --- results: made where the test ran, carried to the leading process in the test's report -----------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach to pytest's report what it means for the clauses, as plain data that crosses processes."""
    report = yield
    context = item.config.stash[RUN]
    error = outcome.culprit(call.excinfo.value) if call.excinfo else None
    expected = hasattr(report, "wasxfail")
    status = outcome.classify(error, in_test=call.when == "call", expected=expected)
    if call.when == "setup" and call.excinfo is not None and status in (Status.FAIL, Status.HARNESS_ERROR):
        first = context.blocked_by(call.excinfo.value, item.nodeid)
        if first is not None:
            status = Status.BLOCKED
    try:
        result = outcome.result(
            item.nodeid,
            # A test that was skipped says nothing of what its fixtures would have looked at.
            item.stash[_OWN] if status is Status.UNSUPPORTED else clause_ids(item),
            error,
            status=status,
            seconds=call.duration,
            observed=str(dict(item.user_properties).get("observed", "")) or None,
            unclaimed=tuple(str(name) for key, name in item.user_properties if key == "unclaimed"),
            log=context.log() if context.log and error is not None else "",
            traceback=report.longreprtext if status is Status.HARNESS_ERROR else "",
            names=directory_names(context.root),
            dialect=dialect_of(context.driver),
        )
    except Exception as failure:  # whatever a driver has sent must not end the run
        result = outcome.unreportable(item.nodeid, clause_ids(item), failure)
    # Attributes of a report that are plain data go from xdist's workers to the leading process with it.
    vars(report)["xlsnap"] = {
        "result": msgspec.to_builtins(result),
        "implementation": msgspec.to_builtins(context.implementation),
    }
    if report.failed and not report.longreprtext.isascii():
        report.longrepr = encodable(
            report.longreprtext
        )  # a lone surrogate would end the worker that sends it
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the leading process which clauses the tests name: a worker that crashes cannot say it."""
    if _is_worker(session.config):
        output: dict[str, Any] = session.config.workeroutput  # type: ignore[attr-defined]  # set by xdist
        output["xlsnap_clauses"] = {item.nodeid: list(clause_ids(item)) for item in session.items}
