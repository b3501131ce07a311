# SPDX-License-Identifier: LGPL-2.1-or-later
"""The driver protocol: how the suite talks to any implementation.

The suite starts the driver as a subprocess and sends one JSON object a line; the driver answers each with
one line before it gets the next. Standard error is the driver's log. ::

    {"id": 7, "verb": "snapshot_revert", "args": {"domain": "xlsnap-cts-1", "name": "before"}}
    {"id": 7, "ok": true, "result": {}}
    {"id": 7, "ok": false, "error": {"kind": "input", "message": "no snapshot 'before'"}}

`VERBS` is the whole protocol as data: each verb's arguments, result, time limit and the capability that it
needs. The published schema is made from it (`xlsnap_conformance.schemas`). A driver answers a verb that it
does not know with kind ``unsupported``; both sides ignore keys that they do not know.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from .capabilities import CAPABILITIES as CAPABILITIES
from .capabilities import Capability as Capability
from .messages import Done as Done
from .messages import R as R
from .messages import Request as Request
from .messages import Result as Result
from .protocol_text import Command as Command
from .protocol_text import CommandResult as CommandResult
from .protocol_text import Language as Language
from .protocol_text import Parse as Parse
from .protocol_text import ParseError as ParseError
from .protocol_text import ParseResult as ParseResult

PROTOCOL = 1
"""Version of the protocol; rises when an old driver would be misled."""

# --- the driver itself ------------------------------------------------------------------------------------


class Hello(Request["HelloResult"], frozen=True, kw_only=True):
    """Begin. Always the first request."""


class HelloResult(Result, frozen=True, kw_only=True):
    """Who is there. ``capabilities`` are those claimed; unknown ones are ignored.

    ``time_scale`` says how many times longer things take than on a QEMU of this machine: all limits of the
    suite are multiplied by it.
    """

    protocol: int
    implementation: str
    version: str
    edition: Literal["v4", "V9"] = "v4"
    capabilities: tuple[str, ...] = ()
    time_scale: float = 1.0


class Setup(Request[Done], frozen=True, kw_only=True, omit_defaults=True):
    """Get ready. ``root`` is a directory of mode 0700, empty and for this driver alone.

    With ``join`` it is that of another driver, which goes on working in it: neither may hinder the other
    between requests, and this one removes nothing in the end.
    """

    root: str
    join: bool = False


class Teardown(Request[Done], frozen=True, kw_only=True):
    """Destroy and remove all that this driver has made. Always the last request."""


# --- domains ----------------------------------------------------------------------------------------------

DomainState = Literal["running", "paused", "shutdown", "stopped", "absent"]
"""``shutdown``: powered off and kept; ``stopped``: known, but not active; ``absent``: unknown."""


class Firmware(msgspec.Struct, frozen=True, kw_only=True):
    """The probe guest, in the form that suits the implementation: absolute paths.

    ``rom`` is a 64 KiB firmware image, ``disk`` a bootable raw disk (also multiboot), ``iso`` a CD image.
    """

    rom: str
    disk: str
    iso: str


class Disk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A disk of a domain; ``path`` is absolute, the image exists, and ``format`` is not to be probed."""

    vdev: str
    path: str
    format: Literal["qcow2", "raw"]
    readonly: bool = False
    cdrom: bool = False


class DomainCreate(Request["DomainCreateResult"], frozen=True, kw_only=True):
    """Start a domain with the probe guest and the disks, its first serial port for `DomainConsole`.

    Without ``uuid`` a stopped domain of the same name goes on, if there is one.
    """

    name: str
    uuid: str | None = None
    memory_mib: int
    vcpus: int
    firmware: Firmware
    disks: tuple[Disk, ...]
    paused: bool = False
    on_poweroff: Literal["destroy", "preserve"] = "destroy"


class DomainCreateResult(Result, frozen=True, kw_only=True):
    """The new domain."""

    domid: int
    uuid: str


