# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run an argument vector here, or behind ssh or another command, so that each word arrives as it is.

ssh joins its words with spaces and hands the line to a shell on the other side; a word with a space or a
quote in it would not survive that. There the whole command becomes one word, quoted by `shlex.join`.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..serving import Refused
from .commands import Transport


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended."""

    status: int
    stdout: str
    stderr: str


def vector(transport: Transport, command: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return what to execute for a command; its environment goes with it as words for ``env`` (pure).

    >>> vector(Transport(run=("ssh", "xen1")), ["xl", "pause", "a b"], {})
    ['ssh', 'xen1', "xl pause 'a b'"]
    """
    words = [*command]
    if environment:
        words = ["env", *(f"{name}={value}" for name, value in environment.items()), *words]
    return [*transport.run, shlex.join(words)] if transport.quotes else [*transport.run, *words]


def run(
    transport: Transport,
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    seconds: float,
    stdin: str | None = None,
) -> Ended:
    """Run a command to its end.

    :raise Refused: if it cannot be started, or does not end in time.
    """
    words = vector(transport, command, environment)
    try:
        done = subprocess.run(
            words,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=seconds,
            check=False,
            encoding="utf-8",
            errors="surrogateescape",
        )
    except subprocess.TimeoutExpired:
        raise Refused("host", f"{command[0]} did not end within {seconds:g} s") from None
    except OSError as error:
        raise Refused("host", f"cannot run {words[0]}: {error.strerror}") from None
    except ValueError as error:  # a NUL in a word
        raise Refused("input", f"cannot run {words[0]}: {error}") from None
    shown = f"{words!r} -> {done.returncode} {done.stderr.strip()!r}"
    print(shown.encode("utf-8", "backslashreplace").decode(), file=sys.stderr, flush=True)
    return Ended(done.returncode, done.stdout, done.stderr)
