# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command ``xlsnap-conformance``.

Each subcommand has a module of its own, which is imported when it is used. Whatever goes wrong ends in one
line on standard error: exit status 2 for a usage or harness error, 130 for Ctrl-C. Set ``XLSNAP_DEBUG=1`` to
see the traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

PROGRAM = "xlsnap-conformance"

_COMMANDS = {  # name: module, in the order that --help shows
    "run": "run",
    "smoke": "smoke",
    "replay": "replay",
    "report": "reports",
    "merge": "merge",
    "compare": "compare",
    "differ": "differ",
    "spec": "spec",
    "drivers": "drivers",
    "mutants": "mutants",
    "seeds": "seeds",
    "host": "host",
    "guest": "guest",
}


class _Commands(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f".{_COMMANDS[cmd_name]}", __package__)
        command: click.Command = module.command
        return command


EXAMPLES = """\b
Examples:
  xlsnap-conformance run                               judge the reference toolstack
  xlsnap-conformance run --driver ./my-driver -n 4 --report out
  xlsnap-conformance run --clause XLS-REVERT-001       only what tests this clause
  xlsnap-conformance replay out/traces/FILE --driver ./my-driver
  xlsnap-conformance spec XLS-REVERT                   read the clauses of a chapter

\b
Shell completion (bash; zsh and fish alike):
  eval "$(_XLSNAP_CONFORMANCE_COMPLETE=bash_source xlsnap-conformance)"
"""


@click.group(cls=_Commands, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="xlsnap", prog_name=PROGRAM)
def cli() -> None:
    """Say of any toolstack, clause by clause, whether its domain snapshots conform."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit; ``arguments`` are those of the process by default."""
    sys.exit(_status(arguments))


def _status(arguments: Sequence[str] | None) -> int:
    try:
        status = cli.main(arguments, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        return _fail(_usage(error))
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of our output has gone: nothing more to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("XLSNAP_DEBUG"):
            raise
        return _fail(_line(error))


def _usage(error: click.ClickException) -> str:
    """Return the message of an error in usage, with where to read more."""
    command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else None
    message = error.format_message().rstrip(".")
    return f"{message}; try '{command} --help'" if command else message


def _line(error: Exception) -> str:
    from ..failures import HarnessError

    if isinstance(error, HarnessError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
    if isinstance(error, ValueError):
        return str(error)
    return f"bug in this program: {type(error).__name__}: {error} (XLSNAP_DEBUG=1 shows where)"


def _fail(message: str, status: int = 2) -> int:
    first, *rest = message.splitlines() or ["unknown error"]
    print(f"{PROGRAM}: {first}", file=sys.stderr)
    for line in rest:
        print(line, file=sys.stderr)
    return status
