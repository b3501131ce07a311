# SPDX-License-Identifier: LGPL-2.1-or-later
"""Traces: a domain and the steps that are done to it, as JSON that can be read, kept and replayed.

Fixed scenarios are traces; a generated scenario that fails becomes one. A trace says what is done. What
must come of it the model says (`model.apply`), so that a trace is never out of date.

Paths in a trace begin with `SCRATCH`, which stands for a directory of the replay's own.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

import msgspec

from .failures import HarnessError
from .protocol import DiskChoice, ErrorKind

SCRATCH = "$SCRATCH"
"""Stands for the replay's scratch directory."""


class DiskOf(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A disk of the domain; a new, empty image of ``size_kib`` KiB is made for it.

    One that is ``spare`` does not belong to the domain until it is started with it (`Start`).
    """

    vdev: str
    format: Literal["qcow2", "raw"] = "qcow2"
    size_kib: int = 1024
    readonly: bool = False
    cdrom: bool = False
    spare: bool = False

    @property
    def writable(self) -> bool:
        """Whether the guest can write to it."""
        return not (self.readonly or self.cdrom)

    @property
    def image(self) -> str:
        """The path of the image that is made for it."""
        return f"{SCRATCH}/{self.vdev}.{self.format}"


class DomainOf(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The domain that a trace is about. It begins running and empty."""

    disks: tuple[DiskOf, ...] = (DiskOf(vdev="hda"),)
    memory_mib: int = 1
    vcpus: int = 1
    on_poweroff: Literal["destroy", "preserve"] = "destroy"

    def disk(self, vdev: str) -> DiskOf | None:
        """Return the disk with this vdev, or None."""
        return next((disk for disk in self.disks if disk.vdev == vdev), None)


# --- steps ------------------------------------------------------------------------------------------------


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="do"):
    """Base of all steps. ``refused`` is the kind of error that the step must end in, None if it must work.

    It repeats what the model says, for the reader, and is compared with it.
    """

    refused: ErrorKind | None = None


class Set(Step, frozen=True, kw_only=True, tag="set"):
    """The guest puts a value into a variable in its memory."""

    key: str
    value: str


class Write(Step, frozen=True, kw_only=True, tag="write"):
    """The guest writes a sector that carries a word, and flushes the disk."""

    vdev: str
    lba: int
    word: str


class Pause(Step, frozen=True, kw_only=True, tag="pause"):
    """Stop the virtual CPUs."""


class Unpause(Step, frozen=True, kw_only=True, tag="unpause"):
    """Let the virtual CPUs run."""


class PowerCycle(Step, frozen=True, kw_only=True, tag="power-cycle"):
    """Destroy the domain and start it again."""


class PowerOff(Step, frozen=True, kw_only=True, tag="power-off"):
    """The guest turns itself off; with ``on_poweroff="preserve"`` the domain stays, shut down."""


class Destroy(Step, frozen=True, kw_only=True, tag="destroy"):
    """End the domain."""


class Start(Step, frozen=True, kw_only=True, tag="start"):
    """Start the domain again after it was destroyed, by default with the disks and images that it had.

    ``disks`` are the vdevs that it has from now on. With ``first_images`` the configuration names the images
    of the very first start, as a user's xl.cfg does: that may be refused.
    """

    paused: bool = False
    disks: tuple[str, ...] | None = None
    first_images: bool = False


class Create(Step, frozen=True, kw_only=True, tag="create"):
    """Take a snapshot; see `protocol.SnapshotCreate`. With ``as_config`` an xl.snapshot.conf asks for it."""

    name: str | None = None
    description: str | None = None
    memory: str = "yes"
    disks: tuple[DiskChoice, ...] | None = None
    type: Literal["internal", "external"] = "internal"
    live: bool = False
    as_config: bool = False
    dry_run: bool = False


class Revert(Step, frozen=True, kw_only=True, tag="revert"):
    """Revert to a snapshot."""

    name: str
    paused: bool = False


class Delete(Step, frozen=True, kw_only=True, tag="delete"):
    """Delete a snapshot; see `protocol.SnapshotDelete`."""

    name: str
    children: bool = False
    children_only: bool = False


