# SPDX-License-Identifier: LGPL-2.1-or-later
"""One method a verb, each a few commands of `virsh`.

What the driver makes up is only what libvirt leaves to its caller: where the serial port and external memory
images are. Domains are persistent, as those are that libvirt keeps snapshots for when they are stopped.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from ... import protocol as p
from ...fence import PREFIX
from ..serving import Refused
from .command import Virsh
from .domain_xml import console_path, disks_in_use, domain_xml, listed
from .options import create_options, is_external

CAPABILITIES: tuple[p.Capability, ...] = (
    *("memory", "external", "external-disk-only", "external-disk-selection", "external-memory-path"),
    *("list-stopped", "revert", "revert-paused", "revert-stopped"),
    *("delete", "delete-stopped", "delete-children", "pause"),
)
"""What libvirt 9.0 can do, as its documentation and its own messages say. It cannot

- take an internal snapshot of a running domain without its memory, or of some of the disks, or one of
  internal and external disks, or keep the memory of an internal one in a file of its own;
- return to an external snapshot ("revert to external snapshot not supported yet");
- tell its list in order of creation: `virsh snapshot-list` sorts by name, the API promises no order.
"""

_STATES: dict[str, p.DomainState] = {
    "running": "running",
    "idle": "running",
    "paused": "paused",
    "in shutdown": "running",
    "pmsuspended": "paused",
    "crashed": "shutdown",
    "shut off": "stopped",
}

_CREATED = re.compile(r"\ADomain snapshot (?P<name>.*) created\n", re.DOTALL)


class VirshDriver:
    """Answers requests through `virsh` on one connection."""

    edition = "v4"

    def __init__(self, virsh: Virsh) -> None:
        """Ask libvirt for its version.

        :raise Refused: if there is no connection.
        """
        self.virsh = virsh
        told = virsh("version", "--daemon")
        daemon = re.search(r"Running against daemon: (\S+)", told)
        self.version = daemon.group(1) if daemon else "unknown"
        self.implementation = "libvirt"
        self.capabilities: tuple[str, ...] = CAPABILITIES
        self._root: Path | None = None
        self._numbers = itertools.count(1)

    @property
    def root(self) -> Path:
        """The directory of the last set-up."""
        if self._root is None:
            raise Refused("bug", "setup has not been called")
        return self._root

    def setup(self, request: p.Setup) -> p.Done:
        """Begin in a directory, after removing the domains of runs that were killed."""
        self._root = Path(request.root)
        for name in self._ours():
            home = self._home(name)
            if home is not None and not home.exists():
                self._remove(name)
        return p.Done()

    def teardown(self, request: p.Teardown) -> p.Done:
        """Remove the domains of this run, with the metadata of their snapshots."""
        for name in self._ours():
            if self._home(name) == self.root:
                self._remove(name)
        return p.Done()

    def _ours(self) -> list[str]:
        names = self.virsh("list", "--all", "--name").splitlines()
        return [name for name in names if name.startswith(PREFIX)]

    def _home(self, name: str) -> Path | None:
        """Return the directory of the run that a domain belongs to; None if it is not one of ours."""
        console = console_path(self.virsh("dumpxml", name))
        return None if console is None else Path(console).parent

    def _remove(self, name: str) -> None:
        if self._state(name) != "stopped":
            self.virsh("destroy", name)
        self.virsh("undefine", name, "--snapshots-metadata")

    # --- domains --------------------------------------------------------------------------------------------

    def domain_create(self, request: p.DomainCreate) -> p.DomainCreateResult:
        """Define the domain and start it. One that is defined already gets the new definition."""
        if request.on_poweroff != "destroy":
            raise Refused("unsupported", "libvirt cannot keep a domain that has powered off")
        uuid = request.uuid or self._uuid(request.name)
        known = self._state(request.name) != "absent"
        console = self.root / f"{next(self._numbers)}.console"
        path = self.root / "domain.xml"
        path.write_text(domain_xml(request, str(console)), encoding="utf-8")
        self.virsh("define", str(path))
        try:
            self.virsh("start", request.name, *(["--paused"] if request.paused else []))
        except Refused:
            if not known:
                self.virsh("undefine", request.name)
            raise
        domid = self.virsh("domid", request.name).strip()
        return p.DomainCreateResult(
            domid=int(domid) if domid.isdecimal() else 0, uuid=uuid or self._uuid(request.name) or ""
        )

    def _uuid(self, name: str) -> str | None:
        try:
            return self.virsh("domuuid", name).strip()
        except Refused:
            return None

    def domain_destroy(self, request: p.DomainDestroy) -> p.Done:
        """Pull the plug; the definition stays."""
        self.virsh("destroy", request.domain)
        return p.Done()

    def domain_pause(self, request: p.DomainPause) -> p.Done:
        """Stop its processors."""
        self.virsh("suspend", request.domain)
        return p.Done()

    def domain_unpause(self, request: p.DomainUnpause) -> p.Done:
        """Let its processors run."""
        self.virsh("resume", request.domain)
        return p.Done()

    def domain_power_cycle(self, request: p.DomainPowerCycle) -> p.Done:
        """Pull the plug and start it again."""
        self.virsh("destroy", request.domain)
        self.virsh("start", request.domain)
        return p.Done()

    def domain_state(self, request: p.DomainStateOf) -> p.DomainStateResult:
        """Tell its state; an unknown domain is absent."""
        return p.DomainStateResult(state=self._state(request.domain))

    def _state(self, domain: str) -> p.DomainState:
        try:
            told = self.virsh("domstate", domain).strip()
        except Refused as error:
            if "failed to get domain" in str(error):
                return "absent"
            raise
        if told not in _STATES:
            raise Refused("bug", f"virsh domstate says {told!r}, which this driver does not know")
        return _STATES[told]

    def domain_list(self, request: p.DomainList) -> p.DomainListResult:
        """List all domains, also those of others."""
        active = self._rows("--state-running") | self._rows("--state-other")
        paused = self._rows("--state-paused")
        stopped = self._rows("--all") - active - paused
        states: tuple[tuple[p.DomainState, set[tuple[str, str]]], ...] = (
            ("running", active),
            ("paused", paused),
            ("stopped", stopped),
        )
        return p.DomainListResult(
            domains=tuple(
                p.ListedDomain(name=name, uuid=uuid, state=state)
                for state, rows in states
                for uuid, name in sorted(rows)
            )
        )

    def _rows(self, which: str) -> set[tuple[str, str]]:
        lines = self.virsh("list", which, "--uuid", "--name").splitlines()
        return {(uuid, name) for uuid, _, name in (line.partition(" ") for line in lines if line)}

    def domain_disks(self, request: p.DomainDisks) -> p.DomainDisksResult:
        """Read the images from the definition, of an active domain the present one."""
        return p.DomainDisksResult(disks=disks_in_use(self.virsh("dumpxml", request.domain)))

    def domain_console(self, request: p.DomainConsole) -> p.DomainConsoleResult:
        """Read the path of the serial port from the definition."""
        path = console_path(self.virsh("dumpxml", request.domain))
        if path is None or self._state(request.domain) == "stopped":
            raise Refused("state", f"domain {request.domain} has no console now")
        return p.DomainConsoleResult(unix=path)

    # --- snapshots ------------------------------------------------------------------------------------------

    def snapshot_create(self, request: p.SnapshotCreate) -> p.SnapshotCreateResult:
        """Take a snapshot with `snapshot-create-as`."""
        if request.config is not None or request.dry_run or request.live:
            raise Refused("unsupported", "no configuration file, dry run or live snapshot with this driver")
        writable = [disk.vdev for disk in self._writable(request.domain)] if is_external(request) else []
        memory = str(self.root / f"memory-{next(self._numbers)}.save")
        options = create_options(request, writable, memory)
        told = self.virsh("snapshot-create-as", request.domain, *options)
        created = _CREATED.match(told)
        if created is None:
            raise Refused("host", f"virsh says that it succeeded, but not what it made: {told.strip()!r}")
        return p.SnapshotCreateResult(name=created["name"])

    def _writable(self, domain: str) -> list[p.DiskInUse]:
        return list(disks_in_use(self.virsh("dumpxml", domain), writable=True))

    def snapshot_list(self, request: p.SnapshotList) -> p.SnapshotListResult:
        """List the names, then read the XML of each."""
        names = [name for name in self.virsh("snapshot-list", request.domain, "--name").split("\n") if name]
        rows = [listed(self.virsh("snapshot-dumpxml", request.domain, f"--snapshotname={n}")) for n in names]
        current = ""
        if any(names):
            try:
                current = self.virsh("snapshot-current", request.domain, "--name").rstrip("\n")
            except Refused as error:
                if "has no current snapshot" not in str(error):
                    raise
        return p.SnapshotListResult(snapshots=tuple(rows), current=current)

    def snapshot_revert(self, request: p.SnapshotRevert) -> p.Done:
        """Return to a snapshot."""
        paused = ["--paused"] if request.paused else []
        self.virsh("snapshot-revert", request.domain, f"--snapshotname={request.name}", *paused)
        return p.Done()

    def snapshot_delete(self, request: p.SnapshotDelete) -> p.Done:
        """Delete a snapshot, with its descendants or only those if that is asked for."""
        more = ["--children-only"] if request.children_only else ["--children"] if request.children else []
        self.virsh("snapshot-delete", request.domain, f"--snapshotname={request.name}", *more)
        return p.Done()
