# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Lark parsers, each made when it is first asked for and then kept."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lark import Lark


def grammar_text(name: str) -> str:
    """Return the grammar in the file ``NAME.lark`` of this package."""
    from pathlib import Path  # as late as Lark, which needs it too

    return Path(__file__).with_name(f"{name}.lark").read_text(encoding="utf-8")


@cache
def parser(name: str, start: str, builder: object) -> Lark:
    """Return the parser of the grammar ``NAME.lark``.

    ``builder`` has one method for each rule whose result is wanted. Lark calls it with the list of the rule's
    parts as soon as the rule is complete, so no tree is built and no depth of nesting needs recursion.
    """
    # Lark takes longer to import than most commands take to run, and most never parse anything.
    from lark import Lark

    return Lark(
        grammar_text(name),
        start=start,
        parser="lalr",
        lexer="contextual",
        transformer=builder,
        maybe_placeholders=False,
    )
