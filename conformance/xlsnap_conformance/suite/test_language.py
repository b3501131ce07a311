# SPDX-License-Identifier: LGPL-2.1-or-later
"""The language of configuration files: the examples of the specification, and what a page cannot show."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from xlsnap_conformance import protocol as p
from xlsnap_conformance.clauses import load_clauses
from xlsnap_conformance.examples import Example, load_examples, shown
from xlsnap_conformance.failures import ConformanceFailure, ImplementationError
from xlsnap_conformance.subject import Subject

from .conftest import Tell

pytestmark = pytest.mark.needs("parse")

BY_DEFAULT: dict[p.Language, str] = {"xl-disk": "XLS-CONF-020"}
"""The clause of examples that stand under none: that of the whole language, XLS-CONF-001 unless said here."""

UNSEEN: dict[str, tuple[str, str, str]] = {
    "carriage returns": ("XLS-CONF-001", "a = 1\nb = 2\n", "a = 1\r\nb = 2\r\n"),
    "form feed": ("XLS-CONF-001", "a = 1\n\t\nb = 2\n", "a = 1\n\f\nb = 2\n"),
    "byte-order mark": ("XLS-CONF-001", "a = 1\n", "\ufeffa = 1\n"),
    "no-break space": ("XLS-CONF-001", "a = \t1\n", "a = \u00a01\n"),
    "letter with an accent": ("XLS-CONF-003", "cafe = 1\n", "café = 1\n"),
    "comment at the end": ("XLS-CONF-001", "a = 1 # c\n", "a = 1 # c"),
    "line end after =": ("XLS-CONF-001", "a = 1\n", "a =\n1\n"),
    "NUL in a string": ("XLS-CONF-001", "a = 'x y'\n", "a = 'x\0y'\n"),
    "line end in a string": ("XLS-CONF-008", "a = 'x\ty'\n", "a = 'x\ny'\n"),
    "hexadecimal escape": ("XLS-CONF-008", "a = 'x\\ty'\n", "a = 'x\\x41y'\n"),
    "sign": ("XLS-CONF-007", "a = 1\n", "a = +1\n"),
}
"""A clause, a text that is accepted, and one that differs from it in a place and is not: of xl.cfg."""


def ask(subject: Subject, language: p.Language, text: str, clause: str) -> p.ParseResult:
    """Let the implementation parse a text."""
    try:
        return subject.call(p.Parse(language=language, text=text))
    except ImplementationError as error:
        summary = "a text is refused instead of being parsed, or reported as wrong"
        raise ConformanceFailure((clause,), summary, expected=text, observed=str(error)) from error


def judge(subject: Subject, example: Example, clause: str) -> None:
    """Compare what the implementation makes of an example with what the specification says."""
    result = ask(subject, example.language, example.text, clause)
    if (not result.errors) != example.accepted:
        raise ConformanceFailure(
            (clause,),
            f"{example.place}: a text is {'refused' if example.accepted else 'accepted'}: {example.text!r}",
            expected="accepted" if example.accepted else "refused",
            observed=[error.message for error in result.errors] or result.value,
        )
    if example.meaning is None:
        return
    meaning = shown(result.value, example.meaning)
    if meaning != example.meaning:
        raise ConformanceFailure(
            (clause,),
            f"{example.place}: a text means something else: {example.text!r}",
            expected=example.meaning,
            observed=meaning,
        )


def _by_clause(examples: Iterable[Example]) -> dict[str, list[Example]]:
    found: dict[str, list[Example]] = {}
    for example in examples:
        clause = example.clause or BY_DEFAULT.get(example.language, "XLS-CONF-001")
        found.setdefault(clause, []).append(example)
    return found


EXAMPLES = _by_clause(load_examples())
ACCEPTED: dict[p.Language, Example] = {
    example.language: example for example in reversed(load_examples()) if example.accepted
}
"""The first text of each language that is accepted."""


@pytest.mark.parametrize(
    "clause", [pytest.param(clause, marks=pytest.mark.clauses(clause)) for clause in EXAMPLES]
)
def test_examples(clause: str, subject: Subject, tell: Tell) -> None:
    """Those that are accepted come first: a parser that rejects everything proves nothing."""
    if "v4" not in load_clauses()[clause].editions and subject.driver.hello.edition == "v4":
        pytest.skip(f"unsupported: {clause} is of another edition")
    examples = sorted(EXAMPLES[clause], key=lambda example: not example.accepted)
    for language in {example.language for example in examples}:
        judge(subject, ACCEPTED[language], clause)
    for example in examples:
        judge(subject, example, clause)
    accepted = sum(example.accepted for example in examples)
    tell(f"{accepted} texts accepted, {len(examples) - accepted} refused, as the specification says")


@pytest.mark.parametrize(
    "what",
    [pytest.param(what, marks=pytest.mark.clauses(clause)) for what, (clause, _, _) in UNSEEN.items()],
)
def test_what_a_page_cannot_show(what: str, subject: Subject, tell: Tell) -> None:
    clause, good, bad = UNSEEN[what]
    for text, accepted in ((good, True), (bad, False)):
        judge(subject, Example(what, clause, "xl.cfg", accepted, text), clause)
    tell(f"{good!r} is accepted, {bad!r} is not")


WRONG = 'name = before\nmemory = "yes"\nColour = 1\ndisk = [ "vdev=hda" "vdev=hdb" ]\n'
WRONG_LINES = {1, 3, 4}


@pytest.mark.clauses("XLS-CONF-006")
def test_all_errors_are_told_with_their_places(subject: Subject, tell: Tell) -> None:
    result = ask(subject, "xl.snapshot.conf", WRONG, "XLS-CONF-006")
    lines = {error.line for error in result.errors}
    if lines != WRONG_LINES or not all(error.column > 0 for error in result.errors):
        raise ConformanceFailure(
            ("XLS-CONF-006",),
            "not all errors of a file are told, each with its line and column",
            expected=sorted(WRONG_LINES),
            observed=[f"{error.line}:{error.column}: {error.message}" for error in result.errors],
        )
    tell("; ".join(f"{error.line}:{error.column}: {error.message}" for error in result.errors))


WARNED: dict[str, tuple[str, str]] = {
    "creationtime": ("XLS-CONF-013", 'name = "x"\ncreationtime = 1403481600\n'),
    "desription": ("XLS-CONF-017", 'name = "x"\ndesription = "before"\n'),
}
"""Keys that a warning must name, each with its clause and a file."""


@pytest.mark.parametrize(
    "key", [pytest.param(key, marks=pytest.mark.clauses(clause)) for key, (clause, _) in WARNED.items()]
)
def test_warning_about_a_key(key: str, subject: Subject, tell: Tell) -> None:
    """It names the key; the file is accepted, and without the key there is no warning."""
    clause, text = WARNED[key]
    plain = ask(subject, "xl.snapshot.conf", 'name = "x"\n', clause)
    result = ask(subject, "xl.snapshot.conf", text, clause)
    warned = [warning for warning in result.warnings if key in warning]
    if result.errors or plain.errors or plain.warnings or not warned:
        raise ConformanceFailure(
            (clause,),
            f"a file with the key {key} is not accepted with a warning about it",
            expected=f"a warning about {key}, and none without it",
            observed=[*plain.warnings, *result.warnings, *(error.message for error in result.errors)],
        )
    tell(warned[0].splitlines()[0])
