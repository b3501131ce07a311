# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reports: one `results.Run`, shown in several formats.

Each format is a pure function from a run to text; `FORMATS` names them with their files.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from ..results import Run, TestResult
from ..trace import to_json

TRACES = "traces"
"""Subdirectory of a report that holds the traces of what failed."""


def _json(run: Run) -> str:
    from ..results import encode

    return encode(run).decode()


def _junit(run: Run) -> str:
    from .junit import junit

    return junit(run)


def _html(run: Run) -> str:
    from .html import html

    return html(run)


def _svg(run: Run) -> str:
    from .picture import summary_svg

    return summary_svg(run)


def _markdown(run: Run) -> str:
    from .markdown import markdown

    return markdown(run)


def _badge(run: Run) -> str:
    from .badge import badge

    return badge(run)


FORMATS: dict[str, tuple[str, Callable[[Run], str]]] = {
    "json": ("report.json", _json),
    "junit": ("junit.xml", _junit),
    "html": ("index.html", _html),
    "svg": ("summary.svg", _svg),
    "markdown": ("summary.md", _markdown),
    "badge": ("badge.svg", _badge),
}
"""Each format's file and the function that renders it."""


def render(run: Run, format: str) -> str:
    """Return ``run`` in one of `FORMATS`."""
    return FORMATS[format][1](run)


def write(run: Run, directory: Path) -> list[Path]:
    """Write ``run`` to ``directory``, which is made if needed, in all formats; return the files.

    A trace of each failure goes to the subdirectory ``traces``, where those of an earlier run are removed.

    :raise OSError: a file cannot be written.
    """
    traces = directory / TRACES
    traces.mkdir(parents=True, exist_ok=True)
    for old in traces.glob("*.json"):
        old.unlink()
    written = []
    for name, function in FORMATS.values():
        written.append(directory / name)
        written[-1].write_text(function(run), encoding="utf-8")
    for test in run.tests:
        if test.evidence.trace is not None:
            written.append(directory / trace_name(test))
            written[-1].write_bytes(to_json(test.evidence.trace))
    return written


def trace_name(test: TestResult) -> Path:
    """Return where in the directory of the report the trace of a test is: by its name, and unique."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", test.name).strip("-").lower()[:60]
    return Path(TRACES) / f"{words}-{sha256(test.id.encode()).hexdigest()[:8]}.json"
