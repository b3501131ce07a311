# SPDX-License-Identifier: LGPL-2.1-or-later
"""The report of a run, as typed data: what was tested, how it ended, and what that means.

Everything that is shown of a run (table, HTML, JUnit, Markdown, SVG) is made from one `Run`, and a `Run` is
written to and read from ``report.json`` without loss. Its JSON schema is ``schemas/report.schema.json``.

::

    Run ── tests ── TestResult ── evidence ── Evidence ── trace ── Trace (steps, snapshot trees)
     ├──── clauses ── ClauseResult     worst status of the tests that name the clause
     └──── profiles ── ProfileResult   verdict over the clauses of a profile
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import msgspec

from .capabilities import OF_PROFILE
from .sharding import Division
from .trace import Trace

FORMAT = 1
"""Version of the layout of ``report.json``; it rises when a reader must change."""


class Status(StrEnum):
    """How a test ended. The members stand in order of severity, the best first."""

    PASS = "pass"
    """The implementation did what the clauses say."""
    UNSUPPORTED = "unsupported"
    """The implementation does not claim the capability."""
    KNOWN = "known"
    """It failed, as it was expected to."""
    BLOCKED = "blocked"
    """It could not be judged because something that it builds on had failed."""
    HARNESS_ERROR = "harness-error"
    """Driver, host or suite failed; nothing is said of the implementation."""
    FAIL = "fail"
    """The implementation broke a clause."""


_SEVERITY = {status: rank for rank, status in enumerate(Status)}


def worst(statuses: Iterable[Status]) -> Status | None:
    """Return the most severe of ``statuses``; None when there is none."""
    return max(statuses, key=_SEVERITY.__getitem__, default=None)


class Verdict(StrEnum):
    """What a run says of a profile."""

    CONFORMS = "conforms"
    """Every MUST clause of the profile was tested and held, or has no test yet."""
    DOES_NOT_CONFORM = "does not conform"
    """At least one MUST clause was broken."""
    NOT_CLAIMED = "not claimed"
    """Nothing was broken, but the implementation does not claim all that the profile needs."""
    UNDECIDED = "undecided"
    """Nothing was broken, but not everything was judged: it was not asked for, or something came between."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a test has to show for its status; texts are plain text for a human being.

    ``trace`` is the shrunk scenario: what ``replay`` takes, with the snapshot trees before and after the last
    step. ``steps`` are its steps in words, ``script`` is the same as a shell script. ``log`` is the end of
    what the driver wrote to its standard error, after the traceback if the harness failed.
    """

    expected: str | None = None
    observed: str | None = None
    steps: tuple[str, ...] = ()
    trace: Trace | None = None
    script: str | None = None
    log: str | None = None


class TestResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One test of the run.

    ``id`` is pytest's node id, ``seconds`` the time of set-up, test and tear-down together, ``message`` one
    line. ``clauses`` are all clauses that the test can break, ``broken`` those that it saw broken.
    ``unclaimed`` are capabilities that it saw work though they are not claimed.
    """

    __test__ = False  # the name begins with "Test"; pytest shall not collect it

    id: str
    status: Status
    clauses: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    seconds: float = 0.0
    message: str = ""
    evidence: Evidence = Evidence()
    unclaimed: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The id without its file: "test_create.py::test_x" is "test_x"."""
        return self.id.partition("::")[2] or self.id

    def status_for(self, clause: str) -> Status | None:
        """Return what this test says of one of its clauses.

        A test ends where it sees a clause broken: of its other clauses it says nothing, which is None.
        """
        if self.status in (Status.FAIL, Status.KNOWN) and self.broken and clause not in self.broken:
            return None
        return self.status


class ClauseResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A clause of the specification and how the run judged it; ``status`` is None when no test of it ran.

    ``untried`` are those of its ``tests`` that need a capability that is not claimed.
    """

    id: str
    level: str
    chapter: str
    text: str
    profiles: tuple[str, ...] = ()
    status: Status | None = None
    tests: tuple[str, ...] = ()
    untried: tuple[str, ...] = ()

    @property
    def judged(self) -> bool:
        """Whether a test said something of the clause."""
        return self.status in (Status.PASS, Status.FAIL, Status.KNOWN)


class ProfileResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The verdict on a profile, one line that gives the reason, and how many of its clauses ended how.

    ``partial`` tells that the run was about some of its clauses only, or none: it cannot show conformance.
    """

    name: str
    verdict: Verdict
    reason: str
    counts: dict[str, int] = {}
    partial: bool = False


class Implementation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the implementation says of itself (the driver's reply to ``hello``) and the driver that ran it."""

    name: str = "unknown"
    version: str = ""
    edition: str = ""
    capabilities: tuple[str, ...] = ()
    driver: str = ""

    def lacks(self, profile: str) -> str | None:
        """Return the capability without which nobody claims a profile, if it is not claimed.

        None where none is claimed at all: the driver may never have answered.
        """
        needed = OF_PROFILE.get(profile)
        return None if not self.capabilities or needed in self.capabilities else needed


