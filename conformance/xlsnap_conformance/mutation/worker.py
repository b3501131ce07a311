# SPDX-License-Identifier: LGPL-2.1-or-later
"""A process that judges mutants: ``python -m xlsnap_conformance.mutation.worker SEED``.

It reads a `Task` a line from standard input and writes a `Reply` a line to standard output, until the input
ends. The suite is imported and collected once; then the tests that a task needs run one by one in the same
pytest session, each task with a driver of its own. What the tests print goes to standard error.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator
from typing import BinaryIO

import msgspec
import pytest

from ..collecting import SUITE, SuiteTest, described, suite_arguments, without_other_plugins
from ..plugin import RUN
from ..report.recorder import joined
from ..results import Status, TestResult
from .choice import Reach, order
from .matrix import Verdict

_BUG = "bug: "
"""What the driver says of an error that its toolstack did not expect begins so."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What to run.

    ``driver`` is the implementation to run the tests against. They end when one finds one of ``clauses``
    broken; `choice.order` says which run, and ``first`` before all. When ``tests`` is given it is these that
    run, all of them. ``model`` names a mutant of the suite's own model to break first, for the rest of this
    process.
    """

    driver: str
    clauses: tuple[str, ...] = ()
    first: str = ""
    reach: Reach = Reach.ABLE
    tests: tuple[str, ...] = ()
    model: str = ""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """How the tests ended, in the order in which they ran, and how long all took, in seconds."""

    verdicts: tuple[Verdict, ...]
    seconds: float


class Session:
    """A pytest plugin: instead of running all tests once it runs those that tasks ask for."""

    def __init__(self, requests: BinaryIO, replies: BinaryIO) -> None:
        self._requests = requests
        self._replies = replies
        self._phases: list[TestResult] = []
        self._items: dict[str, pytest.Item] = {}
        self._tests: list[SuiteTest] = []

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Do without the report of a run: there is none."""
        config.pluginmanager.unregister(name="xlsnap-recorder")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the result of each phase of a test."""
        self._phases.append(msgspec.convert(vars(report)["xlsnap"]["result"], TestResult))

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Answer tasks until there are no more."""
        self._tests = [described(item) for item in session.items]
        self._items = {test.id: item for test, item in zip(self._tests, session.items, strict=True)}
        for line in self._requests:
            reply = self._answer(session, msgspec.json.decode(line, type=Task))
            self._replies.write(msgspec.json.encode(reply) + b"\n")
            self._replies.flush()
        return True

    def _answer(self, session: pytest.Session, task: Task) -> Reply:
        run = session.config.stash[RUN]
        run.driver, run.implementation, run.shrink = task.driver, None, False
        if task.model:
            from ..drivers.reference.mutants import CATALOGUE

            broken = CATALOGUE[task.model].break_it
            assert broken is not None  # the crew asks only for those that can be applied
            broken()
        start = time.monotonic()
        able = {test.id for test in self._tests if set(task.clauses).intersection(test.clauses)}
        verdicts = tuple(until_decided(map(self._verdict, self._chosen(task)), task.clauses, able))
        return Reply(verdicts=verdicts, seconds=time.monotonic() - start)

    def _chosen(self, task: Task) -> list[str]:
        if task.tests:
            return list(task.tests)
        met = order(self._tests, task.clauses, first=task.first, reach=task.reach)
        return [test.id for test in met]

    def _verdict(self, test: str) -> Verdict:
        item = self._items.get(test)
        if item is None:
            return Verdict(test=test, status=Status.HARNESS_ERROR, message="the suite has no such test")
        self._phases.clear()
        # Told of a test of another file, pytest tears down all but the session, whose driver stays.
        following = next(other for other in self._items.values() if other.path != item.path)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        result = self._phases[0]
        for phase in self._phases[1:]:
            result = joined(result, phase)
        status, message = result.status, result.message
        if status is Status.FAIL and (result.evidence.observed or "").startswith(_BUG):
            # The patch does not fit what it patches any more: that breaks everything, and shows nothing.
            status, message = Status.HARNESS_ERROR, f"the mutant does not work: {result.evidence.observed}"
        return Verdict(
            test=test,
            status=status,
            broken=result.broken if status is Status.FAIL else (),
            message=message,
            seconds=result.seconds,
        )


def until_decided(
    verdicts: Iterable[Verdict], clauses: Iterable[str], able: Collection[str]
) -> Iterator[Verdict]:
    """Yield verdicts up to the first that has found one of ``clauses`` broken, or to where that is hopeless.

    Those of tests outside of ``able`` come last. They cannot kill: it is enough that one failure is known.
    """
    own, noticed = set(clauses), False
    for verdict in verdicts:
        yield verdict
        noticed |= verdict.status is Status.FAIL
        if verdict.status is Status.FAIL and own.intersection(verdict.broken):
            return
        if noticed and able and verdict.test not in able:
            return


def main(seed: str) -> int:
    """Answer the tasks of standard input; return pytest's exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end in order, with nothing left behind
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    with tempfile.TemporaryDirectory(prefix="xlsnap-run-") as scratch, without_other_plugins():
        return pytest.main(
            [
                *suite_arguments(scratch),
                "-p", "xlsnap_conformance.cli.takeover",
                "--profile", "all",
                "--xlsnap-seed", seed,
                "--capture=no",
                "--pyargs", SUITE,
            ],
            plugins=[Session(requests, replies)],
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
