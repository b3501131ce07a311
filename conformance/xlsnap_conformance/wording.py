# SPDX-License-Identifier: LGPL-2.1-or-later
"""Steps of a trace in words, and the capabilities that they need (pure)."""

from __future__ import annotations

from collections.abc import Iterator

from . import trace as do


def describe(step: do.Step) -> str:
    """Return a step as a report shows it, with the kind of refusal that it must end in."""
    return _action(step) + (f": must be refused ({step.refused})" if step.refused else "")


def _action(step: do.Step) -> str:
    match step:
        case do.Set(key=key, value=value):
            return f"guest sets variable {key} to {value}"
        case do.Write(vdev=vdev, lba=lba, word=word):
            return f"guest writes {word} to sector {lba} of {vdev}"
        case do.Create():
            return _creation(step)
        case do.Revert(name=name, paused=paused):
            return f"revert to {name!r}" + (", leave paused" if paused else "")
        case do.Delete(name=name):
            return f"delete snapshot {name!r}"
        case do.Start(paused=paused):
            return "start, paused" if paused else "start"
        case do.PutFile(path=path):
            return f"put a file of the user's at {path}"
        case do.PutTag(vdev=vdev, name=name):
            return f"make an internal snapshot {name!r} of the user's own in the image of {vdev}"
        case do.Lose(name=name, what=what):
            return f"lose the {'memory image' if what == 'memory' else f'tag in {what}'} of {name!r}"
        case _:
            return _PLAIN[type(step)]


_PLAIN: dict[type[do.Step], str] = {
    do.Pause: "pause",
    do.Unpause: "unpause",
    do.PowerCycle: "power cycle",
    do.PowerOff: "guest powers itself off",
    do.Destroy: "destroy",
    do.List: "list snapshots",
    do.Check: "check everything",
}


def _creation(step: do.Create) -> str:
    named = "without a name" if step.name is None else repr(step.name)
    memory = {"yes": "with memory", "no": "without memory"}.get(step.memory, f"with memory in {step.memory}")
    chosen = ""
    if step.disks is not None:
        chosen = f" of {', '.join(disk.vdev for disk in step.disks) or 'no disk'}"
    described = f", described as {step.description!r}" if step.description else ""
    how = ", from a configuration file" if step.as_config else ""
    return f"create snapshot {named} {memory}{chosen}{described}{how}{' (dry run)' if step.dry_run else ''}"


def capabilities(trace: do.Trace) -> frozenset[str]:
    """Return what a driver must be able to do for a trace."""
    wanted: set[str] = set()
    stopped = False
    for step in trace.steps:
        wanted.update(needed(step, stopped=stopped))
        if isinstance(step, do.Destroy):
            stopped = True
        elif isinstance(step, do.Start | do.PowerCycle | do.Revert) and not step.refused:
            stopped = False
    return frozenset(wanted)


_NEEDED: dict[type[do.Step], str] = {
    do.Pause: "pause",
    do.Unpause: "pause",
    do.PowerOff: "shutdown-state",
    do.Revert: "revert",
    do.Delete: "delete",
}

_NEEDED_WHEN_STOPPED: dict[type[do.Step], str] = {
    do.List: "list-stopped",
    do.Revert: "revert-stopped",
    do.Delete: "delete-stopped",
}


def needed(step: do.Step, *, stopped: bool = False) -> Iterator[str]:
    """Yield what a driver must be able to do for a step; more may be needed when the domain is stopped."""
    if type(step) in _NEEDED:
        yield _NEEDED[type(step)]
    if stopped and type(step) in _NEEDED_WHEN_STOPPED:
        yield _NEEDED_WHEN_STOPPED[type(step)]
    if isinstance(step, do.Revert) and step.paused:
        yield "revert-paused"
    if isinstance(step, do.Create):
        yield {"yes": "memory", "no": "disk-only"}.get(step.memory, "memory-path")
        if step.as_config:
            yield "snapshot-config"
        if step.disks is not None:
            yield "disk-selection"
        if step.dry_run:
            yield "dry-run"
