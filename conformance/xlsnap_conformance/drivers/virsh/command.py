# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run `virsh`, and say whose fault an error is: libvirt tells it in words only."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence

from ...protocol import ErrorKind
from ..serving import Refused

SECONDS = 170.0
"""How long a command may take: less than the protocol allows for a snapshot, so that we can say so."""

_KINDS: tuple[tuple[str, ErrorKind], ...] = (
    (r"failed to get domain|Domain not found", "input"),
    (r"Domain snapshot not found|no domain snapshot with matching name", "input"),
    (r"domain moment .* already exists|already exists", "input"),
    (r"invalid snapshot name|Invalid snapshot name|invalid argument|XML error|XML document failed", "input"),
    (r"Failed to get option|expected syntax|command .* doesn't support option", "input"),
    (r"no disk named|unsupported configuration|specified twice|must (use|be)|absolute path", "input"),
    (r"internal snapshot for disk .* unsupported|unsupported for storage type", "input"),
    (r"Requested operation is not valid|domain is not running|domain is already", "state"),
)
"""Words of libvirt 9.0 and what they mean; the first that fits counts. All else is the host's fault."""


def kind_of(message: str) -> ErrorKind:
    """Return whose fault an error of libvirt is.

    >>> kind_of("Domain snapshot not found: no domain snapshot with matching name 'x'")
    'input'
    """
    return next((kind for pattern, kind in _KINDS if re.search(pattern, message)), "host")


class Virsh:
    """Runs commands of `virsh` on one connection, each as a process of its own, never through a shell."""

    def __init__(self, uri: str | None, program: str = "virsh") -> None:
        """Use the connection `uri`; None is virsh's own default."""
        self.words = [program, *(["--connect", uri] if uri else [])]

    def __call__(self, *arguments: str) -> str:
        """Run a command and return what it prints.

        :raise Refused: if its exit status is not 0, or it does not end in time.
        """
        command = [*self.words, *arguments]
        begin = time.monotonic()
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=SECONDS,
                check=False,
                encoding="utf-8",
                errors="surrogateescape",
            )
        except subprocess.TimeoutExpired:
            raise Refused("host", f"virsh {arguments[0]} did not end within {SECONDS:g} s") from None
        except FileNotFoundError:
            raise Refused("host", "virsh is not installed: apt-get install libvirt-clients") from None
        except ValueError as error:  # a NUL in an argument
            raise Refused("input", f"virsh {arguments[0]}: {error}") from None
        _log(arguments, done, time.monotonic() - begin)
        if done.returncode != 0:
            message = " ".join(_errors(done.stderr)) or f"exit status {done.returncode}"
            raise Refused(kind_of(message), message)
        return done.stdout


def _errors(text: str) -> list[str]:
    return [line.removeprefix("error: ") for line in text.splitlines() if line.strip()]


def _log(arguments: Sequence[str], done: subprocess.CompletedProcess[str], seconds: float) -> None:
    status = "" if done.returncode == 0 else f" -> {done.returncode} {' '.join(done.stderr.split())}"
    shown = f"{' '.join(map(repr, arguments))}{status} ({seconds:.3f} s)"
    print(shown.encode("utf-8", "backslashreplace").decode(), file=sys.stderr, flush=True)
