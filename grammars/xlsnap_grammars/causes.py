# SPDX-License-Identifier: LGPL-2.1-or-later
"""What people get wrong in xl's configuration language, and what to tell them.

A table, not code: the first cause whose states and pattern fit the place of the error explains it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from .diagnostics import Problem, quoted


class State(Enum):
    """What the parser was waiting for when it met the error."""

    SETTING = "a setting: key = value"
    OPERATOR = "= after the key"
    VALUE = "a value: a string, a number or a list"
    ITEM = "a list item or ]"
    SEPARATOR = "a comma or ]"
    END = "the end of the line"


@dataclass(frozen=True, slots=True)
class Cause:
    """One mistake and how it shows.

    ``pattern`` is matched at the place of the error, in one of ``states``; its group ``at``, if it has one, moves
    the caret. ``{}`` in the message stands for the text that matched. A ``folded`` cause is reported
    once, since it is likely on every line.
    """

    states: frozenset[State]
    pattern: re.Pattern[str]
    message: str
    hint: str
    folded: bool = False


_ANYWHERE = frozenset(State)
_KEYS = frozenset({State.SETTING})
_OPERATORS = frozenset({State.OPERATOR})
_VALUES = frozenset({State.VALUE, State.ITEM})
_ITEMS = frozenset({State.ITEM})
_ENDS = frozenset({State.SEPARATOR, State.END})
_SEPARATORS = frozenset({State.SEPARATOR})
_LINE_ENDS = frozenset({State.END})

# A string up to the place where it goes wrong, or to its closing quote.
_STRING = (
    r"""(?:"[^"\\\n\x00]*+(?:\\[^\n\x00][^"\\\n\x00]*+)*+|'[^'\\\n\x00]*+(?:\\[^\n\x00][^'\\\n\x00]*+)*+)"""
)
_WORD = r"[A-Za-z_][-.\w/]*"
_QUOTES = "strings need quotes"

_TABLE: tuple[tuple[frozenset[State], str, str, str], ...] = (
    # The file
    (_ANYWHERE, r"\ufeff|\udcff\udcfe|\udcfe\udcff", "byte-order mark", "save the file as UTF-8 without one"),
    (_ANYWHERE, r"\x00", "NUL byte", "is this a text file, saved as UTF-8?"),
    (_ANYWHERE, r"\r(?=\n|\Z)", "carriage return at the end of the line (CRLF line ends)",
     "save the file with Unix line ends, for instance with dos2unix"),
    (_ANYWHERE, r"#[^\n]*\Z", "the file ends in a comment", "end the last line with a line end"),
    # Characters that no token begins with
    (_ANYWHERE, r"[“”„‟‘’‚‛«»]", "typographic quotation mark {}", "use the plain quotes \" or '"),
    (_ANYWHERE, r"[^\x00-\x7f]+", "{} outside a string", "only strings and comments may have more than ASCII"),
    (_ANYWHERE, r"[\x01-\x08\x0b-\x1f\x7f]", "control character {}", "only space and tab separate"),
    (_ANYWHERE, r"//|/\*", "unexpected {}", "comments begin with #"),
    # Strings
    (_ANYWHERE, _STRING + r"(?P<at>\\?\x00)", "NUL byte in a string", "a string may hold all but NUL and line ends"),
    (_ANYWHERE, _STRING + r"(?P<at>\\)\n", "line end in a string", "a backslash does not continue the line"),
    (_ANYWHERE, r"(?:\"\"\"|''')", "unexpected {}", "strings of many lines are Python: write \\n for a line end"),
    (_ANYWHERE, _STRING + r"\\?(?=\n|\Z)", "unterminated string", "close it on the same line"),
    # Keys
    (_KEYS, r"(?:import|from|def|class|if|for|while|print|return|try|with)\b", "unexpected {}",
     "Python is not run: only settings are read"),
    (_KEYS, r"[A-Z][._0-9A-Za-z]*", "uppercase key {}", "keys are lowercase"),
    (_KEYS, r"[-_.0-9][-._0-9A-Za-z]*", "key {} does not begin with a letter", "keys begin with a lowercase letter"),
    (_KEYS, r"[\"'][^\n]*?[\"'][ \t]*[:=]", "a key in quotes", "keys have no quotes"),
    (_KEYS, r"\[[^\n\]=,]*\]", "unexpected {}", "there are no sections"),
    (_OPERATORS, r"[A-Z][._0-9A-Za-z]*", "uppercase letter in a key", "keys are lowercase"),
    (_OPERATORS, r"-[_0-9A-Za-z]", "- in a key", "keys have letters, digits, _ and ."),
    (_OPERATORS, r":", "unexpected {}", "write = between key and value"),
    (_OPERATORS, r"[-*/|]=", "unexpected {}", "there are only = and +="),
    (_OPERATORS, r"\s*\Z|\n", "a key without a value", "write key = value on one line"),
    (_OPERATORS, r"\(", "unexpected {}", "Python is not run: only settings are read"),
    # Values
    (_VALUES, r"=", "a second =", "write one ="),
    (_VALUES, r"\(", "unexpected {}", "tuples are Python: use [ ]"),
    (_VALUES, r"\{", "unexpected {}", "dictionaries are Python: use a list of strings [ ]"),
    (_VALUES, r"(?i:true|yes|on)\b(?=[ \t]*(?:[\],;#\n]|\Z))", "unexpected {}", "strings need quotes; true is 1"),
    (_VALUES, r"(?i:false|no|off)\b(?=[ \t]*(?:[\],;#\n]|\Z))", "unexpected {}", "strings need quotes; false is 0"),
    (_VALUES, r"None\b", "unexpected {}", "None is Python: leave the setting out"),
    (_VALUES, r"[-+][ \t]*[0-9]+", "number with a sign: {}", "numbers have no sign: put it in quotes"),
    (_VALUES, r"\.[0-9]+", "unexpected {}", "numbers are whole: put it in quotes"),
    (_VALUES, rf"{_WORD}|[/~.][-.\w/]+", "{} without quotes", _QUOTES),
    (_VALUES, r"[$`]", "unexpected {}", f"nothing is expanded, and {_QUOTES}"),
    (frozenset({State.VALUE}), r"\n|\Z|;", "no value after =", "the value stands on the same line as its key"),
    (_ITEMS, r",", "a comma without an item before it", "only one comma at the end of a list may have none after it"),
    (_ITEMS, r";", "unexpected {}", "a comma separates items"),
    # After a value
    (_ENDS, r"(?<=[0-9a-fx])\.[0-9]*", "number with a decimal point", "numbers are whole: put it in quotes"),
    (_ENDS, r"(?<=[0-9a-fx])[A-F]+[0-9A-Fa-f]*(?![g-zG-Z])", "uppercase digits {}", "hexadecimal digits are lowercase"),
    (_ENDS, r"(?<=[0-9a-fx])[A-Za-z_%]+", "number followed by {}", "numbers have no unit: put it in quotes if it is text"),
    (_ENDS, r"(?<=[0-9a-fx])[-:/][-.:/\w]*", "number followed by {}", "put it in quotes if it is text"),
    (_ENDS, rf"(?<=['\"]){_WORD}", "{} after a string", "does the string hold its own quote? write \\' or \\\" for it"),
    (_SEPARATORS, r"[\"'\[]|[0-9]+", "missing comma before this item", "a comma separates items"),
    (_SEPARATORS, r";", "unexpected {}", "a comma separates items"),
    (_SEPARATORS, r"[)}]", "unexpected {}", "a list that begins with [ ends with ]"),
    (_LINE_ENDS, r"[\"']", "a second string", "strings that stand side by side are not joined"),
    (_LINE_ENDS, r"[+*%]", "unexpected {}", "there are no expressions"),
    (_LINE_ENDS, r"[a-z][._0-9a-z]*[ \t]*\+?=", "a second setting on the line", "put it on its own line, or ; before it"),
    (_LINE_ENDS, r",", "unexpected {}", "only items of a list have commas: use [ ]"),
    (_LINE_ENDS | _KEYS, r"[\])}]", "unexpected {}", "no list is open here"),
    (_LINE_ENDS, r"\\\n", "unexpected {}", "a backslash does not continue the line"),
)  # fmt: skip

CAUSES = tuple(
    Cause(
        states, re.compile(pattern), message, hint, folded=message.startswith(("carriage return", "NUL byte"))
    )
    for states, pattern, message, hint in _TABLE
)


def explain(text: str, position: int, state: State) -> tuple[Problem, Cause | None]:
    """Say what is wrong at `position`, where the parser was waiting for `state`."""
    for cause in CAUSES:
        found = cause.pattern.match(text, position) if state in cause.states else None
        if found:
            at = found.start("at") if "at" in cause.pattern.groupindex else position
            return Problem(at, cause.message.replace("{}", quoted(found[0])), cause.hint), cause
    rest = re.compile(r"[\w.]+|.|\Z", re.DOTALL).match(text, position)
    what = (
        quoted(rest[0])
        if rest and rest[0] != "\n" and rest[0]
        else "line end"
        if rest and rest[0]
        else "end of the file"
    )
    return Problem(position, f"unexpected {what}: expected {state.value}"), None
