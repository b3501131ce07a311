# SPDX-License-Identifier: LGPL-2.1-or-later
"""Steps of a trace in words, and the capabilities that they need (pure)."""

from __future__ import annotations

from collections.abc import Iterator

from . import trace as do
from .protocol import DiskChoice


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
        case do.Delete(name=name, children_only=True):
            return f"delete all snapshots that descend from {name!r}"
        case do.Delete(name=name, children=True):
            return f"delete snapshot {name!r} and all that descend from it"
        case do.Delete(name=name):
            return f"delete snapshot {name!r}"
        case do.Start():
            return _start(step)
        case do.PutFile(path=path):
            return f"put a file of the user's at {path}"
        case do.PutLink(path=path):
            return f"put a link to /proc at {path}"
        case do.PutTag(vdev=vdev, name=name):
            return f"make an internal snapshot {name!r} of the user's own in the image of {vdev}"
        case do.Zero(vdev=vdev, lba=lba, count=count):
            return f"discard {count} sectors of {vdev} from {lba} on"
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


def _start(step: do.Start) -> str:
    paused = ", paused" if step.paused else ""
    disks = "" if step.disks is None else f" with {', '.join(step.disks) or 'no disk'}"
    images = ", naming the images of the first start" if step.first_images else ""
    return f"start{disks}{images}{paused}"


def _creation(step: do.Create) -> str:
    named = "without a name" if step.name is None else repr(step.name)
    memory = {"yes": "with memory", "no": "without memory"}.get(step.memory, f"with memory in {step.memory}")
    chosen = " of all disks, external" if step.type == "external" else ""
    if step.disks is not None:
        chosen = f" of {', '.join(map(_disk, step.disks)) or 'no disk'}"
    described = f", described as {step.description!r}" if step.description else ""
    how = ", from a configuration file" if step.as_config else ""
    dry = " (dry run)" if step.dry_run else ""
    live = "live " if step.live else ""
    return f"create {live}snapshot {named} {memory}{chosen}{described}{how}{dry}"


def _disk(disk: DiskChoice) -> str:
    if disk.type == "internal":
        return disk.vdev
    words = [word for word in (disk.format, f"in {disk.target}" if disk.target else None) if word]
    return f"{disk.vdev} ({' '.join(['external', *words])})"


def capabilities(trace: do.Trace) -> frozenset[str]:
    """Return what a driver must be able to do for a trace."""
    wanted: set[str] = set()
    stopped = False
    external: dict[str, bool] = {}
    for step in trace.steps:
        name = getattr(step, "name", None)
        wanted.update(needed(step, stopped=stopped, external=external.get(name or "", False)))
        if isinstance(step, do.Create) and not step.refused and name is not None:
            external[name] = "external" in _types(step)
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


def needed(step: do.Step, *, stopped: bool = False, external: bool = False) -> Iterator[str]:
    """Yield what a driver must be able to do for a step.

    :param stopped: whether the domain is stopped: then more may be needed.
    :param external: whether the snapshot that the step is about has external disks.
    """
    if type(step) in _NEEDED:
        yield _NEEDED[type(step)]
    if stopped and type(step) in _NEEDED_WHEN_STOPPED:
        yield _NEEDED_WHEN_STOPPED[type(step)]
    if isinstance(step, do.Revert):
        if step.paused:
            yield "revert-paused"
        if external:
            yield "external-revert"
    if isinstance(step, do.Delete) and (step.children or step.children_only):
        yield "delete-children"
    if isinstance(step, do.Create):
        yield from _of_creation(step)


def _of_creation(step: do.Create) -> Iterator[str]:
    types = _types(step)
    prefix = "external-" if types == {"external"} else ""
    if step.memory == "yes":
        yield "memory"
    else:
        yield prefix + ("disk-only" if step.memory == "no" else "memory-path")
    if step.disks is not None:
        yield f"{prefix}disk-selection"
    if "external" in types:
        yield "external"
    if len(types) > 1:
        yield "mixed"
    for asked, capability in (
        (step.as_config, "snapshot-config"),
        (step.live, "live"),
        (step.dry_run, "dry-run"),
    ):
        if asked:
            yield capability


def _types(step: do.Create) -> set[str]:
    return {disk.type for disk in step.disks} if step.disks is not None else {step.type}
