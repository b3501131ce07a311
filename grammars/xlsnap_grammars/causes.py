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

    ``pattern`` is matched at the place of the error, in one of ``states``; its group ``at``, if it has one,
    moves the caret. ``{}`` in the message stands for the text that matched. A ``folded`` cause is reported
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
_NO_LIST = frozenset({State.VALUE})

# A string up to the place where it goes wrong, or to its closing quote.
_STRING = (
    r"""(?:"[^"\\\n\x00]*+(?:\\[^\n\x00][^"\\\n\x00]*+)*+|'[^'\\\n\x00]*+(?:\\[^\n\x00][^'\\\n\x00]*+)*+)"""
)
_WORD = r"[A-Za-z_][-.\w/]*"
_WORD_ENDS = r"(?=[ \t]*(?:[\],;#\n]|\Z))"

# In the order in which they are tried: which states, the pattern, the message and the hint.
_CAUSES: tuple[tuple[frozenset[State], str, str, str], ...] = (
    # The file
    (_ANYWHERE, r"\ufeff|\udcff\udcfe|\udcfe\udcff",
     "byte-order mark", "save the file as UTF-8 without one"),
    (_ANYWHERE, r"\x00",
     "NUL byte", "is this a text file, saved as UTF-8?"),
    (_ANYWHERE, r"\r(?=\n|\Z)",
     "carriage return at the end of the line", "CRLF ends the lines: convert the file, with dos2unix say"),
    (_ANYWHERE, r"#[^\n]*\Z",
     "the file ends in a comment", "end its last line with a line end"),
    # Characters that no token begins with
    (_ANYWHERE, r"[“”„‟‘’‚‛«»]",  # noqa: RUF001
     "typographic quotation mark {}", "use the plain quotes \" or '"),
    (_ANYWHERE, r"[^\x00-\x7f]+",
     "{} outside a string", "only strings and comments may hold more than ASCII"),
    (_ANYWHERE, r"[\x01-\x08\x0b-\x1f\x7f]",
     "control character {}", "only space and tab separate"),
    (_KEYS | _ENDS, r"//|/\*",
     "unexpected {}", "comments begin with #"),
    # Strings
    (_ENDS, r"(?<=\"\")\"|(?<=\'\')\'",
     "three quotes", "long strings are Python: a string ends on its line, and \\n stands for a line end"),
    (_ANYWHERE, _STRING + r"(?P<at>\\?\x00)",
     "NUL byte in a string", "a string may hold anything else but a line end"),
    (_ANYWHERE, _STRING + r"(?P<at>\\)\n",
     "line end in a string", "a backslash does not continue the line"),
    (_ANYWHERE, _STRING + r"\\?(?=\n|\Z)",
     "unterminated string", "close it on the same line"),
    # Keys
    (_OPERATORS, r"[a-z_][.\w]*|\(",
     "unexpected {}", "write key = value: nothing else is understood, and no Python is run"),
    (_KEYS, r"[A-Z][._0-9A-Za-z]*",
     "uppercase key {}", "keys are lowercase"),
    (_OPERATORS, r"[A-Z][._0-9A-Za-z]*",
     "uppercase {} in a key", "keys are lowercase"),
    (_KEYS, r"[-_.0-9][-._0-9A-Za-z]*",
     "key {} does not begin with a letter", "keys begin with a lowercase letter"),
    (_OPERATORS, r"-(?!=)",
     "{} in a key", "keys hold lowercase letters, digits, _ and ."),
    (_KEYS, r"[\"\'][^\n]*?[\"\'][ \t]*[:=]",
     "key in quotes", "keys have no quotes"),
    (_KEYS, r"\[[^\n\]=,]*\]",
     "unexpected {}", "there are no sections"),
    (_OPERATORS, r":|[-*/|]=",
     "unexpected {}", "write key = value, or += to add"),
    (_OPERATORS, r"\n|\Z",
     "key without a value", "write key = value on one line"),
    # Values
    (_VALUES, r"=",
     "second =", "write one ="),
    (_VALUES, r"\(",
     "unexpected {}", "tuples are Python: use [ ]"),
    (_VALUES, r"\{",
     "unexpected {}", "dictionaries are Python: use a list of strings, [ ]"),
    (_VALUES, rf"(?i:true|yes|on){_WORD_ENDS}",
     "unexpected {}", "strings need quotes, and true is 1"),
    (_VALUES, rf"(?i:false|no|off){_WORD_ENDS}",
     "unexpected {}", "strings need quotes, and false is 0"),
    (_VALUES, rf"None{_WORD_ENDS}",
     "unexpected {}", "None is Python: leave the setting out"),
    (_VALUES, r"[-+][ \t]*[0-9][.\w]*",
     "number with a sign: {}", "numbers have no sign: put it in quotes"),
    (_VALUES, r"\.[0-9]+",
     "unexpected {}", "numbers are whole: put it in quotes"),
    (_VALUES, rf"{_WORD}|[/~.$][-.\w/${{}}]*",
     "{} without quotes", "strings need quotes"),
    (_NO_LIST, r"\n|\Z|;|#",
     "no value", "the value stands on the line of its key"),
    (_ITEMS, r",",
     "comma without an item before it", "only after the last item there may be one comma more"),
    (_ITEMS | _SEPARATORS, r";",
     "unexpected {}", "commas separate items"),
    # After a value
    (_ENDS, r"(?<=[0-9a-fx])\.[0-9]*",
     "number with a decimal point", "numbers are whole: put it in quotes"),
    (_ENDS, r"(?<=[0-9a-fx])[A-F]+[0-9A-Fa-f]*(?!\w)",
     "uppercase digits {}", "hexadecimal digits are lowercase"),
    (_ENDS, r"(?<=[0-9a-fx])[A-Za-z_%][\w%]*",
     "number followed by {}", "numbers have no unit: put it in quotes if it is text"),
    (_ENDS, r"(?<=[0-9a-fx])[-:/][-.:/\w]*",
     "number followed by {}", "put it in quotes if it is text"),
    (_ENDS, rf"(?<=[\'\"]){_WORD}",
     "{} after a string", "a quote inside a string needs a backslash, or quotes of the other kind around it"),
    (_SEPARATORS, r"[\"\'\[0-9]",
     "missing comma before this item", "commas separate items"),
    (_SEPARATORS, r"[)}]",
     "unexpected {}", "a list that begins with [ ends with ]"),
    (_LINE_ENDS, r"[\"\']",
     "second string", "strings that stand side by side are not joined"),
    (_ENDS, r"[-+*%]",
     "unexpected {}", "there are no expressions"),
    (_LINE_ENDS, r"[a-z][._0-9a-z]*[ \t]*\+?=",
     "second setting on the line", "put it on a line of its own, or a ; before it"),
    (_LINE_ENDS, r",",
     "unexpected {}", "only a list has commas: use [ ]"),
    (_LINE_ENDS | _KEYS, r"[\])}]",
     "unexpected {}", "no list is open here"),
    (_LINE_ENDS, r"\\\n",
     "unexpected {}", "a backslash does not continue the line"),
)  # fmt: skip

_FOLDED = ("carriage return", "NUL byte")
CAUSES = tuple(
    Cause(states, re.compile(pattern), message, hint, folded=message.startswith(_FOLDED))
    for states, pattern, message, hint in _CAUSES
)
_FOUND = re.compile(r"[\w.]+|[^\n]|(?P<line_end>\n)|(?P<end>\Z)")


def explain(text: str, position: int, state: State) -> tuple[Problem, Cause | None]:
    """Say what is wrong at `position`, where the parser was waiting for `state`."""
    for cause in CAUSES:
        if state in cause.states and (match := cause.pattern.match(text, position)):
            at = match.start("at") if "at" in cause.pattern.groupindex else position
            return Problem(at, cause.message.replace("{}", quoted(match[0])), cause.hint), cause
    found = _FOUND.match(text, position)
    what = (
        "text"
        if found is None
        else {"line_end": "line end", "end": "end of the file"}.get(found.lastgroup or "", quoted(found[0]))
    )
    return Problem(position, f"unexpected {what}: expected {state.value}"), None
