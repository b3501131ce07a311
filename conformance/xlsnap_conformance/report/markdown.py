# SPDX-License-Identifier: LGPL-2.1-or-later
"""A run as Markdown: for the summary of a CI job, a merge request or a release note."""

from __future__ import annotations

from ..results import Run, Status
from ..verdicts import alike
from . import look, text
from .chapters import chapters

SHOWN = 20
"""Failures that are told at length."""


def markdown(run: Run) -> str:
    """Return the summary."""
    name = plain(" ".join(filter(None, (run.implementation.name, run.implementation.version))))
    lines = [f"# {name}: {run.verdict}", ""]
    facts = [f"profile {run.profile}", f"{len(run.tests)} tests in {run.duration:.1f} s", f"seed {run.seed}"]
    facts += [f"QEMU {plain(run.host.qemu)}"] if run.host.qemu else []
    facts += [plain(run.note)] if run.note else []
    lines += [" · ".join(facts), "", "| profile | verdict | |", "|---|---|---|"]
    lines += [
        f"| {plain(', '.join(group.names))} | **{group.verdict}** | {plain(group.reason)} |"
        for group in alike(run.profiles)
    ]
    if run.unclaimed:
        lines += ["", f"**Works but is not claimed:** {plain(', '.join(run.unclaimed))}"]
    shown = [status for status in look.STATUS if any(c.status is status for c in run.clauses)]
    lines += ["", f"| chapter | {' | '.join(s.value if s else 'untested' for s in shown)} |"]
    lines += ["|---" + "|--:" * len(shown) + "|"]
    for chapter, clauses in chapters(run):
        numbers = [sum(clause.status is status for clause in clauses) for status in shown]
        lines.append(f"| {plain(chapter)} | {' | '.join(str(n) if n else '' for n in numbers)} |")
    lines += [f"\n**Harness error:** {plain(error)}" for error in run.errors]
    failures = [test for test in run.tests if test.status in (Status.FAIL, Status.HARNESS_ERROR)]
    if failures:
        lines += ["", "## What went wrong"]
    for test in failures[:SHOWN]:
        lines += ["", f"**{plain(', '.join(test.broken) or test.status)}**: {plain(test.message)}", ""]
        lines += [f"    {line}" for line in _told(run, test.id)]
    if len(failures) > SHOWN:
        lines += ["", f"And {len(failures) - SHOWN} more."]
    return "\n".join(lines) + "\n"


def _told(run: Run, id: str) -> list[str]:
    test = next(test for test in run.tests if test.id == id)
    evidence = test.evidence
    told = [f"test:     {test.id}"]
    told += [f"expected: {text.cut(evidence.expected, 1000)}"] if evidence.expected else []
    told += [f"observed: {text.cut(evidence.observed, 1000)}"] if evidence.observed else []
    told += [f"step {n}:   {step}" for n, step in enumerate(evidence.steps, start=1)]
    return [line for part in told for line in text.visible(part).splitlines()]


def plain(value: str) -> str:
    """Return ``value`` as text of one line that Markdown and HTML take for nothing else."""
    line = text.one_line(value)
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#&~" else char for char in line)