class DomainDestroy(Request[Done], frozen=True, kw_only=True):
    """End a domain at once, as pulling the plug does."""

    domain: str


class DomainPause(Request[Done], frozen=True, kw_only=True):
    """Stop a domain's virtual CPUs."""

    domain: str


class DomainUnpause(Request[Done], frozen=True, kw_only=True):
    """Let a domain's virtual CPUs run."""

    domain: str


class DomainPowerCycle(Request[Done], frozen=True, kw_only=True):
    """Destroy a domain and create it again from its configuration, with the images that it uses now."""

    domain: str


class DomainStateOf(Request["DomainStateResult"], frozen=True, kw_only=True):
    """Ask for the state of a domain; an unknown one is no error."""

    domain: str


class DomainStateResult(Result, frozen=True, kw_only=True):
    """The state of a domain."""

    state: DomainState


class DomainList(Request["DomainListResult"], frozen=True, kw_only=True):
    """List all domains that the implementation shows, the suite's and others."""


class ListedDomain(msgspec.Struct, frozen=True, kw_only=True):
    """One domain of a list; ``domid`` is the id of an active one, if it is told."""

    name: str
    uuid: str
    state: DomainState
    domid: int | None = None


class DomainListResult(Result, frozen=True, kw_only=True):
    """All domains."""

    domains: tuple[ListedDomain, ...]


class DomainDisks(Request["DomainDisksResult"], frozen=True, kw_only=True):
    """Ask which images a domain uses now; a stopped one that has snapshots: will use when it is started."""

    domain: str


class DiskInUse(msgspec.Struct, frozen=True, kw_only=True):
    """The image behind a vdev."""

    vdev: str
    path: str
    format: str


class DomainDisksResult(Result, frozen=True, kw_only=True):
    """The images in use."""

    disks: tuple[DiskInUse, ...]


class DomainConsole(Request["DomainConsoleResult"], frozen=True, kw_only=True):
    """Ask where the first serial port of an active domain is; again after all that may end a process."""

    domain: str


class DomainConsoleResult(Result, frozen=True, kw_only=True):
    """``unix`` is the path of a Unix stream socket."""

    unix: str


# --- snapshots --------------------------------------------------------------------------------------------


class DiskChoice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A disk of a snapshot that is to be made.

    ``target`` and ``format`` are those of the overlay of an external one; without a target the implementation
    chooses one.
    """

    vdev: str
    type: Literal["internal", "external"] = "internal"
    target: str | None = None
    format: str | None = None


class SnapshotCreate(Request["SnapshotCreateResult"], frozen=True, kw_only=True):
    """Take a snapshot.

    Either ``config`` is the text of an xl.snapshot.conf, and ``name`` and ``disk_only`` are the options `-n`
    and `-D` beside it; or the other members describe the snapshot: ``memory`` is ``yes``, ``no`` or an
    absolute path, ``disks`` None means all that are writable, each by a snapshot of the ``type``. With
    ``live`` the guest runs on while its memory is being written. Without a name the implementation chooses
    one.
    """

    domain: str
    name: str | None = None
    description: str | None = None
    memory: str = "yes"
    disks: tuple[DiskChoice, ...] | None = None
    type: Literal["internal", "external"] = "internal"
    live: bool = False
    dry_run: bool = False
    config: str | None = None
    disk_only: bool = False


class SnapshotCreateResult(Result, frozen=True, kw_only=True):
    """The name of the new snapshot."""

    name: str


class SnapshotList(Request["SnapshotListResult"], frozen=True, kw_only=True):
    """List the snapshots of a domain, named by its name or uuid, in the implementation's order."""

    domain: str


class ListedDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A disk of a listed snapshot."""

    vdev: str
    type: Literal["internal", "external"] = "internal"


class ListedSnapshot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row of a list. ``creation_time`` is in seconds since the epoch.

    ``memory`` is the path of the memory image, if it is told; ``state`` the domain's run state at the time
    of the snapshot, by its letter in `xl list`. ``parent`` is the snapshot that the domain's state came from:
    None where that is not told, "" at a root.
    """

    name: str
    description: str = ""
    creation_time: int
    memory: str | None = None
    disk_only: bool
    state: Literal["r", "b", "p", "s", "c", "d", ""]
    disks: tuple[ListedDisk, ...] = ()
    parent: str | None = None


class SnapshotListResult(Result, frozen=True, kw_only=True):
    """All complete snapshots.

    ``current`` is the one that the domain's state comes from: None where that is not told, "" if there is
    none.
    """

    snapshots: tuple[ListedSnapshot, ...]
    current: str | None = None


class SnapshotRevert(Request[Done], frozen=True, kw_only=True):
    """Return a domain to a snapshot; with ``paused`` it is left paused."""

    domain: str
    name: str
    paused: bool = False


class SnapshotDelete(Request[Done], frozen=True, kw_only=True):
    """Delete a snapshot; with ``children`` also what descends from it, with ``children_only`` only that."""

    domain: str
    name: str
    children: bool = False
    children_only: bool = False


class Metadata(Request["MetadataResult"], frozen=True, kw_only=True):
    """Ask where the ``snapshotdata-d.*.libxl-json`` files of a domain are."""

    domain: str


class MetadataResult(Result, frozen=True, kw_only=True):
    """``directory`` is absolute; it need not exist while the domain has no snapshot."""

    directory: str


# --- the whole protocol as data ---------------------------------------------------------------------------


class Verb(msgspec.Struct, frozen=True):
    """One verb: types of its arguments and result, time limit in seconds, capability that it needs."""

    arguments: type[Request[Any]]
    result: type[Result]
    seconds: float
    capability: str | None = None


VERBS: dict[str, Verb] = {
    "hello": Verb(Hello, HelloResult, 300),
    "setup": Verb(Setup, Done, 60),
    "teardown": Verb(Teardown, Done, 120),
    "domain_create": Verb(DomainCreate, DomainCreateResult, 120),
    "domain_destroy": Verb(DomainDestroy, Done, 60),
    "domain_pause": Verb(DomainPause, Done, 30, "pause"),
    "domain_unpause": Verb(DomainUnpause, Done, 30, "pause"),
    "domain_power_cycle": Verb(DomainPowerCycle, Done, 120),
    "domain_state": Verb(DomainStateOf, DomainStateResult, 30),
    "domain_list": Verb(DomainList, DomainListResult, 30),
    "domain_disks": Verb(DomainDisks, DomainDisksResult, 30),
    "domain_console": Verb(DomainConsole, DomainConsoleResult, 30),
    "snapshot_create": Verb(SnapshotCreate, SnapshotCreateResult, 180),
    "snapshot_list": Verb(SnapshotList, SnapshotListResult, 30),
    "snapshot_revert": Verb(SnapshotRevert, Done, 180, "revert"),
    "snapshot_delete": Verb(SnapshotDelete, Done, 180, "delete"),
    "metadata": Verb(Metadata, MetadataResult, 30, "metadata-files"),
    "command": Verb(Command, CommandResult, 30, "cli"),
    "parse": Verb(Parse, ParseResult, 30, "parse"),
}

VERB_OF: dict[type[Request[Any]], str] = {verb.arguments: name for name, verb in VERBS.items()}

ErrorKind = Literal["input", "state", "host", "bug", "unsupported"]
"""Whose fault it is: the request's, the domain's state, the host's, the implementation's own; or nobody's."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was refused, in one line."""

    kind: ErrorKind
    message: str


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it is sent; ``id`` rises by one with each."""

    id: int
    verb: str
    args: msgspec.Raw


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A reply as it is received: ``result`` if ``ok``, else ``error``."""

    id: int
    ok: bool
    result: msgspec.Raw = msgspec.Raw(b"{}")
    error: Refusal | None = None
