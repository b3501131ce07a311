# SPDX-License-Identifier: LGPL-2.1-or-later
"""A run as JUnit XML, in the form that GitLab, GitHub's actions and Jenkins understand.

One ``testsuite`` for each chapter of the specification, one ``testcase`` for each test. A broken clause is
a ``failure``, a harness error an ``error``; what is unsupported, known or blocked is ``skipped``, with the
reason.
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from ..results import Run, Status, TestResult
from . import text
from .chapters import tests_by_chapter

_ELEMENT: dict[Status, str] = {
    Status.FAIL: "failure",
    Status.HARNESS_ERROR: "error",
    Status.UNSUPPORTED: "skipped",
    Status.KNOWN: "skipped",
    Status.BLOCKED: "skipped",
}


def junit(run: Run) -> str:
    """Return the document."""
    name = " ".join(filter(None, (run.implementation.name, run.implementation.version)))
    root = _element("testsuites", name=f"xlsnap conformance of {name}")
    _totals(root, run.tests)
    for chapter, tests in tests_by_chapter(run):
        suite = _element("testsuite", name=chapter, timestamp=run.started.partition("+")[0])
        root.append(suite)
        _totals(suite, tests)
        _properties(
            suite,
            [
                ("implementation", name),
                ("edition", run.implementation.edition),
                ("profile", run.profile),
                ("seed", str(run.seed)),
            ],
        )
        suite.extend(_case(run, test) for test in tests)
    if run.errors:
        suite = _element(
            "testsuite", name="harness", tests="1", failures="0", errors="1", skipped="0", time="0"
        )
        case = _element("testcase", classname="harness", name="run", time="0")
        case.append(_element("error", "\n\n".join(run.errors), message=run.errors[0].partition("\n")[0]))
        suite.append(case)
        root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _element(tag: str, body: str | None = None, **attributes: str) -> ET.Element:
    """Return an element whose texts hold only characters that XML 1.0 can carry."""
    element = ET.Element(tag, {key: text.one_line(value, 2000) for key, value in attributes.items()})
    element.text = None if body is None else text.visible(body)
    return element


def _totals(element: ET.Element, tests: tuple[TestResult, ...] | list[TestResult]) -> None:
    kinds = [_ELEMENT.get(test.status) for test in tests]
    element.set("tests", str(len(tests)))
    for attribute, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(attribute, str(kinds.count(kind)))
    element.set("time", f"{sum(test.seconds for test in tests):.3f}")


def _properties(parent: ET.Element, pairs: list[tuple[str, str]]) -> None:
    properties = _element("properties")
    properties.extend(_element("property", name=name, value=value) for name, value in pairs)
    parent.append(properties)


def _case(run: Run, test: TestResult) -> ET.Element:
    file, _, name = test.id.partition("::")
    case = _element(
        "testcase",
        classname=file.removesuffix(".py").replace("/", "."),
        name=name or file,
        time=f"{test.seconds:.3f}",
        file=file,
    )
    if test.clauses:
        _properties(case, [("clause", id) for id in test.clauses])
    kind = _ELEMENT.get(test.status)
    if kind == "skipped":
        case.append(_element(kind, message=f"{test.status}: {test.message}"))
    elif kind is not None:
        title = f"{', '.join(test.broken)}: {test.message}" if test.broken else test.message
        case.append(_element(kind, _body(run, test), message=title, type=test.status.value))
    if test.evidence.log and kind is not None:
        case.append(_element("system-err", test.evidence.log))
    return case


def _body(run: Run, test: TestResult) -> str:
    texts = {clause.id: clause.text for clause in run.clauses}
    evidence = test.evidence
    parts = [f"{id}: {' '.join(texts[id].split())}" for id in test.broken if id in texts]
    parts += [f"expected: {evidence.expected}"] if evidence.expected else []
    parts += [f"observed: {evidence.observed}"] if evidence.observed else []
    parts += [f"step {number}: {step}" for number, step in enumerate(evidence.steps, start=1)]
    parts += ["", evidence.script] if evidence.script else []
    return "\n".join(parts) or test.message
