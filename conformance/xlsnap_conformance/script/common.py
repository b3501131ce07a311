# SPDX-License-Identifier: LGPL-2.1-or-later
"""What scripts have in common whatever the toolstack is: quoting, the guest, files, the end (pure)."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from .. import trace as do
from ..guest import disk_number
from ..trace import SCRATCH, DiskOf, Step, Trace


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a toolstack is spoken to.

    ``head`` is the beginning of the script, with the ``{title}`` to fill in; it defines the function
    ``guest``. ``begin`` makes the domain, ``commands`` does a step that is none of `plain_commands`, and
    ``look`` shows what there is to see.
    """

    head: str
    begin: Callable[[Trace], Iterable[str]]
    commands: Callable[[Step, Trace], Iterable[str]]
    look: str


RUN = """
# Run a command; say how it ended.
run() {
    echo "+ $*"
    "$@"
    echo "  exit status $?"
}
"""


def comment(text: str) -> str:
    """Return a text as one line."""
    return " ".join(text.split())


def quoted(text: str) -> str:
    """Quote a word for the shell; the scratch directory stays a variable."""
    return '"$SCRATCH"'.join(shlex.quote(part) if part else "" for part in text.split(SCRATCH)) or "''"


def image(disk: DiskOf) -> str:
    """Return the image of a disk, for use within double quotes."""
    return f"$SCRATCH/{disk.vdev}.{disk.format}"


def new_images(trace: Trace) -> Iterator[str]:
    """Yield the commands that make the images of all disks."""
    for disk in trace.domain.disks:
        yield f'qemu-img create -q -f {disk.format} "{image(disk)}" {disk.size_kib}K'


def plain_commands(step: Step, trace: Trace) -> list[str] | None:
    """Return the commands of a step that needs no toolstack, None if it is another."""
    vdevs = [disk.vdev for disk in trace.domain.disks]
    match step:
        case do.Set(key=key, value=value):
            return [f"guest set {key} {value}"]
        case do.Write(vdev=vdev, lba=lba, word=word):
            return [f"guest wr {disk_number(vdev, vdevs)} {lba} {word}", "guest flush"]
        case do.PowerOff():
            return ["guest off"]
        case do.PutFile(path=path, content=content):
            return [f"printf %s {shlex.quote(content)} >{quoted(path)}"]
        case do.PutLink(path=path):
            return [f"ln -s /proc {quoted(path)}"]
        case do.PutTag(vdev=vdev, name=name):
            return [f'run qemu-img snapshot -c {shlex.quote(name)} "$SCRATCH/{vdev}.qcow2"']
        case do.Zero(vdev=vdev, lba=lba, count=count):
            return [f"# discard {count} sectors from {lba} on, with qemu-io in the present image of {vdev}"]
        case do.Lose(name=name, what="memory"):
            made = (each for each in trace.steps if isinstance(each, do.Create) and each.name == name)
            file = next((each.memory for each in made if SCRATCH in each.memory), None)
            return [f"rm {quoted(file)}"] if file else ["# remove the memory image by hand here"]
        case do.Lose(name=name, what=vdev):
            return [f'run qemu-img snapshot -d {shlex.quote(name)} "$SCRATCH/{vdev}.qcow2"']
        case _:
            return None


def failure(trace: Trace) -> Iterator[str]:
    """Yield comments that say what was expected and seen."""
    if trace.failure is not None:
        broken = ", ".join(trace.failure.clauses)
        yield f"\n# {broken}: {comment(trace.failure.summary)}"
        yield f"# expected: {comment(str(trace.failure.expected))}"
        yield f"# observed: {comment(str(trace.failure.observed))}"
        yield f"# seen with {comment(trace.failure.implementation)}"


def looks(trace: Trace, vdevs: list[str]) -> Iterator[str]:
    """Yield commands that show all that the guest has changed and the tags of the images."""
    for key in sorted({step.key for step in trace.steps if isinstance(step, do.Set)}):
        yield f'echo "variable {key}: $(guest get {key})"'
    sectors = {(step.vdev, step.lba) for step in trace.steps if isinstance(step, do.Write)}
    for vdev, lba in sorted(sectors):
        yield f'echo "sector {lba} of {vdev}: $(guest rd {disk_number(vdev, vdevs)} {lba})"'
    for disk in trace.domain.disks:
        if disk.format == "qcow2":
            yield f'run qemu-img info -U -f qcow2 "{image(disk)}"'
