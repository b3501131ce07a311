# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reports: one `results.Run`, shown in several formats.

Each format is a pure function from a run to text; `FORMATS` names them with their files.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..results import Run


def _json(run: Run) -> str:
    from ..results import encode

    return encode(run).decode()


FORMATS: dict[str, tuple[str, Callable[[Run], str]]] = {
    "json": ("report.json", _json),
}
"""Each format's file and the function that renders it."""


def render(run: Run, format: str) -> str:
    """Return ``run`` in one of `FORMATS`."""
    return FORMATS[format][1](run)


def write(run: Run, directory: Path) -> list[Path]:
    """Write ``run`` to ``directory``, which is made if needed, in all formats; return the files.

    :raise OSError: a file cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, function in FORMATS.values():
        file = directory / name
        file.write_text(function(run), encoding="utf-8")
        written.append(file)
    return written
