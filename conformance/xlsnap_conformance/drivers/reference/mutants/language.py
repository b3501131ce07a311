# SPDX-License-Identifier: LGPL-2.1-or-later
"""Toolstacks that read configuration files wrongly."""

from __future__ import annotations

from dataclasses import replace as edited
from types import MappingProxyType
from typing import Any

import xlsnap_grammars
from xlsnap_grammars import SnapshotConfig, config, disk, parsers, settings, snapshot, strings

from .. import server
from .catalogue import mutant, replace, wrap


def _grammar(name: str, before: str, after: str) -> None:
    """Put `after` in the place of `before` in a grammar."""

    def changed(original: Any, asked: str) -> str:
        text: str = original(asked)
        if asked != name:
            return text
        if text.count(before) != 1:
            raise RuntimeError(f"{before!r} is not once in {name}.lark: the mutant is out of date")
        return text.replace(before, after)

    wrap(parsers, "grammar_text", changed)


@mutant("XLS-CONF-001", bug="a file that was edited on Windows")
def carriage_returns_accepted() -> None:
    """Lines may end in CR LF."""
    _grammar("config", r"(?:#[^\n]*)?\n/", r"(?:#[^\n]*)?\r?\n/")


@mutant("XLS-CONF-002", bug="libvirt, YAML and TOML take words without quotes")
def bare_words_accepted() -> None:
    """A word needs no quotes."""
    _grammar("config", "_value: STRING |", "_value: STRING | KEY |")


@mutant("XLS-CONF-003")
def upper_case_keys_accepted() -> None:
    """A key may have upper-case letters."""
    _grammar("config", "KEY: /[a-z][", "KEY: /[a-zA-Z][A-Z")


@mutant("XLS-CONF-003")
def dashes_in_keys_accepted() -> None:
    """A key may have dashes."""
    _grammar("config", "[._0-9a-z]*/", "[-._0-9a-z]*/")


@mutant("XLS-CONF-004")
def trailing_comma_refused() -> None:
    """A list may not end in a comma."""
    _grammar("config", '(_items ("," _NEWLINE*)?)?', "_items?")


@mutant("XLS-CONF-004")
def two_commas_accepted() -> None:
    """An item of a list may be missing."""
    _grammar("config", '| _items "," _NEWLINE*', '| _items ","+ _NEWLINE*')


@mutant("XLS-CONF-005", bug="TOML and JSON parsers differ in which of two equal keys counts")
def first_setting_counts() -> None:
    """When a key is set twice, the first setting counts."""
    wrap(snapshot, "read_settings", lambda original, *args: original(*args)[::-1])
    wrap(config, "read_settings", lambda original, *args: original(*args)[::-1])


@mutant("XLS-CONF-006", bug="libxlu's errors are one at a time in many programs that use it")
def only_the_first_error_told() -> None:
    """Of all errors of a file the first is told."""

    def parse(original: Any, request: Any) -> Any:
        result = original(request)
        return replace(result, errors=result.errors[:1])

    wrap(server, "parse", parse)


@mutant("XLS-CONF-007", bug="a parser that reads numbers as C does")
def numbers_have_signs() -> None:
    """A number may have a sign."""
    _grammar("config", "NUMBER: /[0-9]", "NUMBER: /[-+]?[0-9]")


@mutant("XLS-CONF-007")
def numbers_are_normalised() -> None:
    """A number is kept as its decimal value."""

    def read(original: Any, raw: str, *args: Any) -> str:
        text: str = original(raw, *args)
        if raw[0] in "\"'":
            return text
        try:
            return str(int(raw, 0))
        except ValueError:
            return text

    wrap(config, "read_string", read)


@mutant("XLS-CONF-008", bug="xl, July 2014: the backslash of an unknown escape is dropped")
def unknown_escape_accepted() -> None:
    """A backslash before a letter without a meaning is dropped."""
    strings.ESCAPES["z"] = "z"


@mutant("XLS-CONF-009")
def appending_replaces() -> None:
    """`+=` is the same as `=`."""
    builder: Any = settings._Builder
    original = builder.setting

    def setting(parts: list[Any]) -> Any:
        made = original(parts)
        return settings.Setting(made.key, False, made.value)

    builder.setting = staticmethod(setting)


@mutant("XLS-CONF-020")
def blanks_kept_before_parameters() -> None:
    """A blank before a parameter of a disk belongs to it."""
    _grammar("disk", r"/[ \t\n]++(?![^=,\n]*\n)/", r"/\n(?!(?s:.))/")


@mutant("XLS-CONF-021", bug="xl splits at commas before it looks for target=")
def target_ends_at_a_comma() -> None:
    """`target=` ends at the first comma."""
    _grammar("disk", r"/target=(?!\n)[^\n]*/", r"/target=[^,]*,?/")


def _edit_disks(edit: Any) -> None:
    """Change what a disk specification means."""
    wrap(disk.DiskReading, "finish", lambda original, reading: edit(reading, original(reading)))


@mutant("XLS-CONF-022")
def more_parameters_than_places_accepted() -> None:
    """Parameters without a name that find no place are ignored."""

    def positional(original: Any, self: Any, *args: Any) -> None:
        original(self, *args)
        self.problems[:] = [each for each in self.problems if "too many" not in each.message]

    wrap(disk.DiskReading, "set_positional", positional)


@mutant("XLS-CONF-023")
def formats_in_upper_case_accepted() -> None:
    """The names of formats may be written in upper case."""
    parameter = disk.NAMED["format"]
    choices = {**(parameter.choices or {}), **{name.upper(): name for name in disk._FORMATS}}
    disk.NAMED = MappingProxyType({**disk.NAMED, "format": edited(parameter, choices=choices)})


