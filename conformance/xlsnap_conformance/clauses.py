# SPDX-License-Identifier: LGPL-2.1-or-later
"""The clauses of the specification, read from its text: the text is the only place where they are.

A clause is a third-level heading with its id, a line with level, profiles and editions in italics, its text,
an optional rationale as a quotation, and its source::

    ### XLS-CREATE-001
    *MUST · core, disk-internal · v4 V9*

    What must hold.

    > Rationale: why.

    Source: where it comes from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

LEVELS = ("MUST", "SHOULD", "MAY")
EDITIONS = ("v4", "V9")
PROFILES = (
    *("core", "disk-internal", "disk-external", "mixed", "memory", "live", "list"),
    *("metadata-files", "crash", "concurrency", "cli", "config"),
)
AREAS = (
    *("TERM", "MODEL", "CONF", "META", "CREATE", "LIST", "REVERT", "DELETE"),
    *("FAIL", "CLI", "LIVE", "EDITION"),
)

_HEADING = re.compile(r"### (?P<id>XLS-(?P<area>[A-Z]+)-\d{3})")
_FACTS = re.compile(r"\*(?P<level>\w+) · (?P<profiles>[^·]+) · (?P<editions>[^·]+)\*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """One requirement. ``chapter`` is the chapter's title, ``file`` and ``line`` say where it stands."""

    id: str
    level: str
    profiles: tuple[str, ...]
    editions: tuple[str, ...]
    text: str
    rationale: str
    source: str
    chapter: str
    file: str
    line: int

    @property
    def area(self) -> str:
        """The middle part of the id."""
        return self.id.split("-")[1]


class SpecificationError(Exception):
    """The text of the specification breaks the form of clauses; the message has file and line."""


def specification_directory() -> Path:
    """Return where the chapters are: in the package when it is installed, beside it in a checkout.

    :raise SpecificationError: if they are in neither place.
    """
    package = Path(__file__).resolve().parent
    for place in (package / "spec", package.parents[1] / "spec"):
        if place.is_dir():
            return place
    raise SpecificationError(f"no specification beside {package}: reinstall the package")


@cache
def load_clauses() -> Mapping[str, Clause]:
    """Return all clauses by id, in the order of the specification.

    :raise SpecificationError: if the text is not in form.
    """
    clauses: dict[str, Clause] = {}
    for path in sorted(specification_directory().glob("[0-9]*.md")):
        for clause in parse_chapter(path.read_text(encoding="utf-8"), file=path.name):
            if clause.id in clauses:
                first = clauses[clause.id]
                raise SpecificationError(
                    f"{clause.file}:{clause.line}: {clause.id} stands at {first.file}:{first.line} already"
                )
            clauses[clause.id] = clause
    return MappingProxyType(clauses)


def parse_chapter(text: str, *, file: str) -> list[Clause]:
    """Return the clauses of one chapter.

    :raise SpecificationError: naming file and line.
    """
    lines = text.splitlines()
    chapter = next((line[2:].strip() for line in lines if line.startswith("# ")), file)
    return [_clause(lines, start, end, chapter, file) for start, end in _extents(lines, file)]


def _extents(lines: Sequence[str], file: str) -> Iterator[tuple[int, int]]:
    """Yield where each clause begins and ends: it ends at the next heading."""
    in_block = False
    start = None
    for number, line in enumerate(lines):
        if line.startswith("```"):
            in_block = not in_block
        if in_block or not line.startswith("#"):
            continue
        if start is not None:
            yield start, number
            start = None
        if line.startswith("### "):
            if not _HEADING.fullmatch(line):
                raise SpecificationError(f"{file}:{number + 1}: {line[4:]!r} is not a clause id XLS-AREA-NNN")
            start = number
    if start is not None:
        yield start, len(lines)


def _clause(lines: Sequence[str], start: int, end: int, chapter: str, file: str) -> Clause:
    where = f"{file}:{start + 1}"
    heading = _HEADING.fullmatch(lines[start])
    facts = _FACTS.fullmatch(lines[start + 1]) if start + 1 < end else None
    if heading is None or facts is None:
        raise SpecificationError(f"{where}: the line after the id must be *LEVEL · profiles · editions*")
    paragraphs = _paragraphs(lines[start + 2 : end])
    rationale = [item.removeprefix("Rationale: ") for item in paragraphs if item.startswith("Rationale: ")]
    source = [item.removeprefix("Source: ") for item in paragraphs if item.startswith("Source: ")]
    text = [item for item in paragraphs if not item.startswith(("Rationale: ", "Source: "))]
    clause = Clause(
        id=heading["id"],
        level=facts["level"],
        profiles=tuple(item.strip() for item in facts["profiles"].split(",")),
        editions=tuple(facts["editions"].split()),
        text="\n\n".join(text),
        rationale=" ".join(rationale),
        source=" ".join(source),
        chapter=chapter,
        file=file,
        line=start + 1,
    )
    for problem in _problems(clause, heading["area"]):
        raise SpecificationError(f"{where}: {clause.id}: {problem}")
    return clause


def _problems(clause: Clause, area: str) -> Iterator[str]:
    if area not in AREAS:
        yield f"unknown area {area}; there are {', '.join(AREAS)}"
    if clause.level not in LEVELS:
        yield f"unknown level {clause.level!r}; there are {', '.join(LEVELS)}"
    for profile in set(clause.profiles) - set(PROFILES):
        yield f"unknown profile {profile!r}; there are {', '.join(PROFILES)}"
    for edition in set(clause.editions) - set(EDITIONS):
        yield f"unknown edition {edition!r}; there are {', '.join(EDITIONS)}"
    if not clause.text:
        yield "it has no text"
    if not clause.source:
        yield "it has no source"


def _paragraphs(lines: Sequence[str]) -> list[str]:
    """Join lines to paragraphs; a quotation loses its marks, a fenced block is left out."""
    prose = re.sub(r"^```.*?^```$", "", "\n".join(lines), flags=re.MULTILINE | re.DOTALL)
    joined = (
        " ".join(line.removeprefix(">").strip() for line in block.splitlines())
        for block in re.split(r"\n\s*\n", prose)
    )
    return [paragraph.strip() for paragraph in joined if paragraph.strip()]
