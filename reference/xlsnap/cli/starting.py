# SPDX-License-Identifier: LGPL-2.1-or-later
"""Options that xl has on every command that starts a domain: create, restore, snapshot-revert."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..errors import InputError

F = TypeVar("F", bound=Callable[..., Any])

_WITHOUT_SENSE = {
    "-F": "no process of xlsnap stays with a domain that could be in the foreground",
    "-V": "domains have no display",
    "-A": "domains have no display",
}


def _refuse(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        option = parameter.opts[0]
        raise InputError(f"option {option} is not supported: {_WITHOUT_SENSE[option]}")


def _refused(short: str, long: str) -> Callable[[F], F]:
    return click.option(short, long, is_flag=True, expose_value=False, hidden=True, callback=_refuse)


_OPTIONS = (
    click.option("-p", "paused", is_flag=True, help="Leave the domain paused."),
    click.option("-c", "attach", is_flag=True, help="Attach to its console; Ctrl-] leaves it."),
    click.option("-e", is_flag=True, expose_value=False, help="Accepted: no process waits for the domain."),
    click.option("-d", is_flag=True, expose_value=False, help="Accepted; no effect."),
    _refused("-F", "--foreground"),
    _refused("-V", "--vncviewer"),
    _refused("-A", "--vncviewer-autopass"),
)


def starting_options(function: F) -> F:
    """Give a command the options; it gets ``paused`` and ``attach``."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
