# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proof that the tables can fail: each parser that is broken on purpose differs from them somewhere."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from libxlu_cases import CONFIGS, DISKS
from libxlu_oracle import our_config, our_disk
from xlsnap_grammars import DEVIATIONS, config, disk, parsers, settings, strings

Break = Callable[[pytest.MonkeyPatch], None]


def grammar(name: str, before: str, after: str) -> Break:
    """Put `after` in the place of `before` in a grammar."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        text = parsers.grammar_text(name)
        assert text.count(before) == 1, f"{before!r} is not there once: the mutant is out of date"
        mutated = text.replace(before, after)
        original = parsers.grammar_text
        patch.setattr(parsers, "grammar_text", lambda asked: mutated if asked == name else original(asked))

    return apply


def attribute(owner: Any, name: str, change: Callable[[Any], Any]) -> Break:
    """Put `change(value)` in the place of the value of an attribute."""
    return lambda patch: patch.setattr(owner, name, change(getattr(owner, name)))


def entry(table: str, key: str, change: Callable[[Any], Any]) -> Break:
    """Put `change(value)` in the place of an entry of a table of disk.py; None takes the entry out."""

    def changed(entries: Any) -> dict[str, Any]:
        value = change(entries[key])
        rest = {other: entries[other] for other in entries if other != key}
        return rest if value is None else rest | {key: value}

    return attribute(disk, table, changed)


def choices(name: str, **changes: str | bool) -> Break:
    """Change what the choices of a named disk parameter mean."""
    return entry(
        "NAMED", name, lambda parameter: replace(parameter, choices={**parameter.choices, **changes})
    )


MUTANTS: dict[str, Break] = {
    # config.lark
    "CRLF accepted": grammar("config", r"(?:#[^\n]*)?\n/", r"(?:#[^\n]*)?\r?\n/"),
    "comment without a line end accepted": grammar(
        "config", r"(?:#[^\n]*)?\n/", r"(?:#[^\n]*\n|#[^\n]+|\n)/"
    ),
    "no comments": grammar("config", r"(?:#[^\n]*)?\n/", r"\n/"),
    "form feed skipped": grammar("config", r"_BLANKS: /[ \t]+/", r"_BLANKS: /[ \t\f]+/"),
    "tab not skipped": grammar("config", r"_BLANKS: /[ \t]+/", r"_BLANKS: /[ ]+/"),
    "uppercase keys accepted": grammar("config", "KEY: /[a-z][", "KEY: /[a-zA-Z][A-Z"),
    "dash in keys accepted": grammar("config", "[._0-9a-z]*/", "[-._0-9a-z]*/"),
    "no dot in keys": grammar("config", "[._0-9a-z]*/", "[_0-9a-z]*/"),
    "signs accepted": grammar("config", "NUMBER: /[0-9]", "NUMBER: /[-+]?[0-9]"),
    "uppercase digits accepted": grammar("config", "[0-9a-fx]*/", "[0-9a-fA-Fx]*/"),
    "decimal digits only": grammar("config", "[0-9a-fx]*/", "[0-9]*/"),
    "bare words accepted": grammar("config", "_value: STRING |", "_value: STRING | KEY |"),
    "double quotes only": grammar("config", r"      | /'[^'\\\n\x00]*(?:\\[^\n\x00][^'\\\n\x00]*)*'/", ""),
    "line end in strings accepted": grammar(
        "config",
        r'/"[^"\\\n\x00]*(?:\\[^\n\x00][^"\\\n\x00]*)*"/',
        r'/"[^"\\\x00]*(?:\\[^\n\x00][^"\\\x00]*)*"/',
    ),
    "NUL in strings accepted": grammar(
        "config", r'/"[^"\\\n\x00]*(?:\\[^\n\x00][^"\\\n\x00]*)*"/', r'/"[^"\\\n]*(?:\\[^\n][^"\\\n]*)*"/'
    ),
    "no escape of a quote": grammar(
        "config", r"/'[^'\\\n\x00]*(?:\\[^\n\x00][^'\\\n\x00]*)*'/", r"/'[^'\n\x00]*'/"
    ),
    "trailing comma lost": grammar("config", '(_items ("," _NEWLINE*)?)?', "_items?"),
    "lone comma accepted": grammar("config", '(_items ("," _NEWLINE*)?)?', '_items? ("," _NEWLINE*)?'),
    "no empty list": grammar("config", '(_items ("," _NEWLINE*)?)?', '_items ("," _NEWLINE*)?'),
    "semicolon in lists accepted": grammar(
        "config", '| _items "," _NEWLINE*', '| _items ("," | ";") _NEWLINE*'
    ),
    "no line end after a comma": grammar("config", '| _items "," _NEWLINE*', '| _items ","'),
    "no line end after [": grammar("config", '"[" _NEWLINE*', '"["'),
    "no nested lists": grammar("config", "_items: _value", "_items: (STRING | NUMBER)"),
    "final line end needed": grammar("config", "file: _line* setting?", "file: _line*"),
    "no semicolons": grammar("config", '_end: _NEWLINE | ";"', "_end: _NEWLINE"),
    "no +=": grammar("config", "(ASSIGN | APPEND)", "ASSIGN"),
    # What settings and strings mean
    "first duplicate wins": attribute(
        config, "read_settings", lambda read: lambda source, problems: read(source, problems)[::-1]
    ),
    "+= replaces": attribute(
        settings._Builder,
        "setting",
        lambda make: staticmethod(lambda parts: replace(make(parts), append=False)),
    ),
    "= adds": attribute(
        settings._Builder,
        "setting",
        lambda make: staticmethod(lambda parts: replace(make(parts), append=True)),
    ),
    "octal escapes give a character": attribute(
        strings, "_ESCAPE", lambda _: re.compile(r"(?s:\\(?:(?P<octal>(?!))|(?P<other>.)))")
    ),
    "one digit is enough for an octal escape": attribute(
        strings, "_ESCAPE", lambda _: re.compile(r"(?s:\\(?:(?P<octal>[0-7][0-9]{1,3})|(?P<other>.)))")
    ),
    "\\v not known": attribute(
        strings,
        "ESCAPES",
        lambda escapes: {letter: character for letter, character in escapes.items() if letter != "v"},
    ),
    "\\e accepted": attribute(strings, "ESCAPES", lambda escapes: {**escapes, "d": "\x1b"}),
    # disk.lark
    "target= does not take the rest": grammar("disk", r"/target=(?!\n)[^\n]*/", r"/target=[^,]*,?/"),
    "empty target= before a line end": grammar("disk", r"/target=(?!\n)[^\n]*/", r"/target=[^\n]*/"),
    "target= goes on over line ends": grammar("disk", r"/target=(?!\n)[^\n]*/", r"/target=(?s:.*)/"),
    "blanks before a parameter kept": grammar("disk", r"/[ \t\n]++(?![^=,\n]*\n)/", r"/\n(?!(?s:.))/"),
    "blanks before any text skipped": grammar("disk", r"/[ \t\n]++(?![^=,\n]*\n)/", r"/[ \t\n]++/"),
    "flags not whole parameters": grammar("disk", r"(?:,|\Z)/", r"[^,]*,?/"),
    "prefix before any text": grammar("disk", r"[ \t]*+)++(?![^=,\n]*\n)/", r"[ \t]*+)++/"),
    "unknown prefix before a letter": grammar("disk", r"(?![a-z0-9])", ""),
    # Tables of disk.py
    "cdrom does not force read-only": attribute(
        disk.DiskReading,
        "finish",
        lambda finish: lambda self: replace(finish(self), readwrite=self.fields.get("readwrite", True)),
    ),
    "cdrom needs a target": attribute(
        disk.DiskReading,
        "finish",
        lambda finish: lambda self: replace(finish(self), format=self.fields.get("format", "unknown")),
    ),
    "empty format is unknown": choices("format", **{"": "unknown"}),
    "qed not known": entry(
        "NAMED",
        "format",
        lambda parameter: replace(
            parameter,
            choices={name: name for name in parameter.choices if name and name != "qed"} | {"": "raw"},
        ),
    ),
    "no access is read-only": choices("access", **{"": False}),
    "format may change": entry("NAMED", "format", lambda parameter: replace(parameter, once=False)),
    "first access wins": entry("NAMED", "access", lambda parameter: replace(parameter, once=True)),
    "backendtype may change": entry("NAMED", "backendtype", lambda parameter: replace(parameter, once=False)),
    "text may be given twice": attribute(
        disk.DiskReading,
        "set_text",
        lambda _: lambda self, name, text, position: self._set(disk.NAMED[name].field, text, position, text),
    ),
    "no-discard is discard": entry("FLAGS", "no-discard", lambda _: ("discard", True)),
    "raw: sets no format": entry("PREFIXES", "raw", lambda _: None),
    "nbd: sets no script": entry("PREFIXES", "nbd", lambda _: None),
    "after a prefix format has a position": attribute(
        disk.DiskReading,
        "set_prefix",
        lambda set_prefix: (
            lambda self, name, position: (
                set_prefix(self, name, position),
                self.__setattr__("prefixed", False),
            )
        ),
    ),
    "vdev:type not split": attribute(
        disk.DiskReading, "_set_vdev_with_type", lambda _: lambda self, text, position: False
    ),
}


@pytest.fixture(autouse=True)
def _fresh_parsers() -> Iterator[None]:
    parsers.parser.cache_clear()
    yield
    parsers.parser.cache_clear()


def differing_facts() -> list[str]:
    """What the parsers, as they are now, get wrong: rows of the tables, and files that only we reject."""
    rejected = [each for each in DEVIATIONS if each.language == "config"]
    deviations = [each.id for each in rejected if _differs(our_config, each.example, None)]
    configs = [fact for fact, (text, expected) in CONFIGS.items() if _differs(our_config, text, expected)]
    return (
        deviations
        + configs
        + [fact for fact, (spec, expected) in DISKS.items() if _differs(our_disk, spec, expected)]
    )


def _differs(parse: Callable[[Any], Any], text: str | bytes, expected: object) -> bool:
    try:
        return bool(parse(text) != expected)
    except Exception:  # only a ConfigError rejects a text, and that has become None
        return True


def test_the_parsers_themselves_differ_nowhere() -> None:
    assert differing_facts() == []


@pytest.mark.parametrize("mutant", MUTANTS)
def test_tables_catch(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[mutant](monkeypatch)
    differing = differing_facts()
    assert differing, "no row of the tables tells this parser from the right one"
    assert len(differing) <= (len(CONFIGS) + len(DISKS)) // 4, "broken altogether: that proves nothing"
