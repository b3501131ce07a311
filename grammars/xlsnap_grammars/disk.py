# SPDX-License-Identifier: LGPL-2.1-or-later
"""Disk specifications: what their parameters mean, one after another."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from .diagnostics import Problem, Source, quoted
from .parsers import parser

if TYPE_CHECKING:
    from lark import Token


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """A disk, with the meanings of libxl_device_disk.

    ``format`` is raw, qcow, qcow2, vhd, qed, empty, or unknown when none was given (libxlu then takes raw).
    ``backend`` is unknown, phy, tap, qdisk or standalone; ``specification`` unknown, xen or virtio.
    A field that may be None was not given. The fields after ``specification`` are those of COLO replication.
    """

    target: str | None = None
    format: str = "unknown"
    vdev: str | None = None
    readwrite: bool = True
    removable: bool = False
    is_cdrom: bool = False
    backend: str = "unknown"
    backend_domname: str | None = None
    script: str | None = None
    direct_io_safe: bool = False
    discard: bool | None = None
    specification: str = "unknown"
    colo: bool | None = None
    colo_host: str | None = None
    colo_port: int = 0
    colo_export: str | None = None
    active_disk: str | None = None
    hidden_disk: str | None = None


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a named parameter sets.

    Without ``choices`` any text is right, once: only an empty one is replaced. With ``choices`` the last one
    counts, unless it is to be set ``once``; then it may only be repeated.
    """

    field: str
    choices: Mapping[str, str | bool] | None = None
    once: bool = False


_FORMATS = {"": "raw"} | {name: name for name in ("raw", "qcow", "qcow2", "vhd", "qed", "empty")}
_BACKENDS = {name: name for name in ("phy", "tap", "qdisk", "standalone")}
_SPECIFICATIONS = {name: name for name in ("xen", "virtio")}
_ACCESS = {"r": False, "ro": False, "w": True, "rw": True, "": True}
_DEVTYPES = {"cdrom": True, "disk": False}

NAMED = MappingProxyType(
    {
        "target": Parameter("target"),
        "format": Parameter("format", _FORMATS, once=True),
        "vdev": Parameter("vdev"),
        "access": Parameter("readwrite", _ACCESS),
        "devtype": Parameter("is_cdrom", _DEVTYPES),
        "backend": Parameter("backend_domname"),
        "backendtype": Parameter("backend", _BACKENDS, once=True),
        "script": Parameter("script"),
        "specification": Parameter("specification", _SPECIFICATIONS, once=True),
        "colo-host": Parameter("colo_host"),
        "colo-port": Parameter("colo_port"),
        "colo-export": Parameter("colo_export"),
        "active-disk": Parameter("active_disk"),
        "hidden-disk": Parameter("hidden_disk"),
    }
)
FLAGS = MappingProxyType(
    {
        "cdrom": ("is_cdrom", True),
        "discard": ("discard", True),
        "no-discard": ("discard", False),
        "direct-io-safe": ("direct_io_safe", True),
        "colo": ("colo", True),
        "no-colo": ("colo", False),
    }
)
# A prefix sets one field; those that are not here only say that there is a prefix.
PREFIXES = MappingProxyType(
    {name: ("format", name) for name in ("raw", "qcow", "qcow2", "vhd")}
    | {name: ("script", f"block-{name}") for name in ("iscsi", "nbd", "enbd", "drbd")}
)


_PREFIX = re.compile(r"[a-z0-9]+")
_INTEGER = re.compile(r"[ \t\n\v\f\r]*([-+]?)0*([0-9]*)")


class _Builder:
    @staticmethod
    def spec(parameters: list[Token]) -> list[Token]:
        return parameters


