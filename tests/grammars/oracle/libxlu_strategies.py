# SPDX-License-Identifier: LGPL-2.1-or-later
"""Texts to compare parsers with: valid ones, near misses, and loose heaps of the language's pieces.

``XLSNAP_DEEP`` says how many times as many each property tries, for a long search.
"""

import os
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

examples = settings(
    max_examples=400 * int(os.environ.get("XLSNAP_DEEP", "1")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

# --- configuration files

_NEWLINES = st.sampled_from([b"\n", b"\n\n", b" \t\n", b"# c\n", b"\n  "])
_KEYS = st.sampled_from([b"a", b"b", b"name", b"disk", b"a.b_1", b"on_crash"])
_NUMBERS = st.from_regex(rb"[0-9][0-9a-fx]{0,6}", fullmatch=True)
_CHARACTERS = st.sampled_from(
    [
        *(bytes([byte]) for byte in b" \t\r\v\f'\"=,;[]#abx0789-+\x01\x7f\xff"),
        "é".encode(),
        b"\\\\",
        b"\\n",
        b"\\'",
        b'\\"',
        *(b"\\01", b"\\012", b"\\x41", b"\\0", b"\\z", b"\\ "),
    ]
)


def _in_quotes(parts: list[bytes], quote: bytes) -> bytes:
    return (
        quote
        + b"".join(part.replace(quote, b"\\" + quote) if part == quote else part for part in parts)
        + quote
    )


_STRINGS = st.builds(_in_quotes, st.lists(_CHARACTERS, max_size=6), st.sampled_from([b"'", b'"']))
_GAPS = st.one_of(st.just(b""), st.just(b" "), _NEWLINES)


def _list(items: list[tuple[bytes, bytes, bytes]], first: bytes, comma: bytes) -> bytes:
    inside = b",".join(before + item + after for before, item, after in items)
    return b"[" + first + inside + (comma if items else b"") + b"]"


_VALUES: st.SearchStrategy[bytes] = st.recursive(
    st.one_of(_NUMBERS, _STRINGS),
    lambda values: st.builds(
        _list,
        st.lists(st.tuples(_GAPS, values, _GAPS), max_size=4),
        _GAPS,
        st.sampled_from([b"", b"", b",", b",\n", b", # c\n"]),
    ),
    max_leaves=6,
)
_SETTINGS = st.builds(
    lambda key, operator, value, end: key + operator + value + end,
    _KEYS,
    st.sampled_from([b"=", b"=", b" = ", b"\t=", b"+=", b" += "]),
    _VALUES,
    st.one_of(_NEWLINES, st.just(b";")),
)
valid_configs = st.builds(
    lambda settings, end: b"".join(settings) + end,
    st.lists(st.one_of(_SETTINGS, _NEWLINES), max_size=6),
    st.sampled_from([b"", b"z = 1", b"z = [2]", b"# c\n"]),
)

_PIECES = [
    *(
        b"a",
        b"b.c",
        b"_",
        b"A",
        b"z9",
        b"=",
        b"+=",
        b"-",
        b"+",
        b"1",
        b"0x1f",
        b"08",
        b"1.5",
        b"F",
        b"'x'",
        b'"y"',
        b"''",
    ),
    *(
        b"[",
        b"[",
        b"]",
        b"]",
        b",",
        b",",
        b";",
        b"\n",
        b"\n",
        b"#c\n",
        b"#",
        b" ",
        b"\t",
        b"\r",
        b"\r\n",
        b"\f",
        b"\v",
    ),
    *(
        b"'",
        b'"',
        b"\\",
        b"\\n",
        b"\\0",
        b"\0",
        b"(",
        b")",
        b"{",
        b":",
        b"@",
        b"\xff",
        b"\xef\xbb\xbf",
        "é".encode(),
    ),
    *(b"True", b"a=1\n", b"a=", b"=1", b"a='b'", b"a=[", b"1,", b"]\n", b"'x',\n"),
]
heaped_configs = st.lists(st.sampled_from(_PIECES), max_size=14).map(b"".join)


# --- disk specifications

_DISK_VALUES = [
    *(
        "",
        "/d",
        "hda",
        "xvdb",
        "raw",
        "qcow2",
        "null",
        "r",
        "rw",
        "x",
        "a=b",
        "/a:b",
        "hdc:cdrom",
        "hda:disk",
        "a:b:c",
    ),
    *(
        " /d",
        "/d ",
        "é",
        "\udcff",
        "0",
        "7",
        "-1",
        "4294967296",
        "phy",
        "tap",
        "qdisk",
        "xen",
        "virtio",
        "a\nb",
        "\n",
    ),
]
_NAMES = [
    *(
        "format",
        "vdev",
        "access",
        "backend",
        "backendtype",
        "script",
        "devtype",
        "specification",
        "target",
        "target",
    ),
    *(
        "colo-host",
        "colo-port",
        "colo-export",
        "active-disk",
        "hidden-disk",
        "foo",
        "Vdev",
        "vdev ",
        "grant_usage",
        "",
    ),
]
_FLAGS = [
    "cdrom",
    "discard",
    "no-discard",
    "direct-io-safe",
    "colo",
    "no-colo",
    "trusted",
    "cdroms",
    "discard=1",
    "cdrom ",
]
_PREFIXES = [
    *(
        "raw:",
        "qcow:",
        "qcow2:",
        "qcow3:",
        "vhd:",
        "qed:",
        "iscsi:",
        "nbd:",
        "enbd:",
        "eenbd:",
        "drbd:",
        "tap:",
        "tap2:",
    ),
    *("tap3:", "tapdisk:", "aio:", "ioemu:", "file:", "phy:", "nfs:", "Raw:", "a-b:", ":", "raw", "aio:tap:"),
]
_NAMED = st.builds(
    lambda name, value: f"{name}={value}", st.sampled_from(_NAMES), st.sampled_from(_DISK_VALUES)
)
_PREFIXED = st.builds(
    lambda prefix, value: prefix + value, st.sampled_from(_PREFIXES), st.sampled_from(_DISK_VALUES)
)
_PARAMETERS = st.one_of(st.sampled_from(_DISK_VALUES), _NAMED, st.sampled_from(_FLAGS), _PREFIXED)
_BLANKS = st.sampled_from(["", "", "", "", " ", "\t", "\n", "  "])
heaped_disks = st.lists(
    st.builds(lambda blanks, parameter: blanks + parameter, _BLANKS, _PARAMETERS), max_size=6
).map(",".join)

_GOOD_NAMED = {
    "format": ["raw", "qcow2", ""],
    "access": ["r", "ro", "w", "rw", ""],
    "backendtype": ["phy", "qdisk"],
    "backend": ["dom0"],
    "script": ["block-x", ""],
    "specification": ["virtio"],
    "devtype": ["cdrom", "disk"],
}
_GOOD = st.sampled_from(
    [f"{name}={value}" for name, values in _GOOD_NAMED.items() for value in values]
    + ["cdrom", "discard", "no-discard"]
)
valid_disks = st.one_of(
    st.builds(
        lambda others, vdev, target: ",".join([*others, f"vdev={vdev}", f"target={target}"]),
        st.lists(_GOOD, max_size=3),
        st.sampled_from(["hda", "xvda1", ""]),
        st.sampled_from(["/d", "", "/d,x", "null"]),
    ),
    st.builds(
        lambda prefix, target, rest: prefix + ",".join([target, *rest]),
        st.sampled_from(["", "", " ", "raw:", "tap:aio:"]),
        st.sampled_from(["/d", "", "a b"]),
        st.sampled_from(
            [
                ["raw", "hda"],
                ["", "hda:cdrom", "r"],
                ["hda"],
                ["hda", "w"],
                ["qcow2", "hda", "", ""],
                ["hdc:cdrom"],
            ]
        ),
    ),
)


# --- near misses

_EDITS = st.lists(
    st.tuples(
        st.sampled_from(["delete", "insert", "replace", "repeat", "cut"]),
        st.integers(0, 200),
        st.integers(0, 60),
    ),
    min_size=1,
    max_size=3,
)


Text = TypeVar("Text", str, bytes)


def _edited(text: Text, edits: list[tuple[str, int, int]], pieces: list[Text]) -> Text:
    for edit, place, choice in edits:
        at = place % (len(text) + 1)
        piece = pieces[choice % len(pieces)]
        head, tail = text[:at], text[at:]
        text = {
            "delete": head + tail[1 + choice % 3 :],
            "insert": head + piece + tail,
            "replace": head + piece + tail[len(piece) :],
            "repeat": head + tail[: 1 + choice % 5] + tail,
            "cut": head,
        }[edit]
    return text


_DISK_PIECES = [*",=: \t\n", *_NAMES, *_DISK_VALUES]
near_configs = st.builds(lambda text, edits: _edited(text, edits, _PIECES), valid_configs, _EDITS)
near_disks = st.builds(lambda text, edits: _edited(text, edits, _DISK_PIECES), valid_disks, _EDITS)


def edited_configs(texts: list[bytes]) -> st.SearchStrategy[bytes]:
    """One of `texts`, with a few edits."""
    return st.builds(lambda text, edits: _edited(text, edits, _PIECES), st.sampled_from(texts), _EDITS)


def edited_disks(texts: list[str]) -> st.SearchStrategy[str]:
    """One of `texts`, with a few edits."""
    return st.builds(lambda text, edits: _edited(text, edits, _DISK_PIECES), st.sampled_from(texts), _EDITS)
