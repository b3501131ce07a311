# SPDX-License-Identifier: LGPL-2.1-or-later
"""The picture of a run, ``summary.svg``: verdict, profiles and every clause as one square.

It stands alone (a README can embed it) and brings its own background, so that it can be read on any page.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from ..results import ClauseResult, ProfileResult, Run
from . import look, text
from .chapters import chapters

WIDTH = 760
MARGIN = 28
_CELL = 16
_GAP = 4
_LABEL = 190
_PER_ROW = (WIDTH - 2 * MARGIN - _LABEL) // (_CELL + _GAP)
_FONT = "-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', 'DejaVu Sans', Arial, sans-serif"


def summary_svg(run: Run) -> str:
    """Return the picture as a document."""
    parts = [*_head(run)]
    y = 128
    for profile in run.profiles:
        kind, score = look.VERDICT[profile.verdict], escape(_shorter(_score(profile), 60))
        parts += [
            f'<text class="{kind.key}" x="{MARGIN}" y="{y}">{kind.sign}</text>',
            f'<text class="b" x="{MARGIN + 20}" y="{y}">{escape(_shorter(profile.name, 20))}</text>',
            f'<text class="{kind.key}" x="{MARGIN + _LABEL}" y="{y}">{profile.verdict}</text>',
            f'<text class="s" x="{MARGIN + _LABEL + 140}" y="{y}">{score}</text>',
        ]
        y += 24
    if run.unclaimed:
        told = f"Works but is not claimed: {', '.join(run.unclaimed)}"
        parts.append(f'<text class="s" x="{MARGIN}" y="{y}">{escape(_shorter(told, 96))}</text>')
        y += 24
    y += 12
    for name, clauses in chapters(run):
        parts.append(f'<text class="s" x="{MARGIN}" y="{y + 12}">{escape(_shorter(name, 24))}</text>')
        parts += _cells(clauses, y)
        y += (_CELL + _GAP) * ((len(clauses) - 1) // _PER_ROW + 1) + 6
    y += 22
    parts += [*_legend(run, y), *_foot(run, y + 30)]
    return _document(parts, y + 30 + MARGIN - 4)


def _head(run: Run) -> Iterator[str]:
    verdict = look.VERDICT[run.verdict]
    name = _shorter(" ".join(filter(None, (run.implementation.name, run.implementation.version))), 34)
    title = f"Conformance of domain snapshots · profile {text.one_line(run.profile, 40)}"
    yield f'<text class="s" x="{MARGIN}" y="40">{escape(title)}</text>'
    yield f'<text class="t" x="{MARGIN}" y="76">{escape(name)}</text>'
    yield (
        f'<text class="v {verdict.key}" x="{WIDTH - MARGIN}" y="76" text-anchor="end">'
        f"{verdict.sign} {run.verdict}</text>"
    )
    yield f'<path class="r" d="M{MARGIN} 98H{WIDTH - MARGIN}"/>'


def _score(profile: ProfileResult) -> str:
    """Return how many clauses hold; of what was not judged as a whole only why."""
    if profile.partial or not profile.counts.keys() - {"untested"}:
        return profile.reason
    untested = profile.counts.get("untested", 0)
    tested = sum(profile.counts.values()) - untested
    score = f"{profile.counts.get('pass', 0)} of {tested} tested clauses hold"
    return f"{score}, {untested} more not tested" if untested else score


def _cells(clauses: list[ClauseResult], y: int) -> Iterator[str]:
    for index, clause in enumerate(clauses):
        kind = look.STATUS[clause.status]
        row, column = divmod(index, _PER_ROW)
        left = MARGIN + _LABEL + column * (_CELL + _GAP)
        top = y + row * (_CELL + _GAP)
        yield (
            f"<g><title>{escape(clause.id)}: {clause.status or 'untested'}</title>"
            f'<rect class="c-{kind.key}" x="{left}" y="{top}" width="{_CELL}" height="{_CELL}" rx="3"/>'
            f'<text class="i i-{kind.key}" x="{left + _CELL / 2:g}" y="{top + 12}" text-anchor="middle">'
            f"{kind.sign}</text></g>"
        )


def _legend(run: Run, y: int) -> Iterator[str]:
    x = MARGIN
    for status, kind in look.STATUS.items():
        number = sum(clause.status is status for clause in run.clauses)
        if number:
            label = f"{number} {status or 'untested'}"
            yield f'<rect class="c-{kind.key}" x="{x}" y="{y - 9}" width="10" height="10" rx="2"/>'
            yield f'<text class="s" x="{x + 16}" y="{y}">{label}</text>'
            x += 36 + int(7 * len(label))


def _foot(run: Run, y: int) -> Iterator[str]:
    facts = [f"{len(run.tests)} tests in {run.duration:.0f} s", f"seed {run.seed}", run.started[:10]]
    if run.host.qemu:
        facts.append(f"QEMU {run.host.qemu.split()[0]}")
    if run.note:
        facts.append(run.note)
    yield f'<text class="s" x="{MARGIN}" y="{y}">{escape(_shorter(" · ".join(facts), 96))}</text>'


def _shorter(value: str, limit: int) -> str:
    line = text.one_line(value)
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _document(parts: list[str], height: int) -> str:
    colours = "".join(
        f".{kind.key}{{fill:var(--{kind.key})}}.c-{kind.key}{{fill:var(--{kind.key})}}"
        for kind in look.STATUS.values()
    )
    style = (
        look.variables("svg") + f"text{{font:14px {_FONT};fill:var(--ink)}}"
        ".s{font-size:13px;fill:var(--muted)}.b{font-weight:600}"
        ".t{font-size:24px;font-weight:600}.v{font-size:22px;font-weight:600}"
        ".r{stroke:var(--line);fill:none}.bg{fill:var(--card);stroke:var(--line)}"
        ".i{font-size:11px;font-weight:700;fill:var(--card)}"
        + colours
        + ".c-untested{fill:none;stroke:var(--line);stroke-width:1.5}.i-untested{fill:var(--muted)}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"'
        f' viewBox="0 0 {WIDTH} {height}" role="img"><title>Conformance report</title>'
        f"<style>{style}</style>"
        f'<rect class="bg" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="10"/>'
        f"{''.join(parts)}</svg>\n"
    )
