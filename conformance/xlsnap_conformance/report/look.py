# SPDX-License-Identifier: LGPL-2.1-or-later
"""How statuses and verdicts look in HTML and SVG: a sign, a colour on white, a colour on black.

The sign says the same as the colour, for those who cannot tell the colours apart, and for print.
"""

from __future__ import annotations

from typing import NamedTuple

from ..results import Status, Verdict


class Look(NamedTuple):
    """``key`` is the name of the CSS class and of the CSS variable."""

    key: str
    sign: str
    light: str
    dark: str


STATUS: dict[Status | None, Look] = {
    Status.PASS: Look("pass", "✓", "#2c7a4b", "#5cc08a"),
    Status.FAIL: Look("fail", "✗", "#c0303b", "#f4787f"),
    Status.HARNESS_ERROR: Look("harness-error", "!", "#a94f08", "#eb9850"),
    Status.BLOCKED: Look("blocked", "▪", "#6a559b", "#b0a0e0"),
    Status.KNOWN: Look("known", "≈", "#8a6100", "#dcae4a"),
    Status.UNSUPPORTED: Look("unsupported", "\u2013", "#66707c", "#98a2ae"),
    None: Look("untested", "·", "#8b95a1", "#6c7682"),
}
"""From what a reader looks for first to what matters least; None is a clause that no test was run for."""

VERDICT: dict[Verdict, Look] = {
    Verdict.CONFORMS: STATUS[Status.PASS],
    Verdict.DOES_NOT_CONFORM: STATUS[Status.FAIL],
    Verdict.NOT_CLAIMED: STATUS[Status.UNSUPPORTED],
    Verdict.UNDECIDED: STATUS[Status.KNOWN]._replace(sign="?"),
}

INK = {  # variable: on white, on black
    "ink": ("#1d232b", "#e4e8ed"),
    "muted": ("#5a6572", "#9aa5b1"),
    "line": ("#d9dee4", "#343c46"),
    "card": ("#ffffff", "#1a1f26"),
    "page": ("#f6f7f9", "#11151a"),
    "soft": ("#f0f2f5", "#222932"),
    "accent": ("#2a5f9e", "#7fb2ec"),
}


def variables(selector: str = ":root") -> str:
    """Return CSS that defines all colours as variables on ``selector``, for both schemes."""
    pairs = {look.key: (look.light, look.dark) for look in STATUS.values()} | INK
    light = "".join(f"--{name}:{on_white};" for name, (on_white, _) in pairs.items())
    dark = "".join(f"--{name}:{on_black};" for name, (_, on_black) in pairs.items())
    return f"{selector}{{{light}}}\n@media (prefers-color-scheme:dark){{{selector}{{{dark}}}}}"
