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
    """Return a disk as xl-disk-configuration(5) writes it; an internal one has only its vdev."""
    if disk.type == "internal":
        return f"vdev={disk.vdev},target=null"
    return f"format={disk.format or 'qcow2'},vdev={disk.vdev},target={disk.target or ''}"


def text_of(step: Create) -> str:
    """Return a configuration that asks for the snapshot of `step`."""
    lines = []
    if step.name is not None:
        lines.append(f"name = {quoted(step.name)}")
    if step.description is not None:
        lines.append(f"description = {quoted(step.description)}")
    lines.append(f"memory = {quoted(step.memory)}")
    if step.disks is not None:
        lines.append(f"disk = [ {', '.join(quoted(disk_spec(disk)) for disk in step.disks)} ]")
    return "\n".join(lines) + "\n"
