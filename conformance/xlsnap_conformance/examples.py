# SPDX-License-Identifier: LGPL-2.1-or-later
"""The examples of the specification: texts in the language of configuration files, and what becomes of them.

In a chapter they are fences that say language and verdict; one with ``lines`` has an example on each line, as
one of disk specifications always has. A fence of JSON right after one that is accepted gives its meaning::

    ```xl.snapshot.conf accepted
    name = "x"
    ```

    ```json
    {"name": "x"}
    ```
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from .clauses import specification_directory
from .protocol import Language

_EXAMPLE = re.compile(
    r"^```(?P<language>xl\S+)(?P<lines> lines)? (?P<verdict>accepted|rejected)\n(?P<text>.*?)^```$"
    r"(?:\n\n^```json\n(?P<meaning>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)
_HEADING = re.compile(r"^##+ (?P<title>.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Example:
    """One text, whether it is accepted, and as much of its meaning as is said.

    ``clause`` is the clause under which it stands, "" where it stands under none; ``place`` is file:line.
    """

    place: str
    clause: str
    language: Language
    accepted: bool
    text: str
    meaning: Any = None


def load_examples() -> tuple[Example, ...]:
    """Return all examples in the order of the specification."""
    chapters = sorted(specification_directory().glob("*.md"))
    return tuple(
        example for path in chapters for example in parse_examples(path.read_text("utf-8"), file=path.name)
    )


def parse_examples(chapter: str, *, file: str) -> Iterator[Example]:
    """Yield the examples of one chapter."""
    headings = [(found.start(), found["title"]) for found in _HEADING.finditer(chapter)]
    for found in _EXAMPLE.finditer(chapter):
        above = [title for start, title in headings if start < found.start()]
        clause = above[-1] if above and above[-1].startswith("XLS-") else ""
        text, meaning = found["text"], json.loads(found["meaning"]) if found["meaning"] else None
        line = chapter.count("\n", 0, found.start("text")) + 1
        alone = not found["lines"] and found["language"] != "xl-disk"
        for number, part in enumerate([text] if alone else text.splitlines()):
            yield Example(
                place=f"{file}:{line + number}",
                clause=clause,
                language=cast("Language", found["language"]),
                accepted=found["verdict"] == "accepted",
                text=part,
                meaning=meaning,
            )


def shown(value: Any, meaning: Any) -> Any:
    """Return as much of a parsed value as an example shows of it; keys that it does not show are left out."""
    if isinstance(value, list) and isinstance(meaning, list) and len(value) == len(meaning):
        return [shown(item, part) for item, part in zip(value, meaning, strict=True)]
    if isinstance(value, dict) and isinstance(meaning, dict):
        return {key: shown(value.get(key), part) for key, part in meaning.items()}
    return value
