# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kill matrix as typed data: which mutant was caught, by which clause of which test, and how soon.

It is written to and read from ``mutants.json`` without loss; its JSON schema is
``schemas/mutants.schema.json``. Everything that is shown of it is made from one `Matrix`.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from ..results import Host, Status

if TYPE_CHECKING:
    from ..drivers.reference.mutants import Mutant


class Fate(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    """A test found a clause of its own broken."""
    FOREIGN = "foreign"
    """Tests found clauses broken, but none of its own."""
    SURVIVED = "survived"
    """All tests passed."""
    KNOWN = "known"
    """It was not killed, as ``spec/debt.toml`` says."""
    PAID = "paid"
    """It was killed, though ``spec/debt.toml`` says that it survives."""
    UNABLE = "unable"
    """It could not be judged here: the host cannot do what it needs, or its judge is not installed."""
    ERROR = "harness-error"
    """The driver, the host or the suite failed, and nothing else was found."""


BAD: frozenset[Fate] = frozenset({Fate.FOREIGN, Fate.SURVIVED, Fate.PAID})
"""Fates that fail the command."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one test ended under a mutant. ``broken`` are the clauses that it saw broken, the nearest first."""

    test: str
    status: Status
    broken: tuple[str, ...] = ()
    message: str = ""
    seconds: float = 0.0


class Judged(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A mutant and what became of it.

    ``clauses`` are those that it breaks, ``broken`` those that ``test`` saw broken: the test that killed it,
    or the first that found a clause of others broken. ``seconds`` is the time to kill, from the start of the
    broken toolstack on, ``tried`` the number of tests until then.
    """

    name: str
    clauses: tuple[str, ...]
    description: str
    fate: Fate
    bug: str = ""
    part: str = "toolstack"
    judge: str = ""
    test: str = ""
    broken: tuple[str, ...] = ()
    seconds: float = 0.0
    tried: int = 0
    message: str = ""


class Matrix(msgspec.Struct, frozen=True, kw_only=True):
    """What came of all mutants.

    ``started`` is UTC, ISO 8601; ``duration`` seconds. ``selected`` says why not all mutants were judged, ""
    when they were. ``control`` are the tests that killed mutants and do not pass on the reference: they prove
    nothing. ``errors`` are what went wrong beside any mutant.
    """

    format: Literal[1] = 1
    kit: str
    started: str
    duration: float
    jobs: int
    seed: int
    selected: str = ""
    host: Host = Host()
    mutants: tuple[Judged, ...] = ()
    control: tuple[Verdict, ...] = ()
    controlled: int = 0
    errors: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 when each mutant was killed by a clause of its own, 1 if not, 2 when something else failed."""
        if self.errors or self.control or not self.mutants or self.count(Fate.ERROR):
            return 2
        return 1 if any(mutant.fate in BAD for mutant in self.mutants) else 0

    @property
    def median(self) -> float:
        """The median time to kill in seconds, of those that the suite has killed; 0 when there is none."""
        times = [m.seconds for m in self.mutants if m.fate is Fate.KILLED and not m.judge]
        return statistics.median(times) if times else 0.0

    def count(self, fate: Fate) -> int:
        """Return the number of mutants that ended so."""
        return sum(mutant.fate is fate for mutant in self.mutants)

    @property
    def summary(self) -> str:
        """One line: how many mutants, how they ended, how soon."""
        counts = ", ".join(f"{number} {fate}" for fate in Fate if (number := self.count(fate)))
        line = f"{len(self.mutants)} mutants in {self.duration:.0f} s: {counts or 'none'}"
        return f"{line}; median time to kill {self.median:.1f} s" if self.median else line


def judged(mutant: Mutant, verdicts: Iterable[Verdict], *, seconds: float, known: str | None) -> Judged:
    """Return what the verdicts of tests, in the order in which they ran, mean for a mutant.

    :param known: why it is known to survive, None if it is not.
    """
    ran = tuple(verdicts)
    own = set(mutant.clauses)
    failed = [verdict for verdict in ran if verdict.status is Status.FAIL]
    killer = next((verdict for verdict in failed if own.intersection(verdict.broken)), None)
    errors = [verdict for verdict in ran if verdict.status in (Status.HARNESS_ERROR, Status.BLOCKED)]
    told = killer or next(iter((*failed, *errors)), None)
    if killer is not None:
        fate = Fate.KILLED if known is None else Fate.PAID
    elif known is not None:
        fate = Fate.KNOWN
    elif failed:
        fate = Fate.FOREIGN
    elif errors:
        fate = Fate.ERROR
    elif ran and all(verdict.status is Status.UNSUPPORTED for verdict in ran):
        fate, told = Fate.UNABLE, ran[0]
    else:
        fate = Fate.SURVIVED
    message = told.message if told else "" if ran else "no test names a clause of it"
    return described(
        mutant,
        fate,
        test=told.test if told else "",
        broken=told.broken if told else (),
        seconds=round(seconds, 3),
        tried=len(ran),
        message=known if fate is Fate.KNOWN and known else message,
    )


def described(mutant: Mutant, fate: Fate, **more: object) -> Judged:
    """Return the entry of a mutant of the catalogue."""
    entry: Mapping[str, object] = {
        "name": mutant.name,
        "clauses": mutant.clauses,
        "description": mutant.description,
        "bug": mutant.bug,
        "part": mutant.part,
        "judge": mutant.judge,
        "fate": fate,
    }
    return msgspec.convert({**entry, **more}, Judged)


def encode(matrix: Matrix) -> bytes:
    """Return the matrix as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(matrix), indent=1) + b"\n"


def load(path: Path) -> Matrix:
    """Read a matrix from its file, or from the directory that holds ``mutants.json``.

    :raise ValueError: it is none.
    :raise OSError: it cannot be read.
    """
    file = path / "mutants.json" if path.is_dir() else path
    try:
        return msgspec.json.decode(file.read_bytes(), type=Matrix)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{file} is no kill matrix of this kit: {error}") from error