@dataclass(slots=True)
class DiskReading:
    """A specification while it is read: the fields so far, where each was given, and what is wrong."""

    fields: dict[str, Any] = field(default_factory=dict)
    places: dict[str, tuple[int, str]] = field(default_factory=dict)  # field: (index into the text, its text)
    problems: list[Problem] = field(default_factory=list)
    prefixed: bool = False
    access_given: bool = False

    def problem(self, position: int, message: str, hint: str | None = None) -> None:
        """Note that something is wrong at the index `position`."""
        self.problems.append(Problem(position, message, hint))

    def set_named(self, name: str, text: str, position: int) -> None:
        """Set what the parameter `name` sets, from its text."""
        parameter = NAMED[name]
        if name == "colo-port":
            self._set_number(text, position)
        elif parameter.choices is None:
            self.set_text(name, text, position)
        elif text not in parameter.choices:
            allowed = ", ".join(choice for choice in parameter.choices if choice)
            self.problem(position, f"unknown {name} {quoted(text)}", f"one of {allowed}")
        else:
            value = parameter.choices[text]
            before = self.fields.get(parameter.field, value)
            if parameter.once and before != value:
                self.problem(
                    position, f"{name} is {before} already, and cannot be {value} as well", "give it once"
                )
            else:
                self._set(parameter.field, value, position, text)

    def set_text(self, name: str, text: str, position: int) -> None:
        """Set a text field, which may only have been empty before."""
        field_name = NAMED[name].field
        if before := self.fields.get(field_name):
            self.problem(position, f"{name} is given twice", f"it is {quoted(before)} already")
        else:
            self._set(field_name, text, position, text)

    def set_flag(self, name: str, position: int) -> None:
        """Set what a parameter without a value sets."""
        self._set(*FLAGS[name], position, name)

    def set_prefix(self, name: str, position: int) -> None:
        """Take a deprecated prefix of the target."""
        self.prefixed = True
        self.places.setdefault("prefix", (position, name))
        if name in PREFIXES:
            self.set_named(*PREFIXES[name], position)

    def set_positional(self, text: str, position: int) -> None:
        """Set the next of target, format, vdev and access that is not set yet."""
        if self.problems:
            return  # what is wrong already may have shifted the positions
        if "target" not in self.fields:
            self.set_text("target", text, position)
        elif not self.prefixed and "format" not in self.fields:
            if not self.fields["target"] and self._set_vdev_with_type(text, position):
                self._set("format", "empty", position, "")
            else:
                self.set_named("format", text, position)
        elif "vdev" not in self.fields:
            if not self._set_vdev_with_type(text, position):
                self.set_text("vdev", text, position)
        elif not self.access_given:
            self.access_given = True
            self.set_named("access", text, position)
        else:
            self.problem(
                position,
                f"too many parameters: {quoted(text)}",
                "target, format, vdev, access; others have names",
            )

    def _set_vdev_with_type(self, text: str, position: int) -> bool:
        vdev, colon, devtype = text.rpartition(":")
        if colon:
            self.set_text("vdev", vdev, position)
            self.set_named("devtype", devtype, position + len(vdev) + 1)
        return bool(colon)

    def _set_number(self, text: str, position: int) -> None:
        if number := _atoi(text):
            self._set("colo_port", number, position, text)
        else:
            self.problem(position, f"colo-port {quoted(text)} is not a number", "a TCP port")

    def _set(self, field_name: str, value: object, position: int, text: str) -> None:
        self.fields[field_name] = value
        self.places[field_name] = (position, text)

    def finish(self) -> DiskSpec:
        """Return the disk, with what follows from its being a CD-ROM."""
        disk = dict(self.fields)
        if disk.get("is_cdrom"):
            disk |= {"removable": True, "readwrite": False}
            if not disk.get("target"):
                disk["format"] = "empty"
        return DiskSpec(**disk)


def parse_disk(spec: str, *, filename: str = "<disk>") -> DiskSpec:
    """Parse a disk specification, as xlu_disk_parse of Xen 4.17 does.

    :raises ConfigError: with all errors of the specification.
    """
    source = Source(spec, filename)
    reading = read_disk(spec)
    if "\0" in spec:
        reading.problem(spec.index("\0"), "NUL byte")
    elif not reading.problems:
        if "vdev" not in reading.fields:
            reading.problem(len(spec), "no vdev", "add vdev=hda, for instance")
        if "target" not in reading.fields and not reading.fields.get("is_cdrom"):
            reading.problem(len(spec), "no target", "add target=/path as the last parameter")
    source.check(reading.problems)
    return reading.finish()


def read_disk(spec: str) -> DiskReading:
    """Read the parameters of `spec`; whether all that are needed are there is not looked at."""
    parameters = cast("list[Token]", parser("disk", "spec", _Builder).parse(spec))
    reading = DiskReading()
    for parameter in parameters:
        position, text = parameter.start_pos or 0, parameter.value.removesuffix(",")
        name, equals, value = text.partition("=")
        match parameter.type:
            case "NAMED" | "TARGET":
                reading.set_named(name, value, position + len(name) + len(equals))
            case "FLAG":
                reading.set_flag(text, position)
            case "PREFIXES":
                for prefix in _PREFIX.finditer(text):
                    reading.set_prefix(prefix[0], position + prefix.start())
            case "POSITIONAL":
                reading.set_positional(text, position)
            case "UNKNOWN_PREFIX":
                reading.problem(
                    position, f"unknown prefix {quoted(text)}", "name the script= of the target instead"
                )
                break
            case _:
                reading.problem(position, *_explain_unknown(name, value))
    return reading


def _explain_unknown(name: str, value: str) -> tuple[str, str]:
    if name in FLAGS:
        return f"{quoted(name)} takes no value", f"write {name} alone"
    if name.strip().lower() in NAMED:
        return f"unknown parameter {quoted(name)}", f"write {name.strip().lower()}="
    if "/" in value:
        return f"unknown parameter {quoted(name)}", "write vdev=…,target=… or target,format,vdev,access"
    from difflib import get_close_matches

    close = get_close_matches(name.lower(), NAMED, 1)
    return (
        f"unknown parameter {quoted(name)}",
        f"did you mean {close[0]}=?" if close else f"one of {', '.join(NAMED)}",
    )


def _atoi(text: str) -> int:
    """Return what C's atoi makes of `text`: 32 bits of a number that stops at the ends of a long."""
    match = _INTEGER.match(text)
    sign, digits = (match[1], match[2]) if match else ("", "")
    number = int(f"{sign}{digits[:20] or 0}")
    long = max(-(1 << 63), min(number, (1 << 63) - 1))
    return (long + (1 << 31)) % (1 << 32) - (1 << 31)
