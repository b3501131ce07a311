# SPDX-License-Identifier: LGPL-2.1-or-later
"""xl.snapshot.conf: a file in the xl configuration language, with the keys of xl.snapshot.conf(5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, cast

from .config import appended, mixed, plain
from .diagnostics import Diagnostic, Problem, Source, quoted
from .disk import DiskReading, read_disk
from .settings import RawValue, Setting, read_settings
from .strings import places, read_string

if TYPE_CHECKING:
    from lark import Token

SnapshotType = Literal["internal", "external"]
_TYPES: tuple[SnapshotType, ...] = ("internal", "external")


@dataclass(frozen=True, slots=True)
class SnapshotDisk:
    """A disk to be snapshotted, and how.

    ``type`` is what the disk's own specification tells, else that of the file, else internal. ``target`` (an
    absolute path, or None when the toolstack is to choose) and ``format`` are those of an external overlay.
    """

    vdev: str
    type: SnapshotType
    target: str | None = None
    format: str | None = None


@dataclass(frozen=True, slots=True)
class SnapshotConfig:
    """What an xl.snapshot.conf asks for; None where a key is absent.

    ``memory`` is yes, no or the absolute path of the memory image. ``type`` is that of all disks which do not
    tell their own. ``live``: the guest runs on while its memory is written. ``warnings`` say what is ignored.
    """

    name: str | None = None
    description: str | None = None
    memory: str | None = None
    type: SnapshotType | None = None
    live: bool | None = None
    disks: tuple[SnapshotDisk, ...] | None = None
    warnings: tuple[Diagnostic, ...] = ()


def parse_snapshot_config(text: str | bytes, *, filename: str = "<config>") -> SnapshotConfig:
    """Parse an xl.snapshot.conf.

    :raises ConfigError: with all errors of the file, those inside its disk specifications too.
    """
    source = Source(text, filename)
    view = _View()
    final: dict[str, _Final] = {}
    for setting in read_settings(source, view.problems):
        view.apply(setting, final)
    view.interpret(final)
    source.check(view.problems)
    return SnapshotConfig(
        name=view.texts.get("name"),
        description=view.texts.get("description"),
        memory=view.texts.get("memory"),
        type=cast("SnapshotType | None", view.texts.get("type")),
        live=None if (live := view.texts.get("live")) is None else live == "1",
        disks=view.disks,
        warnings=source.diagnostics(view.warnings),
    )


@dataclass(frozen=True, slots=True)
class _Final:
    """What a key is set to when the whole file has been read."""

    setting: Setting  # the last one of the key
    value: str | list[Any]  # text, or the list as it is written

    @property
    def position(self) -> int:
        """Where the value is: a list is shown at its key."""
        value = self.setting.value
        return self.setting.position if isinstance(value, list) else value.start_pos or 0


@dataclass(frozen=True, slots=True)
class _Rule:
    """What text a key may have, and what to say about any other."""

    allowed: Callable[[str], bool]
    hint: str


def _anything(_: str) -> bool:
    return True


_TEXTS = MappingProxyType(
    {
        "name": _Rule(_anything, 'write name = "…"'),
        "description": _Rule(_anything, 'write description = "…"'),
        "memory": _Rule(
            lambda text: text in ("yes", "no") or text.startswith("/"),
            '"yes", an absolute path for the memory image, or "no"',
        ),
        "type": _Rule(lambda text: text in _TYPES, '"internal" or "external"'),
        "live": _Rule(
            lambda text: text in ("0", "1"), "1 lets the guest run on while its memory is written, 0 does not"
        ),
    }
)
_KEYS = (*_TEXTS, "disk")
_DISK_FIELDS = frozenset({"vdev", "format", "target"})


class _View:
    """Gathers what the settings of a file mean, and all that is wrong with them."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.disks: tuple[SnapshotDisk, ...] | None = None
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def apply(self, setting: Setting, final: dict[str, _Final]) -> None:
        """Let `setting` replace the value of its key, or add to it."""
        key, value = str(setting.key), plain(setting.value, self.problems)
        if isinstance(setting.value, list):
            value = setting.value  # with the places of its items
        before = final[key].value if key in final else None
        if setting.append and before is not None:
            if isinstance(before, str) != isinstance(value, str):
                self.problems.append(mixed(setting))
                return
            value = appended(before, value)
        elif before is not None:
            message = f"{quoted(key)} is set again"
            self.warnings.append(Problem(setting.position, message, "only the last one counts"))
        final[key] = _Final(setting, value)

    def interpret(self, final: dict[str, _Final]) -> None:
        """Take the keys of a snapshot, and warn of others."""
        for key, setting in final.items():
            if key in _TEXTS:
                self._text(key, setting)
            elif key == "creationtime":
                message = "creationtime is ignored: it is always the time of the creation"
                self.warnings.append(Problem(setting.setting.position, message, "leave it out"))
            elif key != "disk":
                self._unknown(key, setting)
        without_memory = "memory" not in final or self.texts.get("memory") == "no"
        if self.texts.get("live") == "1" and without_memory:
            hint = 'add memory = "yes", or leave live out'
            self.problems.append(Problem(final["live"].position, "a live snapshot needs memory", hint))
        if "disk" in final:
            self._disks(final["disk"])

    def _text(self, key: str, final: _Final) -> None:
        rule = _TEXTS[key]
        if isinstance(final.value, list):
            self.problems.append(
                Problem(final.position, f"{key} is a list where text is expected", rule.hint)
            )
        elif not rule.allowed(final.value):
            message = f"{key} cannot be {quoted(final.value)}"
            self.problems.append(Problem(final.position, message, rule.hint))
        else:
            self.texts[key] = final.value

    def _unknown(self, key: str, final: _Final) -> None:
        from difflib import get_close_matches

        close = get_close_matches(key, _KEYS, 1)
        hint = f"did you mean {close[0]}?" if close else f"the keys are {', '.join(_KEYS)}"
        self.warnings.append(Problem(final.setting.position, f"unknown key {quoted(key)} is ignored", hint))

    def _disks(self, final: _Final) -> None:
        if isinstance(final.value, str):
            message = "disk is text where a list is expected"
            self.problems.append(Problem(final.position, message, "write disk = [ '…' ]"))
            return
        if not final.value:
            hint = "leave disk out to snapshot all writable disks"
            self.problems.append(Problem(final.position, "disk is an empty list", hint))
        disks: dict[str, SnapshotDisk] = {}
        for item in final.value:
            if isinstance(item, list):
                position = min((token.start_pos or 0 for token in _tokens(item)), default=final.position)
                hint = "write one string for each disk"
                self.problems.append(Problem(position, "a list where a disk specification is expected", hint))
                continue
            disk = self._disk(item)
            if disk is None:
                continue
            if disk.vdev in disks:
                message = f"disk {quoted(disk.vdev)} is given twice"
                self.problems.append(Problem(item.start_pos or 0, message, "a snapshot has each disk once"))
            disks[disk.vdev] = disk
        self.disks = tuple(disks.values())

    def _disk(self, item: Token) -> SnapshotDisk | None:
        position = item.start_pos or 0
        wrong_escapes: list[Problem] = []  # reported already
        text = read_string(item.value, position, wrong_escapes)
        if wrong_escapes:
            return None
        reading = read_disk(text)
        disk = None if reading.problems else _snapshot_disk(reading, self.texts.get("type"))
        if reading.problems:
            place = places(item.value, position)
            self.problems += [
                Problem(place[each.position], each.message, each.hint) for each in reading.problems
            ]
        return disk


