# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command ``xlsnap``: xl's habits for domains and snapshots.

Each command is in a module that is imported when the command is used, because most of what operations need
is not needed to list snapshots. A command is a function that returns what is to be printed. Whatever goes
wrong ends in one line on standard error and the exit status of `xlsnap.errors`; a signal N in 128 + N.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

from .. import __version__
from ..errors import ConfigFileError, HostError, InputError, InternalError, XlsnapError
from ..hosts import CHOICES, HOST_VARIABLE
from ..layout import ROOT_VARIABLE, StateRoot
from .complete import COMPLETION_VARIABLE, answer
from .settings import PROGRAM, Settings, Terminated
from .text import abandon_output, complain, say, shown

ACCELERATOR_VARIABLE = "XLSNAP_ACCELERATOR"

_COMMANDS = {  # name: (module, function, one line for the overview), in the order that --help shows
    "create": ("domains", "create", "Start a domain from a configuration file."),
    "list": ("domains", "list_domains", "List active domains."),
    "destroy": ("domains", "destroy", "End a domain at once."),
    "pause": ("domains", "pause", "Pause a domain."),
    "unpause": ("domains", "unpause", "Let a paused domain run."),
    "save": ("domains", "save", "Write a domain's memory to a file and end the domain."),
    "restore": ("domains", "restore", "Start a domain from a save file."),
    "console": ("console", "console", "Attach to a domain's console."),
    "domid": ("domains", "domid", "Print the id of a domain."),
    "snapshot-create": ("snapshots", "create", "Take a snapshot of a domain."),
    "snapshot-list": ("listing", "list_snapshots", "List the snapshots of a domain."),
    "snapshot-revert": ("snapshots", "revert", "Return a domain to a snapshot."),
    "snapshot-delete": ("snapshots", "delete", "Delete a snapshot of a domain."),
    "snapshot-check": ("checking", "check", "Check the snapshots of a domain, and repair what can be."),
    "help": ("help", "help_command", "Show help, of a command or of all."),
    "completion": ("help", "completion", "Print a script for shell completion."),
}


class _Commands(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, function, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f".{module}", __package__), function)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"{PROGRAM} help lists the commands"
            raise InputError(f"no command {args[0]!r}", hint=hint)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, _, summary) in _COMMANDS.items()])


EXAMPLES = """\b
Examples:
  xlsnap create vm.cfg                        start the domain that vm.cfg describes
  xlsnap snapshot-create -n before vm         memory and all writable disks
  xlsnap snapshot-list --tree vm
  xlsnap snapshot-revert -n before vm
  xlsnap -N snapshot-create snap.conf vm      show what would be made
  xlsnap help snapshot-create

\b
Exit status: 0 done; 2 your input; 3 the domain's state; 4 the host failed; 70 our bug;
130 interrupted.
"""


@click.group(
    cls=_Commands,
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=False,
)
@click.option("-v", "verbose", is_flag=True, help="Show what goes on, and a traceback when something fails.")
@click.option("-N", "dry_run", is_flag=True, help="Dry run: check everything, change nothing.")
@click.option("-f", "force", is_flag=True, expose_value=False, help="Accepted for xl's sake; no effect.")
@click.option(
    "--root",
    metavar="DIR",
    envvar=ROOT_VARIABLE,
    help=f"State root [{ROOT_VARIABLE}; /var/lib/xen for root, else the XDG state directory].",
)
@click.option(
    "--host",
    metavar="NAME",
    envvar=HOST_VARIABLE,
    default="auto",
    show_default=True,
    help=f"{', '.join(CHOICES)} [{HOST_VARIABLE}]; auto takes the Xen that this is dom0 of, else QEMU.",
)
@click.option(
    "--accelerator",
    metavar="NAME",
    envvar=ACCELERATOR_VARIABLE,
    default="auto",
    show_default=True,
    help=f"auto, kvm or tcg [{ACCELERATOR_VARIABLE}]; auto takes KVM if a guest really runs under it.",
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
@click.pass_context
def cli(
    context: click.Context, verbose: bool, dry_run: bool, root: str | None, host: str, accelerator: str
) -> None:
    """Domains and their snapshots on QEMU or Xen, with the commands of Xen's xl."""
    context.obj = Settings(
        root=StateRoot.at(root) if root is not None else StateRoot.default(),
        host=host,
        accelerator=accelerator,
        dry_run=dry_run,
        verbose=verbose,
    )


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit; ``arguments`` are those of the process by default."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the locale lacks is no failure
    if COMPLETION_VARIABLE in os.environ:
        sys.exit(answer(cli))
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command, print what it returns, and return its exit status."""
    context = None
    try:
        if not arguments:
            complain(cli.get_help(click.Context(cli, info_name=PROGRAM, **cli.context_settings)))
            return InputError.exit_code
        with cli.make_context(PROGRAM, list(arguments)) as context:
            result = cli.invoke(context)
        if result:
            say(result)
        return 0
    except click.exceptions.Exit as error:  # --help, --version
        return error.exit_code
    except click.ClickException as error:
        return _fail(InputError(_usage(error)))
    except BrokenPipeError:
        abandon_output()
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return _interrupted(signal.SIGINT)
    except Terminated as error:
        return _interrupted(error.signum)
    except XlsnapError as error:
        return _fail(error, context)
    except Exception as error:
        wrapped = InternalError(
            f"internal error: {type(error).__name__}: {error}", hint="please report it; -v shows where"
        )
        wrapped.__cause__ = error
        return _fail(wrapped, context)


def _interrupted(signum: int) -> int:
    complain(f"{PROGRAM}: interrupted")
    return 128 + signum


def _fail(error: XlsnapError, context: click.Context | None = None) -> int:
    """Say what went wrong, in one line after the details of a configuration file."""
    if context is not None and context.params["verbose"] and isinstance(error, HostError | InternalError):
        import traceback

        complain("".join(traceback.format_exception(error)))
    if isinstance(error, ConfigFileError):
        for detail in error.details:
            complain(detail)
    complain(f"{PROGRAM}: {shown(str(error))}")
    return error.exit_code


def _usage(error: click.ClickException) -> str:
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    where = context.info_name if context is not None and context.parent is not None else ""
    help_of = f"{PROGRAM} help {where}".strip()
    return f"{f'{where}: ' if where else ''}{message[:1].lower()}{message[1:]} (see {help_of})"
