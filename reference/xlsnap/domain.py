# SPDX-License-Identifier: LGPL-2.1-or-later
"""Domains as values: configuration (xl.cfg), run state, and what we know of one."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from xlsnap_grammars import ConfigError, DiskSpec, parse_config, parse_disk

from .errors import ConfigFileError
from .layout import canonical_uuid
from .names import name_problem

T = TypeVar("T")


class RunState(enum.Enum):
    """The run state of an active domain, by its letter in `xl list`. A stopped domain has none."""

    RUNNING = "r"
    BLOCKED = "b"
    PAUSED = "p"
    SHUTDOWN = "s"
    CRASHED = "c"
    DYING = "d"

    @property
    def letters(self) -> str:
        """The state column of `xl list`: ``r-----``."""
        return "".join(letter if letter == self.value else "-" for letter in "rbpscd")


class DomainConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A domain as its xl.cfg describes it, as far as the reference toolstack goes.

    ``memory_mib`` is in MiB. ``bios`` is ``bios_path_override``. All paths are absolute. ``more`` are the
    other settings as they were read: only real Xen knows what they mean. ``warnings`` are lines about keys
    that are understood by xl but have no effect here.
    """

    name: str
    uuid: str | None = None
    memory_mib: int = 128
    vcpus: int = 1
    kernel: str | None = None
    ramdisk: str | None = None
    extra: str = ""
    bios: str | None = None
    boot: str | None = None
    disks: tuple[DiskSpec, ...] = ()
    serial: str = "pty"
    acpi: bool = True
    on_poweroff: str = "destroy"
    on_reboot: str = "restart"
    on_crash: str = "destroy"
    more: dict[str, Any] = {}
    warnings: tuple[str, ...] = ()

    @classmethod
    def from_text(
        cls, text: str | bytes, *, filename: str, directory: Path | None = None, xen: bool = False
    ) -> DomainConfig:
        """Read an xl.cfg; relative paths in it are relative to `directory` (default: the current one).

        With `xen` it is for real Xen, where every setting has its effect.

        :raise ConfigFileError: with all that is wrong with it.
        """
        try:
            raw = parse_config(text, filename=filename)
        except ConfigError as error:
            lines = tuple(str(diagnostic) for diagnostic in error.diagnostics)
            raise ConfigFileError(f"{filename}: not a valid configuration", details=lines) from error
        return _Reader(raw, filename, directory or Path.cwd(), xen=xen).config()

    def disk(self, vdev: str) -> DiskSpec | None:
        """Return the disk with this vdev, or None."""
        return next((disk for disk in self.disks if disk.vdev == vdev), None)


class Overlay(msgspec.Struct, frozen=True):
    """A qcow2 image that the toolstack made for a domain, and what it lies over (absolute paths).

    An image without ``backing`` stands alone: the copy of an internal snapshot of the disk whose image was
    ``copy_of`` on the first day. Images that are not in the list of a domain's overlays are the user's, and
    are never removed.
    """

    path: str
    backing: str | None = None
    backing_format: str | None = None
    copy_of: str | None = None


class DomainRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the toolstack keeps of a domain in ``domain.json``.

    ``process`` numbers the domain's last process among all that it ever had; that one may have ended.
    ``overlays`` are the images that the toolstack made and has not removed; an interrupted operation can
    leave one in the list that does not exist. ``current`` is the snapshot that the domain's state comes from.
    """

    uuid: str
    name: str
    config: DomainConfig
    domid: int | None = None
    process: int | None = None
    accelerator: str = "tcg"
    overlays: tuple[Overlay, ...] = ()
    current: str | None = None


class DomainInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row of `list`. ``run_state`` is None for a stopped domain; ``cpu_seconds`` is CPU time used.

    ``warnings`` are lines about how it was started.
    """

    name: str
    uuid: str
    domid: int | None
    memory_mib: int
    vcpus: int
    run_state: RunState | None
    cpu_seconds: float
    warnings: tuple[str, ...] = ()


# Keys of xl.cfg that describe what this toolstack does not offer; silence would mislead.
_WITHOUT_EFFECT = frozenset(
    {"vif", "pci", "usbdev", "vfb", "vtpm", "p9", "nics", "maxmem", "maxvcpus", "cpus"}
)

# Actions of xl.cfg, and those that a toolstack without a daemon can carry out; the first is the default.
_ACTIONS = frozenset(
    {"destroy", "restart", "rename-restart", "preserve", "coredump-destroy", "coredump-restart", "soft-reset"}
)
_SUPPORTED_ACTIONS = {
    "on_poweroff": ("destroy", "preserve"),
    "on_reboot": ("restart", "destroy"),
    "on_crash": ("destroy", "preserve"),
}


_KNOWN = frozenset(
    {"name", "uuid", "memory", "vcpus", "kernel", "ramdisk", "root", "extra", "bios_path_override", "boot"}
    | {"disk", "serial", "acpi", *_SUPPORTED_ACTIONS}
)