NOBODY = Implementation()
"""Stands for a driver that has never answered."""


class Host(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Facts of the machine that a reader of the report may need; ``qemu`` is None when there is no QEMU."""

    system: str = ""
    python: str = ""
    qemu: str | None = None
    cpus: int = 0


class ShardOf(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a run that one of several machines had: the ``index``-th (from 1) of ``of``.

    ``division`` is what each of them has, so that one report is enough to know what a lost one would say.
    """

    index: int
    of: int
    division: Division

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the suite.

    ``started`` is UTC, ISO 8601; ``duration`` seconds. ``selected`` tells why not all tests of the profile
    ran ("-k revert"), "" when they did; ``shard`` is set when other machines ran the others. ``errors`` are
    harness errors that belong to no test.
    """

    format: Literal[1] = 1
    kit: str
    implementation: Implementation
    profile: str
    seed: int
    started: str
    duration: float
    interrupted: bool = False
    strict: bool = False
    selected: str = ""
    shard: ShardOf | None = None
    host: Host = Host()
    errors: tuple[str, ...] = ()
    profiles: tuple[ProfileResult, ...] = ()
    clauses: tuple[ClauseResult, ...] = ()
    tests: tuple[TestResult, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The verdict over all clauses that the run was about."""
        return judge(
            self.clauses,
            strict=self.strict,
            incomplete=bool(self.selected or self.interrupted or self.errors),
        )

    @property
    def exit_code(self) -> int:
        """0 when nothing was broken, 1 when the implementation broke a clause, 2 for a harness error.

        130 when the run was interrupted. A harness error outweighs a failure: the run is not to be trusted.
        """
        if self.interrupted:
            return 130
        statuses = {test.status for test in self.tests}
        if self.errors or Status.HARNESS_ERROR in statuses or not (self.tests or self.has_nothing_to_do):
            return 2
        counting = {c.id for c in self.clauses if self.strict or c.level == "MUST"}
        failures = [test for test in self.tests if test.status is Status.FAIL]
        if any(counting.intersection(test.broken or test.clauses) or not test.clauses for test in failures):
            return 1
        return 2 if Status.BLOCKED in statuses else 0

    @property
    def has_nothing_to_do(self) -> bool:
        """Whether this is the report of a machine that got no test: there were more machines than work."""
        return self.shard is not None and not self.shard.division[self.shard.index - 1]

    @property
    def note(self) -> str:
        """Why the run is not complete, "" when it is."""
        return ", ".join(filter(None, ("interrupted" if self.interrupted else "", self.selected)))

    @property
    def unclaimed(self) -> tuple[str, ...]:
        """What works though it is not claimed: no failure, but worth a look at the driver."""
        return tuple(dict.fromkeys(name for test in self.tests for name in test.unclaimed))

    def count(self, status: Status) -> int:
        """Return the number of tests that ended so."""
        return sum(test.status is status for test in self.tests)


def judge(clauses: Iterable[ClauseResult], *, strict: bool = False, incomplete: bool = False) -> Verdict:
    """Return the verdict over ``clauses``; SHOULD and MAY clauses count when ``strict``."""
    statuses = {c.status for c in clauses if strict or c.level == "MUST"}
    if Status.FAIL in statuses or Status.KNOWN in statuses:
        return Verdict.DOES_NOT_CONFORM
    if incomplete or statuses & {Status.HARNESS_ERROR, Status.BLOCKED} or not statuses - {None}:
        return Verdict.UNDECIDED
    return Verdict.NOT_CLAIMED if Status.UNSUPPORTED in statuses else Verdict.CONFORMS


def encode(run: Run) -> bytes:
    """Return the run as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(run), indent=1) + b"\n"


def decode(data: bytes) -> Run:
    """Return the run that `encode` wrote.

    :raise ValueError: the data are no report, or one of a format that this version does not know.
    """
    return msgspec.json.decode(data, type=Run)


def load(path: Path) -> Run:
    """Read a report from ``path``: the JSON file, or the directory that holds ``report.json``.

    :raise ValueError: it is no report.
    :raise OSError: it cannot be read.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        return decode(file.read_bytes())
    except msgspec.MsgspecError as error:
        raise ValueError(f"{file} is no report of this kit: {error}") from error


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of ``report.json``; for traces it refers to theirs."""
    _, known = msgspec.json.schema_components([Run], ref_template="#/$defs/{name}")
    _, of_traces = msgspec.json.schema_components([Trace])
    definitions = {name: schema for name, schema in sorted(known.items()) if name not in of_traces}
    for definition in definitions.values():
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
    definitions["Trace"] = {"$ref": "trace.schema.json"}
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Report of a run of the xlsnap conformance suite",
        "$ref": "#/$defs/Run",
        "$defs": definitions,
    }
    plain: dict[str, Any] = json.loads(json.dumps(schema))  # defaults that are tuples become lists
    return plain


if __name__ == "__main__":  # write the published schema anew
    published = Path(__file__).parent / "schemas" / "report.schema.json"
    published.write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")