def _snapshot_disk(reading: DiskReading, file_type: str | None) -> SnapshotDisk | None:
    """Return what a disk specification means in an xl.snapshot.conf; what is wrong goes to `reading`."""
    for field, (position, text) in reading.places.items():
        if field not in _DISK_FIELDS:
            what = quoted(text) if text else field
            reading.problem(
                position, f"{what} has no meaning in a snapshot", "a disk has vdev, format and target here"
            )
    vdev: str = reading.fields.get("vdev") or ""
    target: str = reading.fields.get("target") or ""
    if not vdev:
        position, _ = reading.places.get("vdev", (0, ""))
        reading.problem(position, "no vdev", "name the disk to be snapshotted: vdev=hda, for instance")
    kind = "internal" if target == "null" else "external" if target else file_type or "internal"
    if kind == "external" and target and not target.startswith("/"):
        reading.problem(
            reading.places["target"][0], f"target {quoted(target)} is not an absolute path", "begin it with /"
        )
    position, given = reading.places.get("format", (0, ""))
    if given and given != "qcow2":
        reading.problem(
            position, f"format {quoted(given)} cannot hold a snapshot", "use qcow2, or leave format out"
        )
    if reading.problems:
        return None
    if kind == "internal":
        return SnapshotDisk(vdev, "internal")
    return SnapshotDisk(vdev, "external", target or None, "qcow2")


def _tokens(value: RawValue) -> list[Token]:
    found: list[Token] = []
    unread: list[RawValue] = [value]
    while unread:
        item = unread.pop()
        if isinstance(item, list):
            unread += item
        else:
            found.append(item)
    return found