class _Reader:
    """Turns the dictionary of an xl.cfg into a `DomainConfig`, collecting all problems first."""

    def __init__(
        self, raw: Mapping[str, str | list[Any]], filename: str, directory: Path, *, xen: bool
    ) -> None:
        self.raw = raw
        self.filename = filename
        self.directory = directory
        self.xen = xen
        self.problems: list[str] = []
        without_effect = frozenset() if xen else _WITHOUT_EFFECT & raw.keys()
        self.warnings = [f"{filename}: {key} has no effect here" for key in sorted(without_effect)]

    def config(self) -> DomainConfig:
        name = self.text("name") or ""
        problem = name_problem(name) if "name" in self.raw else "it is missing"
        if problem:
            self.problem(f"name: {problem}")
        config = DomainConfig(
            name=name,
            uuid=self.converted("uuid", canonical_uuid),
            memory_mib=self.number("memory", default=128, least=1),
            vcpus=self.number("vcpus", default=1, least=1),
            kernel=self.path("kernel"),
            ramdisk=self.path("ramdisk"),
            extra=" ".join(part for part in (self.root_argument(), self.text("extra")) if part),
            bios=self.path("bios_path_override"),
            boot=self.text("boot"),
            disks=self.disks(),
            serial=self.serial(),
            acpi=bool(self.number("acpi", default=1, least=0)),
            on_poweroff=self.action("on_poweroff"),
            on_reboot=self.action("on_reboot"),
            on_crash=self.action("on_crash"),
            more={key: value for key, value in self.raw.items() if key not in _KNOWN},
        )
        config = msgspec.structs.replace(config, warnings=tuple(self.warnings))
        if self.problems:
            raise ConfigFileError(
                f"{self.filename}: not a usable domain configuration", details=tuple(self.problems)
            )
        return config

    def problem(self, text: str) -> None:
        self.problems.append(f"{self.filename}: {text}")

    def text(self, key: str) -> str | None:
        value = self.raw.get(key)
        if isinstance(value, list):
            if key == "serial":
                return str(value[0]) if value else None
            self.problem(f"{key}: a list where one value is expected")
            return None
        return value

    def converted(self, key: str, convert: Callable[[str], T]) -> T | None:
        value = self.text(key)
        if value is None:
            return None
        try:
            return convert(value)
        except Exception as error:  # every converter's complaint is the user's input
            self.problem(f"{key}: {error}")
            return None

    def number(self, key: str, *, default: int, least: int) -> int:
        """Read an integer as strtol with base 0 does: 0x10 and 010 are 16 and 8."""
        value = self.text(key)
        if value is None:
            return default
        try:
            number = c_integer(value)
        except ValueError as error:
            self.problem(f"{key}: {error}")
            return default
        if number < least:
            self.problem(f"{key}: {number} is too small, at least {least}")
        return number

    def path(self, key: str) -> str | None:
        value = self.text(key)
        return self.absolute(value) if value else None

    def absolute(self, value: str) -> str:
        return os.path.normpath(self.directory / value)

    def root_argument(self) -> str | None:
        value = self.text("root")
        return f"root={value}" if value else None

    def action(self, key: str) -> str:
        supported = _SUPPORTED_ACTIONS[key]
        value = self.text(key) or supported[0]
        if value not in _ACTIONS:
            self.problem(f"{key}: {value!r} is none of {', '.join(sorted(_ACTIONS))}")
        elif value not in supported and not self.xen:
            self.warnings.append(f"{self.filename}: {key}={value!r} is taken as {supported[0]!r} here")
            value = supported[0]
        return value

    def serial(self) -> str:
        value = self.text("serial")
        if value not in (None, "pty"):
            self.problem(f"serial: only 'pty' is supported, not {value!r}")
        return value or "pty"

    def disks(self) -> tuple[DiskSpec, ...]:
        value = self.raw.get("disk", [])
        if not isinstance(value, list):
            self.problem("disk: one string where a list is expected: write disk = [ '…' ]")
            return ()
        disks: dict[str, DiskSpec] = {}
        for index, item in enumerate(value, start=1):
            where = f"disk {index}"
            if not isinstance(item, str):
                self.problem(f"{where}: a list where a disk specification is expected")
                continue
            try:
                disk = parse_disk(item, filename=f"{self.filename}: {where}")
            except ConfigError as error:
                self.problems.extend(str(diagnostic) for diagnostic in error.diagnostics)
                continue
            if disk.vdev in disks:
                self.problem(f"{where}: vdev {disk.vdev} is used twice")
            disks[str(disk.vdev)] = self.located(disk)
        return tuple(disks.values())

    def located(self, disk: DiskSpec) -> DiskSpec:
        """Make the target absolute; a disk without a format is raw (xl-disk-configuration(5))."""
        import dataclasses

        target = self.absolute(disk.target) if disk.target and not disk.script else disk.target
        return dataclasses.replace(
            disk, target=target, format="raw" if disk.format == "unknown" else disk.format
        )


def c_integer(text: str) -> int:
    """Convert as C's strtol(…, 0) does, the whole text, within the range of a long.

    :raise ValueError: if that is not possible.
    """
    digits = text.strip()
    base = 16 if digits[:2].lower() == "0x" else 8 if digits.startswith("0") and len(digits) > 1 else 10
    try:
        number = int(digits, base)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    if number >= 1 << 63:
        raise ValueError(f"{text!r} is out of range")
    return number
