# SPDX-License-Identifier: LGPL-2.1-or-later
"""One method a verb, each a few commands of `xl`.

The driver is the user: it writes xl.cfg and xl.snapshot.conf, and knows of a domain that has ended what a
user would know, which is what the configuration says. What a snapshot has really done the suite finds out.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ... import protocol as p
from ... import trace as do
from ...fence import PREFIX
from ...snapshot_conf import quoted, text_of
from ..linux import Linux
from ..profile.console import ConsoleSocket
from ..serving import Refused
from . import lists
from .command import Xl

CAPABILITIES: tuple[p.Capability, ...] = (
    *("memory", "memory-path", "disk-only", "disk-selection", "snapshot-config", "dry-run"),
    *("list-order", "list-stopped", "revert", "revert-paused", "revert-stopped", "delete"),
    *("external", "external-memory-path", "external-disk-only", "external-disk-selection"),
    *("external-revert", "mixed", "metadata-files", "pause", "shutdown-state"),
)
"""What proposal v4 has. Not in it: live snapshots, and deletion together with all that descends from one.

Deletion of a stopped domain is left out too: it can change the domain's images, and no command of xl tells
those of a stopped domain.
"""


class XlDriver:
    """Answers requests through an `xl`."""

    edition = "v4"
    implementation = "xl"

    def __init__(
        self,
        xl: Xl,
        *,
        guest: Linux | None,
        metadata_root: Path,
        capabilities: Sequence[str] = CAPABILITIES,
        time_scale: float = 1.0,
    ) -> None:
        """Ask Xen for its version.

        :param guest: the Linux probe that domains run; None for the bare-metal one as their firmware.
        :param metadata_root: the directory that has one with metadata for each domain, by its uuid.
        :raise Refused: if there is no `xl`, or it cannot talk to Xen.
        """
        self.xl = xl
        self.version = xl("info", "xen_version").strip()
        self.capabilities = tuple(capabilities)
        self.time_scale = time_scale
        self._guest = guest
        self._metadata_root = metadata_root
        self._root: Path | None = None
        self._configs: dict[str, p.DomainCreate] = {}
        self._consoles: dict[str, ConsoleSocket] = {}
        self._numbers = itertools.count(1)
        self._json = True

    @property
    def root(self) -> Path:
        """The directory of the last set-up."""
        if self._root is None:
            raise Refused("bug", "setup has not been called")
        return self._root

    def setup(self, request: p.Setup) -> p.Done:
        """Begin in a directory."""
        self._root = Path(request.root)
        return p.Done()

    def teardown(self, request: p.Teardown) -> p.Done:
        """Destroy the domains of this run and delete their snapshots."""
        for name, config in self._configs.items():
            with contextlib.suppress(Refused):
                if self._listed(name) is not None:
                    self.xl("destroy", name)
            with contextlib.suppress(Refused):
                for snapshot in self._snapshots(config.uuid or name):
                    self.xl("snapshot-delete", "-n", snapshot.name, config.uuid or name)
        for console in self._consoles.values():
            console.close()
        self._configs.clear()
        self._consoles.clear()
        return p.Done()

    # --- domains --------------------------------------------------------------------------------------------

    def domain_create(self, request: p.DomainCreate) -> p.DomainCreateResult:
        """Write its xl.cfg and create it."""
        if not request.name.startswith(PREFIX):
            raise Refused("input", f"domain {request.name!r} is not one of the suite's")
        path = self.root / f"{request.name}.cfg"
        path.write_text(self.config_text(request), encoding="utf-8", errors="surrogateescape")
        self.xl("create", *(["-p"] if request.paused else []), str(path))
        listed = self._listed(request.name)
        if listed is None:
            raise Refused("host", f"xl create succeeds, but xl list does not show the domain {request.name}")
        self._configs[request.name] = msgspec.structs.replace(request, uuid=listed.uuid)
        return p.DomainCreateResult(domid=listed.domid or 0, uuid=listed.uuid)

    def config_text(self, request: p.DomainCreate) -> str:
        """Return the domain's xl.cfg."""
        guest = self._guest
        settings = {
            "name": request.name,
            "uuid": request.uuid,
            "memory": str(max(request.memory_mib, guest.memory_mib if guest else 0)),
            "vcpus": str(request.vcpus),
            "on_poweroff": request.on_poweroff,
        }
        if guest is None:
            settings["bios_path_override"] = request.firmware.rom
        else:
            settings |= {"kernel": guest.kernel_path, "ramdisk": guest.ramdisk_path, "extra": guest.extra}
            settings |= guest.more
        lines = [f"{key} = {quoted(value)}" for key, value in settings.items() if value is not None]
        disks = ", ".join(quoted(_disk_text(disk)) for disk in request.disks)
        return "\n".join([*lines, f"disk = [ {disks} ]", ""])

    def domain_destroy(self, request: p.DomainDestroy) -> p.Done:
        """Pull the plug; remember the images that it had."""
        self._remember_images(request.domain)
        self.xl("destroy", request.domain)
        return p.Done()

    def domain_pause(self, request: p.DomainPause) -> p.Done:
        """Stop its processors. Xen counts how often a domain is paused."""
        if self._active(request.domain).state != "paused":
            self.xl("pause", request.domain)
        return p.Done()

    def domain_unpause(self, request: p.DomainUnpause) -> p.Done:
        """Let its processors run."""
        self.xl("unpause", request.domain)
        return p.Done()

    def domain_power_cycle(self, request: p.DomainPowerCycle) -> p.Done:
        """Destroy it, and create it from a configuration with its present images."""
        name = self._active(request.domain).name
        self._remember_images(name)
        self.xl("destroy", name)
        self.domain_create(msgspec.structs.replace(self._configs[name], paused=False))
        return p.Done()

    def _remember_images(self, domain: str) -> None:
        """Enter the images that an active domain uses into the configuration that we keep of it."""
        listed = self._listed(domain)
        if listed is None or listed.name not in self._configs:
            return
        used = {disk.vdev: disk for disk in lists.disks(self.xl("list", "-l", listed.name), listed.name)}
        config = self._configs[listed.name]
        disks = tuple(
            msgspec.structs.replace(disk, path=used[disk.vdev].path, format=used[disk.vdev].format)
            if disk.vdev in used
            else disk
            for disk in config.disks
        )
        self._configs[listed.name] = msgspec.structs.replace(config, disks=disks)

    def domain_state(self, request: p.DomainStateOf) -> p.DomainStateResult:
        """Look for it in `xl list`; a domain that is not there but has snapshots is stopped."""
        listed = self._listed(request.domain)
        if listed is not None:
            return p.DomainStateResult(state=listed.state)
        try:
            known = bool(self._snapshots(request.domain))
        except Refused as error:
            if error.kind not in ("input", "state"):
                raise
            known = False
        return p.DomainStateResult(state="stopped" if known else "absent")

    def domain_list(self, request: p.DomainList) -> p.DomainListResult:
        """List all domains."""
        return p.DomainListResult(domains=lists.domains(self.xl("list", "-v")))

    def _listed(self, domain: str) -> p.ListedDomain | None:
        found = lists.domains(self.xl("list", "-v"))
        return next((each for each in found if domain in (each.name, each.uuid, str(each.domid))), None)

    def _active(self, domain: str) -> p.ListedDomain:
        listed = self._listed(domain)
        if listed is None:
            known = any(domain in (name, config.uuid) for name, config in self._configs.items())
            raise Refused("state" if known else "input", f"xl list shows no domain {domain}")
        return listed

    def domain_disks(self, request: p.DomainDisks) -> p.DomainDisksResult:
        """Read the images of an active domain from `xl list -l`; a stopped one is started as it ended."""
        listed = self._listed(request.domain)
        if listed is not None:
            return p.DomainDisksResult(disks=lists.disks(self.xl("list", "-l", listed.name), listed.name))
        for name, config in self._configs.items():
            if request.domain in (name, config.uuid):
                return p.DomainDisksResult(
                    disks=tuple(
                        p.DiskInUse(vdev=disk.vdev, path=disk.path, format=disk.format)
                        for disk in config.disks
                    )
                )
        raise Refused("input", f"there is no domain {request.domain}")

    def domain_console(self, request: p.DomainConsole) -> p.DomainConsoleResult:
        """Return a socket that is `xl console`."""
        name = self._active(request.domain).name
        if name not in self._consoles:
            path = self.root / f"console-{next(self._numbers)}"
            self._consoles[name] = ConsoleSocket(path, self.xl.vector("console", name))
        return p.DomainConsoleResult(unix=str(self._consoles[name].path))

    # --- snapshots ------------------------------------------------------------------------------------------

    def snapshot_create(self, request: p.SnapshotCreate) -> p.SnapshotCreateResult:
        """Write an xl.snapshot.conf, unless options can say it all, and create the snapshot."""
        before = set() if request.name else self._names(request.domain)
        words = self.create_words(request)
        self.xl(*words)
        if request.dry_run:
            return p.SnapshotCreateResult(name=request.name or "")
        name = request.name or self._new_name(request, before)
        return p.SnapshotCreateResult(name=name)

    def create_words(self, request: p.SnapshotCreate) -> list[str]:
        """Return the words of the command; the configuration file, if it takes one, is written."""
        words = [*(["-N"] if request.dry_run else []), "snapshot-create"]
        if request.live:
            words.append("--live")
        by_options = (
            request.disks is None
            and request.type == "internal"
            and request.description is None
            and request.memory in ("yes", "no")
        )
        if request.config is None and by_options:
            disk_only = request.memory == "no"
        else:
            path = self.root / f"snapshot-{next(self._numbers)}.conf"
            text = _conf_text(request) if request.config is None else request.config
            path.write_text(text, encoding="utf-8", errors="surrogateescape")
            words.append(str(path))
            disk_only = request.disk_only
        if request.name is not None and (by_options or request.config is not None):
            words += ["-n", request.name]
        return [*words, *(["-D"] if disk_only else []), request.domain]

    def _names(self, domain: str) -> set[str]:
        return {snapshot.name for snapshot in self._snapshots(domain)}

    def _new_name(self, request: p.SnapshotCreate, before: set[str]) -> str:
        """Return the name that the list has more than before."""
        new = self._names(request.domain) - before
        if len(new) != 1:
            raise Refused("host", f"xl snapshot-create succeeds, and the list has {len(new)} new snapshots")
        return new.pop()

    def snapshot_list(self, request: p.SnapshotList) -> p.SnapshotListResult:
        """List them as JSON, or as a table where there is no JSON."""
        return p.SnapshotListResult(snapshots=self._snapshots(request.domain))

    def _snapshots(self, domain: str) -> tuple[p.ListedSnapshot, ...]:
        if self._json:
            try:
                return lists.snapshots(self.xl("snapshot-list", "-o", "json", domain))
            except Refused as error:
                if error.kind != "input":
                    raise
                found = lists.table(self.xl("snapshot-list", domain))  # it fails too if the domain is unknown
                self._json = False
                return found
        return lists.table(self.xl("snapshot-list", domain))

    def snapshot_revert(self, request: p.SnapshotRevert) -> p.Done:
        """Return to a snapshot."""
        paused = ["-p"] if request.paused else []
        self.xl("snapshot-revert", "-n", request.name, *paused, request.domain)
        return p.Done()

    def snapshot_delete(self, request: p.SnapshotDelete) -> p.Done:
        """Delete a snapshot."""
        more = ["--children-only"] if request.children_only else ["--children"] if request.children else []
        self.xl("snapshot-delete", *more, "-n", request.name, request.domain)
        return p.Done()

    def metadata(self, request: p.Metadata) -> p.MetadataResult:
        """Return the directory of the domain's uuid."""
        uuids = [c.uuid for name, c in self._configs.items() if request.domain in (name, c.uuid)]
        if not uuids:
            raise Refused("input", f"there is no domain {request.domain}")
        return p.MetadataResult(directory=str(self._metadata_root / str(uuids[0])))


def _disk_text(disk: p.Disk) -> str:
    access = "ro" if disk.readonly or disk.cdrom else "rw"
    cdrom = "devtype=cdrom," if disk.cdrom else ""
    # xl would serve raw images with loop devices, of which nothing can take a snapshot.
    backend = "backendtype=qdisk,"
    return f"format={disk.format},vdev={disk.vdev},access={access},{backend}{cdrom}target={disk.path}"


def _conf_text(request: p.SnapshotCreate) -> str:
    return text_of(
        do.Create(
            name=request.name,
            description=request.description,
            memory=request.memory,
            disks=request.disks,
            type=request.type,
        )
    )