class List(Step, frozen=True, kw_only=True, tag="list"):
    """List the snapshots."""


class PutFile(Step, frozen=True, kw_only=True, tag="put-file"):
    """The user puts a file of their own somewhere; it must never change."""

    path: str
    content: str = "a file of the user\n"


class PutLink(Step, frozen=True, kw_only=True, tag="put-link"):
    """The user puts a symbolic link to ``/proc`` somewhere: a directory in which nobody can make a file.

    That root may write to it, it seems, is the point: who only asks finds nothing wrong, and fails later.
    """

    path: str


class PutTag(Step, frozen=True, kw_only=True, tag="put-tag"):
    """The user makes an internal snapshot of their own in an image of the stopped domain; it must stay."""

    vdev: str
    name: str


class Zero(Step, frozen=True, kw_only=True, tag="zero"):
    """Sectors of the stopped domain's disk are discarded: they read as zeros, whatever lies below."""

    vdev: str
    lba: int
    count: int


class Lose(Step, frozen=True, kw_only=True, tag="lose"):
    """A part of a snapshot gets lost: its ``memory`` image, or its tag in the image of a vdev (stopped)."""

    name: str
    what: str


class Check(Step, frozen=True, kw_only=True, tag="check"):
    """Look at everything, also at what is otherwise looked at only in the end."""


AnyStep = (
    Set
    | Write
    | Pause
    | Unpause
    | PowerCycle
    | PowerOff
    | Destroy
    | Start
    | Create
    | Revert
    | Delete
    | List
    | PutFile
    | PutLink
    | PutTag
    | Zero
    | Lose
    | Check
)


# --- traces -----------------------------------------------------------------------------------------------


class TreeNode(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A snapshot as reports draw it.

    ``parent`` is None at a root, ``state`` the domain's state when it was taken; the domain's own state came
    from the one that is ``current``. Those of the ``disks`` that are ``external`` are named again there.
    """

    name: str
    parent: str | None = None
    memory: bool = False
    disks: tuple[str, ...] = ()
    external: tuple[str, ...] = ()
    state: str = "running"
    current: bool = False


class Tree(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The snapshots of a domain, oldest first, and the domain's own state."""

    domain_state: str
    snapshots: tuple[TreeNode, ...] = ()


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong at the end of a trace.

    ``step`` counts from 1; 0 is the start of the domain. ``expected`` and ``observed`` are plain data.
    ``after`` is the tree as it should be after the step. ``implementation`` is its name and version.
    """

    step: int
    clauses: tuple[str, ...]
    summary: str
    expected: Any = None
    observed: Any = None
    before: Tree | None = None
    after: Tree | None = None
    implementation: str = ""


class Trace(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A domain, steps, and what went wrong. ``clauses`` are those that a fixed scenario is there to test."""

    format: Literal[1] = 1
    title: str = ""
    edition: str = "v4"
    clauses: tuple[str, ...] = ()
    domain: DomainOf = DomainOf()
    steps: tuple[AnyStep, ...]
    failure: Failure | None = None

    def describe_steps(self) -> list[str]:
        """Return the steps in words."""
        from .wording import describe

        return [describe(step) for step in self.steps]


def to_json(trace: Trace) -> bytes:
    """Return a trace as the content of a file: one line for each step, and a final newline."""
    data = msgspec.to_builtins(trace)
    steps = ",\n".join(f"    {json.dumps(step, ensure_ascii=False)}" for step in data["steps"])
    mark = json.dumps("steps are here")
    text = json.dumps({**data, "steps": "steps are here"}, indent=2, ensure_ascii=False)
    return (text.replace(mark, f"[\n{steps}\n  ]", 1) + "\n").encode("utf-8", "surrogatepass")


def load(path: str | os.PathLike[str]) -> Trace:
    """Read a trace file.

    :raise HarnessError: if it cannot be read or is not a trace, with the place in it.
    """
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=Trace)
    except OSError as error:
        raise HarnessError(f"cannot read trace {os.fspath(path)}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise HarnessError(f"{os.fspath(path)} is not a trace: {error}") from error
