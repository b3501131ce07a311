# SPDX-License-Identifier: LGPL-2.1-or-later
"""A run as one HTML page that needs nothing else: no script, no network, any width, light and dark.

Filtering the clauses works with radio buttons and CSS alone. The page forbids itself to load or run anything
(Content-Security-Policy), and the template escapes all values.
"""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from hashlib import sha256
from typing import Any

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ..results import Run, Status, TestResult, Verdict
from ..trace import Trace
from ..verdicts import alike
from . import look, svg, text
from .chapters import chapters

SHORT = 120
"""Characters of a clause's text that its line shows."""


@cache
def environment() -> Environment:
    """Return what renders the templates: all values are escaped, and a name without a value is an error."""
    made = Environment(
        loader=PackageLoader("xlsnap_conformance.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "line": text.one_line,
        "safe_text": text.visible,
        "seconds": _seconds,
        "short": _short,
        "anchor": _anchor,
        "prose": _prose,
        "drawing": lambda tree, title: Markup(svg.tree_svg(tree, title)),
        "trace": lambda trace: text.cut(_indented(trace), text.TEXT_LIMIT),
    }
    return made


def _seconds(value: float) -> str:
    if value < 60:
        return f"{value:.1f} s"
    return f"{int(value) // 60} min {int(value) % 60} s"


def _short(value: str) -> str:
    value = " ".join(value.split())
    return value if len(value) <= SHORT else value[:SHORT].rsplit(" ", 1)[0].rstrip(",;:") + "…"


def _prose(value: str) -> Markup:
    """Return the text of a clause, in which backquotes set program text off."""
    parts = text.visible(value).split("`")
    if len(parts) % 2 == 0:
        return escape(text.visible(value))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )


def _anchor(test: TestResult) -> str:
    return f"test-{sha256(test.id.encode()).hexdigest()[:10]}"


def _indented(trace: Trace) -> str:
    return text.visible(msgspec.json.format(msgspec.json.encode(trace), indent=1).decode())


def source(name: str) -> str:
    """Return the text of a style sheet beside the templates."""
    found, _, _ = environment().loader.get_source(environment(), name)  # type: ignore[union-attr]
    return found


def style() -> str:
    """Return the style that all pages have."""
    colours = "".join(f".{kind.key}{{--status:var(--{kind.key})}}" for kind in look.STATUS.values())
    return f"{look.variables()}\n{colours}\n{source('report.css')}"


def page(template: str, sheet: str, **context: Any) -> str:
    """Return a page made from a template; it allows itself no style but ``sheet``."""
    style_hash = b64encode(sha256(sheet.encode()).digest()).decode()
    return environment().get_template(template).render(style=Markup(sheet), style_hash=style_hash, **context)


def _style(run: Run) -> str:
    present = {clause.status for clause in run.clauses}
    numbers = {sum(clause.status is status for clause in run.clauses) for status in present}
    bar = "".join(f".grow-{number}{{flex-grow:{number}}}" for number in sorted(numbers))
    filters = "".join(
        f"body:has(#show-{key}:checked) .clause:not(.{key}),"
        f"body:has(#show-{key}:checked) .chapter:not(:has(.clause.{key})){{display:none}}"
        for key in (kind.key for status, kind in look.STATUS.items() if status in present)
    )
    return f"{style()}\n{bar}\n{filters}"


def html(run: Run) -> str:
    """Return the page."""
    by_id = {test.id: test for test in run.tests}
    told = [test for test in run.tests if test.status in (Status.FAIL, Status.HARNESS_ERROR, Status.KNOWN)]
    context: dict[str, Any] = {
        "run": run,
        "look": look.STATUS,
        "verdict_look": look.VERDICT,
        "Verdict": Verdict,
        "chapters": chapters(run),
        "profiles": alike(run.profiles),
        "clauses": {clause.id: clause for clause in run.clauses},
        "tests": by_id,
        "told": sorted(told, key=lambda test: list(look.STATUS).index(test.status)),
        "clause_counts": _counts([clause.status for clause in run.clauses]),
        "test_counts": _counts([test.status for test in run.tests]),
    }
    return page("report.html.j2", _style(run), **context)


def _counts(statuses: list[Status | None]) -> list[tuple[look.Look, str, int]]:
    return [
        (kind, status.value if status else "untested", statuses.count(status))
        for status, kind in look.STATUS.items()
        if status in statuses
    ]
