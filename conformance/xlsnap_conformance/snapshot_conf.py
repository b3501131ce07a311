# SPDX-License-Identifier: LGPL-2.1-or-later
"""From a step to the text of an xl.snapshot.conf (pure). xl.snapshot.conf(5), "xl.cfg(5) syntax"."""

from __future__ import annotations

from .protocol import DiskChoice
from .trace import Create

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"})


def quoted(text: str) -> str:
    """Return a string of the xl.cfg language."""
    return f'"{text.translate(_ESCAPES)}"'


def disk_spec(disk: DiskChoice) -> str:
    """Return a disk as xl-disk-configuration(5) writes it.

    ``target=null`` makes a disk internal, another target external. An external one without a target has the
    type of the file.
    """
    if disk.type == "internal":
        return f"vdev={disk.vdev},target=null"
    words = [f"format={disk.format}"] if disk.format else []
    words += [f"vdev={disk.vdev}"]
    words += [f"target={disk.target}"] if disk.target is not None else []
    return ",".join(words)


def text_of(step: Create) -> str:
    """Return a configuration that asks for the snapshot of `step`."""
    lines = []
    if step.name is not None:
        lines.append(f"name = {quoted(step.name)}")
    if step.description is not None:
        lines.append(f"description = {quoted(step.description)}")
    lines.append(f"memory = {quoted(step.memory)}")
    if step.type == "external" or any(d.type == "external" and d.target is None for d in step.disks or ()):
        lines.append('type = "external"')
    if step.disks is not None:
        lines.append(f"disk = [ {', '.join(quoted(disk_spec(disk)) for disk in step.disks)} ]")
    return "\n".join(lines) + "\n"
