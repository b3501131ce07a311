# SPDX-License-Identifier: LGPL-2.1-or-later
"""Shell completion of commands, domains and snapshots. It must be quick and never complain."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class, get_completion_class

from ..layout import StateRoot
from ..names import name_problem
from ..store import Store
from .settings import PROGRAM

COMPLETION_VARIABLE = "_XLSNAP_COMPLETE"
"""Set by the scripts when they ask for completions: ``bash_complete`` and the like."""


class _Bash(BashComplete):
    """Bash puts a completion into the command line as it is, so odd characters are escaped for it."""

    # click's script would take the backslashes away
    source_template = BashComplete.source_template.replace(" read type value", " read -r type value")

    def format_completion(self, item: CompletionItem) -> str:
        value = re.sub(r"([^\w@%+=:,./-])", r"\\\1", item.value) if item.type == "plain" else item.value
        return f"{item.type},{value}"


add_completion_class(_Bash)


def script(command: click.Command, shell: str) -> str:
    """Return the script that makes a shell ask us for completions."""
    kind = get_completion_class(shell)
    assert kind is not None
    return kind(command, {}, PROGRAM, COMPLETION_VARIABLE).source().rstrip("\n")


def answer(command: click.Command) -> int:
    """Answer a script, and return the exit status. Nothing is worth a message in the middle of a line."""
    try:
        shell, _, _ = os.environ[COMPLETION_VARIABLE].partition("_")
        kind = get_completion_class(shell)
        if kind is None:
            return 1
        print(kind(command, {}, PROGRAM, COMPLETION_VARIABLE).complete())
    except Exception:
        return 1
    return 0


def _store(context: click.Context) -> Store:
    root = context.find_root().params.get("root")
    return Store(StateRoot.at(root) if root else StateRoot.default())


def _starting(incomplete: str, names: Iterable[str]) -> list[CompletionItem]:
    """Return those names that continue what is typed and are names indeed, whoever wrote the files."""
    return [CompletionItem(name) for name in names if name.startswith(incomplete) and not name_problem(name)]


def commands(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a command."""
    group = context.find_root().command
    assert isinstance(group, click.Group)
    return _starting(incomplete, group.list_commands(context))


def domains(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a domain."""
    return _starting(incomplete, (key.name for key in _store(context).domain_keys()))


def config_or_domain(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete ``[CONFIGFILE] DOMAIN``."""
    if context.params.get(parameter.name or ""):
        return domains(context, parameter, incomplete)
    return [CompletionItem(incomplete, type="file"), *domains(context, parameter, incomplete)]


def snapshots(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a snapshot: of the domain if it is given already, else of all domains."""
    store = _store(context)
    domain = context.params.get("domain") or next(iter(context.args), None)  # after a bare -n click leaves it
    uuids = [store.find(domain)] if domain else [key.uuid for key in store.domain_keys()]
    return _starting(incomplete, sorted({name for uuid in uuids for name in store.snapshots(uuid)}))
