# SPDX-License-Identifier: LGPL-2.1-or-later
"""A badge for a web page or a README: what was judged on the left, the verdict on the right."""

from __future__ import annotations

from html import escape

from ..results import Run
from . import look, text

HEIGHT = 20
_CHARACTER = 6.6
"""Width of a character in pixels, a little more than it is in most fonts."""


def badge(run: Run) -> str:
    """Return the badge of a run as SVG."""
    label = text.one_line(f"xlsnap {run.profile}", 40)
    verdict = run.verdict
    left, right = _width(label), _width(verdict)
    colour = look.VERDICT[verdict].light
    title = escape(f"{label}: {verdict}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="{HEIGHT}" role="img" '
        f'aria-label="{title}"><title>{title}</title>'
        f'<clipPath id="r"><rect width="{left + right}" height="{HEIGHT}" rx="3"/></clipPath>'
        f'<g clip-path="url(#r)"><rect width="{left}" height="{HEIGHT}" fill="#41474f"/>'
        f'<rect x="{left}" width="{right}" height="{HEIGHT}" fill="{colour}"/></g>'
        '<g fill="#fff" font-family="Verdana,sans-serif" font-size="11" text-anchor="middle">'
        f'<text x="{left / 2:g}" y="14">{escape(label)}</text>'
        f'<text x="{left + right / 2:g}" y="14">{escape(verdict)}</text></g></svg>\n'
    )


def _width(value: str) -> int:
    return round(len(value) * _CHARACTER) + 12
