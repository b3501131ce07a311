# SPDX-License-Identifier: LGPL-2.1-or-later
"""The clauses of the specification, read from its text: the text is the only place where they are.

A clause is a third-level heading with its id, a line with level, profiles and editions in italics, its text,
an optional rationale as a quotation, and its source. Examples in fences may stand anywhere between::

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
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

LEVELS = ("MUST", "SHOULD", "MAY")
EDITIONS = ("v4", "V9")
PROFILES = (
    *("core", "disk-internal", "disk-external", "mixed", "memory", "live", "list"),
    *("metadata-files", "crash", "concurrency", "cli", "config"),
)
AREAS: Mapping[str, int] = MappingProxyType(
    {
        "TERM": 1,
        "MODEL": 1,
        "CONF": 2,
        "META": 3,
        "CREATE": 4,
        "LIST": 5,
        "REVERT": 6,
        "DELETE": 7,
        "FAIL": 8,
        "CLI": 9,
        "LIVE": 10,
        "EDITION": 10,
    }
)
"""The middle parts of ids, and the number of the chapter where each stands."""

_TITLE = re.compile(r"# (?P<number>\d+)\. \S.*")
_HEADING = re.compile(r"### (?P<id>XLS-(?P<area>[A-Z]+)-\d{3})")
_FACTS = re.compile(r"\*(?P<level>[^·*]+) · (?P<profiles>[^·*]+) · (?P<editions>[^·*]+)\*")
_RATIONALE, _SOURCE = "> Rationale: ", "Source: "


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
    """The text of the specification breaks the form of clauses; the message is ``file:line: what``."""

    def __init__(self, file: str, line: int, message: str) -> None:
        super().__init__(f"{file}:{line}: {message}")


def specification_directory() -> Path:
    """Return where the chapters are: in the package when it is installed, beside it in a checkout.

    :raise FileNotFoundError: if they are in neither place.
    """
    package = Path(__file__).resolve().parent
    for place in (package / "spec", package.parents[1] / "spec"):
        if (place / "00-introduction.md").is_file():
            return place
    raise FileNotFoundError(f"no specification beside {package}: reinstall the package")


@cache
def load_clauses() -> Mapping[str, Clause]:
    """Return all clauses by id, in the order of the specification.

    :raise SpecificationError: if the text is not in form.
    :raise FileNotFoundError: if there is no text.
    """
    clauses: dict[str, Clause] = {}
    for path in sorted(specification_directory().glob("[0-9]*.md")):
        for clause in parse_chapter(path.read_text(encoding="utf-8"), file=path.name):
            if (first := clauses.setdefault(clause.id, clause)) is not clause:
                message = f"{clause.id} stands at {first.file}:{first.line} already"
                raise SpecificationError(clause.file, clause.line, message)
    return MappingProxyType(clauses)


def find_clauses(reference: str) -> tuple[Clause, ...]:
    """Return the clause with this id; else those whose ids begin so, in the order of the specification.

    Case does not matter, and the leading ``XLS-`` may be left out: "revert-004", "XLS-REVERT", "".
    """
    clauses = load_clauses()
    wanted = reference.upper()
    if not "XLS-".startswith(wanted[:4]):
        wanted = f"XLS-{wanted}"
    if wanted in clauses:
        return (clauses[wanted],)
    return tuple(clause for clause in clauses.values() if clause.id.startswith(wanted))


# --- from text to clauses ---------------------------------------------------------------------------------


def parse_chapter(text: str, *, file: str) -> list[Clause]:
    """Return the clauses of one chapter.

    :raise SpecificationError: at the first thing that is wrong.
    """
    lines = text.splitlines()
    title = _TITLE.fullmatch(lines[0] if lines else "")
    if title is None:
        raise SpecificationError(file, 1, "a chapter begins with its title: # 4. Create")
    prose = _without_examples(lines, file)
    headings = [index for index, (_, line) in enumerate(prose) if line.startswith("#")]
    clauses = []
    for start, end in pairwise([*headings, len(prose)]):
        if prose[start][1].startswith("### "):
            clauses.append(_clause(prose[start:end], title, file))
    return clauses


_Line = tuple[int, str]
"""A line and its number, from 1."""


def _without_examples(lines: Sequence[str], file: str) -> list[_Line]:
    """Number the lines, and leave out those in fences."""
    kept: list[_Line] = []
    opened = None
    for number, line in enumerate(lines, start=1):
        if line.startswith("```"):
            opened = number if opened is None else None
            kept.append((number, ""))
        elif opened is None:
            kept.append((number, line))
    if opened is not None:
        raise SpecificationError(file, opened, "the example has no end: ``` is missing")
    return kept


def _clause(body: Sequence[_Line], title: re.Match[str], file: str) -> Clause:
    number, heading_line = body[0]
    heading = _HEADING.fullmatch(heading_line)
    if heading is None:
        raise SpecificationError(file, number, f"{heading_line[4:]!r} is not a clause id XLS-AREA-NNN")
    if problem := _area_problem(heading["area"], int(title["number"])):
        raise SpecificationError(file, number, f"{heading['id']}: {problem}")
    facts = _FACTS.fullmatch(body[1][1]) if len(body) > 1 else None
    if facts is None:
        message = f"{heading['id']}: the line after the id must be *LEVEL · profiles · editions*"
        raise SpecificationError(file, number + 1, message)
    level = facts["level"]
    profiles = tuple(item.strip() for item in facts["profiles"].split(","))
    editions = tuple(facts["editions"].split())
    if problem := _fact_problem(level, profiles, editions):
        raise SpecificationError(file, number + 1, f"{heading['id']}: {problem}")
    parts: dict[str, list[str]] = {"text": [], "rationale": [], "source": []}
    for line, paragraph in _paragraphs(body[2:]):
        part, content = _part(paragraph)
        if problem := _order_problem(part, parts):
            raise SpecificationError(file, line, f"{heading['id']}: {problem}")
        parts[part].append(content)
    for part in ("text", "source"):
        if not parts[part]:
            raise SpecificationError(file, number, f"{heading['id']}: it has no {part}")
    return Clause(
        id=heading["id"],
        level=level,
        profiles=profiles,
        editions=editions,
        text="\n\n".join(parts["text"]),
        rationale="".join(parts["rationale"]),
        source="".join(parts["source"]),
        chapter=title[0].removeprefix("# "),
        file=file,
        line=number,
    )


def _area_problem(area: str, chapter: int) -> str | None:
    if area not in AREAS:
        return f"unknown area {area}; there are {', '.join(AREAS)}"
    return None if AREAS[area] == chapter else f"clauses of {area} stand in chapter {AREAS[area]}"


def _fact_problem(level: str, profiles: Sequence[str], editions: Sequence[str]) -> str | None:
    for what, given, known in (
        ("level", (level,), LEVELS),
        ("profile", profiles, PROFILES),
        ("edition", editions, EDITIONS),
    ):
        for index, name in enumerate(given):
            if name not in known:
                return f"unknown {what} {name!r}; there are {', '.join(known)}"
            if name in given[:index]:
                return f"{what} {name} is named twice"
    return None


def _paragraphs(lines: Sequence[_Line]) -> Iterator[tuple[int, str]]:
    """Join lines to paragraphs; yield the number of the first line and the text of each."""
    first, joined = 0, ""
    for number, line in (*lines, (0, "")):
        if line.strip():
            first = first if joined else number
            joined = f"{joined} {line.removeprefix('>').strip()}" if joined else line.strip()
        elif joined:
            yield first, joined
            joined = ""


def _part(paragraph: str) -> tuple[str, str]:
    for part, mark in (("rationale", _RATIONALE), ("source", _SOURCE)):
        if paragraph.startswith(mark):
            return part, paragraph.removeprefix(mark)
    return "text", paragraph


def _order_problem(part: str, before: Mapping[str, Sequence[str]]) -> str | None:
    """Say what is wrong with one more part: text comes first, then one rationale at most, then one source."""
    if before["source"]:
        return "it goes on after its source: what follows needs a heading of its own"
    if part == "rationale" and before["rationale"]:
        return "it has two rationales"
    if part == "text" and before["rationale"]:
        return "text follows the rationale: a quotation goes on with >, and the text comes first"
    return None
