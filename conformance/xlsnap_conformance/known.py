# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is known to fail, from a TOML file that says why and where that is told.

::

    [[known]]
    clause = "XLS-TERM-003"
    test = "test_scenario[names-like-ids]"        # one of the two, or both
    message = "guest variable"                    # only if the message, or what was observed, has this
    status = "fail"                               # or "unsupported"
    when = { implementation = "libvirt", version = ">=9,<9.1", edition = "v4" }
    sometimes = true                              # a generated scenario does not find it with every seed
    reason = "names reach QEMU's loadvm, which takes ids first"
    url = "https://…"

A failure that fits becomes ``known``. An entry that applies and that nothing fits, though what it is about
was tested, is out of date, which is an error: else the file would hide the next failure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from .failures import ConformanceFailure, HarnessError
from .results import ClauseResult, Evidence, Implementation, Status, TestResult


class Condition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where an entry applies; a member that is not given does not matter. ``version`` is as pip writes it."""

    implementation: str | None = None
    version: str | None = None
    edition: Literal["v4", "V9"] | None = None

    def holds(self, implementation: Implementation) -> bool:
        """Say whether it fits to an implementation."""
        if self.implementation is not None and self.implementation != implementation.name:
            return False
        if self.edition is not None and self.edition != implementation.edition:
            return False
        if self.version is None:
            return True
        try:
            return SpecifierSet(self.version).contains(Version(implementation.version), prereleases=True)
        except InvalidVersion:
            return False


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One expectation; see the head of this module."""

    clause: str | None = None
    test: str | None = None
    message: str | None = None
    status: Literal["fail", "unsupported"] = "fail"
    when: Condition = Condition()
    sometimes: bool = False
    reason: str
    url: str

    @property
    def about(self) -> str:
        """What it is about, in a few words."""
        return " in ".join(filter(None, (self.clause, self.test)))

    def concerns(self, result: TestResult) -> bool:
        """Say whether a test is one that it is about, however it ended."""
        if self.test is not None and self.test != result.name:
            return False
        return self.clause is None or self.clause in (*result.clauses, *result.broken)

    def fits(self, result: TestResult) -> bool:
        """Say whether a test ended as it says."""
        if result.status.value != self.status or (self.test is not None and self.test != result.name):
            return False
        named = result.broken[:1] if self.status == "fail" else result.clauses
        if self.clause is not None and self.clause not in named:
            return False
        said = f"{result.message}\n{result.evidence.observed or ''}"
        return self.message is None or self.message in said


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    known: tuple[Entry, ...] = ()


@dataclass(slots=True)
class Known:
    """The entries of a file, and which of them something has fitted."""

    entries: tuple[Entry, ...] = ()
    head: str = ""
    met: set[int] = field(default_factory=set)

    def judge(self, result: TestResult, implementation: Implementation | None) -> TestResult:
        """Return the result, ``known`` if it is a failure that an entry fits to."""
        number = self._entry(result, implementation)
        if number is None:
            return result
        self.met.add(number)
        if result.status is not Status.FAIL:
            return result
        entry = self.entries[number]
        told = f"{result.message} (known: {entry.reason}; {entry.url})"
        return msgspec.structs.replace(result, status=Status.KNOWN, message=told)

    def _entry(self, result: TestResult, implementation: Implementation | None) -> int | None:
        for number, entry in enumerate(self.entries):
            if implementation is not None and entry.when.holds(implementation) and entry.fits(result):
                return number
        return None

    def expects(self, test: str, failure: ConformanceFailure, implementation: Implementation | None) -> bool:
        """Say whether a failure of a test is known."""
        result = TestResult(
            id=f"::{test}",
            status=Status.FAIL,
            clauses=failure.clause_ids,
            broken=failure.clause_ids,
            message=failure.summary,
            evidence=Evidence(observed=str(failure.observed)),
        )
        return self._entry(result, implementation) is not None

    def out_of_date(
        self,
        tests: Iterable[TestResult],
        clauses: Iterable[ClauseResult],
        implementation: Implementation | None,
        *,
        complete: bool,
    ) -> list[Entry]:
        """Return the entries that apply and that nothing fitted, though what they are about was tested.

        :param complete: whether all tests of the profile ran; else an entry of no certain test says nothing.
        """
        tests = list(tests)
        judged = {clause.id for clause in clauses if clause.status is Status.PASS}
        return [
            entry
            for number, entry in enumerate(self.entries)
            if number not in self.met
            and not entry.sometimes
            and implementation is not None
            and entry.when.holds(implementation)
            and (
                any(entry.concerns(test) and test.status is Status.PASS for test in tests)
                if entry.test is not None
                else complete and entry.clause in judged
            )
        ]


def load(path: Path) -> Known:
    """Read a file of expectations.

    :raise HarnessError: naming the file and the entry, if it cannot be used.
    """
    try:
        data = path.read_bytes()
        entries = msgspec.toml.decode(data, type=_File).known
    except OSError as error:
        raise HarnessError(f"expectations {path}: {error.strerror}") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise HarnessError(f"expectations {path}: {error}") from None
    for number, entry in enumerate(entries, start=1):
        if problem := _problem(entry):
            raise HarnessError(f"expectations {path}: entry {number} ({entry.about or 'no name'}): {problem}")
    return Known(entries, _head(data.decode("utf-8", "replace")))


def _problem(entry: Entry) -> str | None:
    if entry.clause is None and entry.test is None:
        return "it names neither a clause nor a test"
    if not entry.reason.strip():
        return "reason: say why this fails"
    if not re.fullmatch(r"https?://\S+", entry.url):
        return "url: say where this is told, as http://… or https://…"
    try:
        SpecifierSet(entry.when.version or "")
    except InvalidSpecifier:
        return f"when.version: {entry.when.version!r} is no condition on a version such as '>=9.0,<9.1'"
    return None


def _head(text: str) -> str:
    """Return the comment at the beginning of a file."""
    lines = text.splitlines()
    end = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "\n".join(lines[:end])


# --- rewriting --------------------------------------------------------------------------------------------


def updated(
    known: Known,
    tests: Iterable[TestResult],
    stale: Iterable[Entry],
    implementation: Implementation,
) -> tuple[Entry, ...]:
    """Return the entries after a run: without those that are out of date, with one for each new failure.

    A new one has no URL yet, and is of no use before somebody has given it one.
    """
    gone = set(map(id, stale))
    kept = [entry for entry in known.entries if id(entry) not in gone]
    when = Condition(
        implementation=implementation.name,
        version=f"=={implementation.version}" if _is_version(implementation.version) else None,
    )
    new = [
        Entry(
            clause=next(iter(result.broken), None),
            test=result.name,
            message=result.message or None,
            when=when,
            reason="",
            url="",
        )
        for result in tests
        if result.status is Status.FAIL
    ]
    return (*kept, *new)


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def text_of(entries: Iterable[Entry], head: str = "") -> str:
    """Return the text of a file."""
    parts = [head] if head else []
    for entry in entries:
        lines = ["[[known]]"]
        for name, value in msgspec.to_builtins(entry).items():
            lines.append(f"{name} = {_toml(value)}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(item)}" for name, item in value.items()) + " }"
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(str(value).encode("utf-8", "replace").decode(), ensure_ascii=False).replace(
        "\x7f", "\\u007f"
    )
