# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fixtures of the suite. A test is made of the fixtures `play` (a whole trace) or `scenario` (step by step).

With pytest-xdist each worker has a driver and a directory of its own. A driver that has broken down is
started anew for the next test.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from xlsnap_conformance.coverage import BEYOND_CORE, ORDER, metadata_clauses
from xlsnap_conformance.failures import UNSUPPORTED
from xlsnap_conformance.fence import Fence
from xlsnap_conformance.plugin import RunContext
from xlsnap_conformance.results import Implementation
from xlsnap_conformance.scenario import Scenario, Unsupported, replay
from xlsnap_conformance.subject import Subject
from xlsnap_conformance.trace import DomainOf, Trace
from xlsnap_conformance.wording import capabilities

Play = Callable[[Trace], Scenario]
NewScenario = Callable[[DomainOf], Scenario]
Need = Callable[[str], None]
Tell = Callable[[str], None]


class Subjects:
    """Keeps one subject running; another one as soon as the run is to be about another driver."""

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._open = contextlib.ExitStack()
        self._subject: Subject | None = None
        self._driver = ""

    def get(self) -> Subject:
        if self._subject is None or not self._subject.usable or self._driver != self._run.driver:
            self.close()
            self._driver = self._run.driver
            fence = self._open.enter_context(Fence())
            self._run.root = fence.path
            self._run.log = lambda: (
                fence.log.read_text(errors="replace")[-4000:] if fence.log.exists() else ""
            )
            self._subject = self._open.enter_context(Subject(self._run.driver, fence))
            hello = self._subject.driver.hello
            self._run.implementation = Implementation(
                name=hello.implementation,
                version=hello.version,
                edition=hello.edition,
                capabilities=hello.capabilities,
                driver=self._run.driver,
            )
        return self._subject

    def close(self) -> None:
        self._subject = None
        self._open.close()


@pytest.fixture(scope="session")
def subjects(xlsnap_run: RunContext) -> Iterator[Subjects]:
    """Keeps the implementation under test running."""
    subjects = Subjects(xlsnap_run)
    try:
        yield subjects
    finally:
        subjects.close()


@pytest.fixture
def subject(subjects: Subjects) -> Subject:
    """The implementation under test."""
    return subjects.get()


@pytest.fixture
def need(subject: Subject) -> Need:
    """A function that skips the test unless the implementation claims a capability."""

    def need(capability: str) -> None:
        if capability not in subject.capabilities:
            pytest.skip(f"{UNSUPPORTED}capability {capability} is not claimed")

    return need


@pytest.fixture(autouse=True)
def _needs(request: pytest.FixtureRequest) -> None:
    """Skip a test whose marker ``needs`` names what is not claimed, before a domain is started for it."""
    for marker in request.node.iter_markers("needs"):
        need = request.getfixturevalue("need")
        for capability in marker.args:
            need(capability)


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """A function that says what a test has seen, for the report."""
    return lambda text: record_property("observed", text)


@pytest.fixture
def new_scenario(subject: Subject, request: pytest.FixtureRequest) -> Iterator[NewScenario]:
    """A function that starts a domain to play steps on; all are looked at and removed in the end.

    Where the implementation keeps metadata files every scenario looks at them, and tests their clauses.
    """
    with contextlib.ExitStack() as stack:

        def begin(domain: DomainOf) -> Scenario:
            if "metadata-files" in subject.capabilities:
                request.node.add_marker(pytest.mark.clauses(*metadata_clauses()))
            return stack.enter_context(Scenario(subject, domain))

        yield begin


@pytest.fixture
def scenario(new_scenario: NewScenario) -> Scenario:
    """A running domain with one disk."""
    return new_scenario(DomainOf())


@pytest.fixture
def play(subject: Subject, need: Need, tell: Tell, request: pytest.FixtureRequest) -> Play:
    """A function that plays a trace, or skips the test when it needs what is not claimed."""

    def play(trace: Trace) -> Scenario:
        for capability in sorted(capabilities(trace)):
            need(capability)
        if ORDER in trace.clauses:
            need("list-order")
        if "metadata-files" in subject.capabilities:
            able = capabilities(trace).intersection(BEYOND_CORE)
            request.node.add_marker(pytest.mark.clauses(*metadata_clauses(*able)))
        try:
            scenario = replay(trace, subject)
        except Unsupported as error:
            pytest.skip(f"{UNSUPPORTED}capability {error} is not claimed")
        tell(f"{len(scenario.steps)} steps, {scenario.checks} observations as the model says")
        return scenario

    return play