@mutant("XLS-CONF-024")
def cdroms_can_be_written() -> None:
    """A CD-ROM has the access that was asked for."""
    _edit_disks(lambda reading, spec: edited(spec, readwrite=reading.fields.get("readwrite", True)))


@mutant("XLS-CONF-025")
def second_vdev_counts() -> None:
    """Of two vdevs the second counts."""
    wrap(
        disk.DiskReading,
        "set_text",
        lambda _, self, name, text, position: self._set(disk.NAMED[name].field, text, position, text),
    )


@mutant("XLS-CONF-026")
def prefix_gives_no_format() -> None:
    """The prefix qcow2: is dropped like file:."""
    kept = {name: sets for name, sets in disk.PREFIXES.items() if name != "qcow2"}
    disk.PREFIXES = MappingProxyType(kept)


# --- xl.snapshot.conf ---------------------------------------------------------------------------------------


def _edit_file(edit: Any) -> None:
    """Change what an xl.snapshot.conf means, wherever it is read."""

    def parse(original: Any, text: Any, **kwargs: Any) -> SnapshotConfig:
        made: SnapshotConfig = original(text, **kwargs)
        return edited(made, **edit(made))

    for module in (xlsnap_grammars, server):
        wrap(module, "parse_snapshot_config", parse)


def _rule(key: str, allowed: Any) -> None:
    """Let a key have other texts."""
    snapshot._TEXTS = MappingProxyType({**snapshot._TEXTS, key: snapshot._Rule(allowed, "")})


def _before_final(edit: Any) -> None:
    """Change the settings of a file before their meaning is looked at."""
    wrap(snapshot._View, "interpret", lambda original, self, final: original(self, edit(dict(final))))


@mutant("XLS-CONF-010", bug="xl, July 2014: a list as the name is ignored")
def list_as_name_ignored() -> None:
    """A name that is a list is ignored, and the default taken."""

    def edit(final: dict[str, Any]) -> dict[str, Any]:
        return {
            key: value for key, value in final.items() if key != "name" or not isinstance(value.value, list)
        }

    _before_final(edit)


@mutant("XLS-CONF-011")
def description_stripped() -> None:
    """Blanks at the ends of a description are dropped."""
    _edit_file(lambda made: {"description": made.description and made.description.strip()})


@mutant("XLS-CONF-012", bug="xl.cfg writes truth as 1 and 0")
def other_words_for_memory() -> None:
    """Any text but a path is taken for yes."""
    _rule("memory", lambda text: True)


@mutant("XLS-CONF-012")
def memory_is_kept_by_default() -> None:
    """A file that does not speak of memory asks for it."""
    _edit_file(lambda made: {"memory": "yes" if made.memory is None else made.memory})


@mutant("XLS-CONF-013")
def no_warning_of_creationtime() -> None:
    """creationtime is ignored in silence."""
    _before_final(lambda final: {key: value for key, value in final.items() if key != "creationtime"})


@mutant("XLS-CONF-014", bug='xl, July 2014: disk="…" is ignored and all disks are taken')
def text_as_disks_ignored() -> None:
    """A disk key that is no list is ignored."""

    def edit(final: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in final.items() if key != "disk" or isinstance(value.value, list)}

    _before_final(edit)


@mutant("XLS-CONF-014")
def null_is_a_path() -> None:
    """target=null names a file of the name null."""

    def edit(made: SnapshotConfig) -> dict[str, Any]:
        disks = made.disks or ()
        changed = tuple(edited(disk, type="external", target=disk.target or "/null") for disk in disks)
        return {"disks": made.disks and changed}

    _edit_file(edit)


@mutant("XLS-CONF-015")
def any_format_of_overlays_accepted() -> None:
    """An overlay may be of any format."""
    wrap(snapshot, "_snapshot_disk", _ignoring("format"))


@mutant("XLS-CONF-016")
def default_type_ignored() -> None:
    """`type` has no effect on disks that do not say it themselves."""
    wrap(snapshot, "_snapshot_disk", lambda original, reading, file_type: original(reading, None))


@mutant("XLS-CONF-017", bug="xl ignores unknown keys in silence")
def unknown_keys_ignored_in_silence() -> None:
    """There is no warning of an unknown key."""
    wrap(snapshot._View, "_unknown", lambda original, *args: None)


@mutant("XLS-CONF-018", bug="xl, July 2014: a disk that is not valid is passed over")
def bad_disks_left_out() -> None:
    """A disk specification that is not valid is left out."""

    def read(original: Any, self: Any, item: Any) -> Any:
        known = len(self.problems)
        found = original(self, item)
        del self.problems[known:]
        return found

    wrap(snapshot._View, "_disk", read)


@mutant("XLS-CONF-019")
def access_of_a_snapshot_accepted() -> None:
    """Parameters without a meaning in a snapshot are ignored."""
    snapshot._DISK_FIELDS = frozenset({*snapshot._DISK_FIELDS, "readwrite", "access", "is_cdrom"})


def _ignoring(what: str) -> Any:
    """Return a replacement that forgets problems whose message has a word."""

    def read(original: Any, reading: Any, file_type: Any) -> Any:
        found = original(reading, file_type)
        reading.problems[:] = [each for each in reading.problems if what not in each.message]
        return found

    return read


@mutant("XLS-CONF-027")
def relative_targets_accepted() -> None:
    """A target may be a relative path."""
    wrap(snapshot, "_snapshot_disk", _ignoring("absolute"))


@mutant("XLS-CONF-028", bug="QEMU's savevm takes all disks, whatever was meant")
def empty_list_is_all_disks() -> None:
    """An empty list of disks means all of them."""

    def edit(final: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in final.items() if key != "disk" or value.value != []}

    _before_final(edit)
