# SPDX-License-Identifier: LGPL-2.1-or-later
"""A trace as a shell script that shows the failure without the kit (pure).

It does the steps one after another with the commands of a toolstack, and then prints what there is to see;
what should be seen stands above it as a comment. `DIALECTS` are the toolstacks that it can speak to.
"""

from __future__ import annotations

import shlex

from ..trace import Trace
from ..wording import describe
from . import virsh, xl
from .common import RUN, Dialect, comment, failure, looks, plain_commands

DIALECTS: dict[str, Dialect] = {"xl": xl.DIALECT, "virsh": virsh.DIALECT}


def dialect_of(driver: str) -> str:
    """Return the dialect for a driver, as it is given after ``--driver``: most are spoken to as xl is.

    >>> dialect_of("virsh --connect qemu:///system"), dialect_of("./mine")
    ('virsh', 'xl')
    """
    try:
        words = shlex.split(driver)
    except ValueError:
        words = []
    return "virsh" if words[:1] == ["virsh"] else "xl"


def to_shell(trace: Trace, dialect: str = "xl") -> str:
    """Return the script, with a final newline."""
    speak = DIALECTS[dialect]
    vdevs = [disk.vdev for disk in trace.domain.disks]
    lines = [speak.head.format(title=comment(trace.title or "a scenario")), RUN, *speak.begin(trace)]
    for number, step in enumerate(trace.steps, start=1):
        commands = plain_commands(step, trace)
        lines += ["", f"# {number}. {comment(describe(step))}"]
        lines += speak.commands(step, trace) if commands is None else commands
    return "\n".join([*lines, *failure(trace), speak.look, *looks(trace, vdevs), ""])
