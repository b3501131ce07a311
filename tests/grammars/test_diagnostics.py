# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a person reads who made a mistake: every error, in its place, with a likely cause, shown safely."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libxlu_oracle import Oracle
from libxlu_strategies import examples, heaped_configs, heaped_disks, near_configs
from xlsnap_grammars import ConfigError, Diagnostic, parse_config, parse_disk, parse_snapshot_config
from xlsnap_grammars.causes import CAUSES


def errors(text: str | bytes) -> tuple[Diagnostic, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    return caught.value.diagnostics


def places(text: str | bytes) -> list[tuple[int, int]]:
    return [(error.line, error.column) for error in errors(text)]


# The text of each mistake, the column of the caret in line 1, and what the message and the hint must say.
MISTAKES: dict[str, tuple[str | bytes, int, str, str | None]] = {
    "byte-order mark": (b"\xef\xbb\xbfa=1\n", 1, "byte-order mark", "UTF-8 without"),
    "UTF-16": ("a=1\n".encode("utf-16-le"), 2, "NUL byte", "text file"),
    "UTF-16 with a mark": ("a=1\n".encode("utf-16"), 1, "byte-order mark", "UTF-8"),
    "CRLF": (b"a=1\r\n", 4, "carriage return", "CRLF"),
    "CRLF without a value": (b"a=\r\n", 3, "carriage return", "CRLF"),
    "comment at the end": (b"a=1 # b", 5, "ends in a comment", "line end"),
    "typographic quotes": ("a=“b”\n", 3, "typographic quotation mark '“'", "plain quotes"),
    "UTF-8": ("a=é\n", 3, "'é' outside a string", "strings and comments"),
    "no-break space": ("a\u00a0=1\n", 2, r"'\xa0' outside a string", "strings and comments"),
    "byte": (b"a=\xff\n", 3, r"'\xff' outside a string", "strings and comments"),
    "form feed": (b"a=1\f\n", 4, r"control character '\x0c'", "space and tab"),
    "C comment": (b"a=1 // b\n", 5, "'//'", "begin with #"),
    "C comment before a setting": (b"/* b */\n", 1, "'/*'", "begin with #"),
    "long string": (b'a="""b\n', 5, "three quotes", "long strings are Python"),
    "long string in single quotes": (b"a='''b'''\n", 5, "three quotes", "long strings are Python"),
    "NUL in a string": (b"a='b\0'\n", 5, "NUL byte in a string", "anything else"),
    "NUL after a backslash": (b"a='b\\\0'\n", 5, "NUL byte in a string", "anything else"),
    "backslash-newline": (b"a='b\\\nc'\n", 5, "line end in a string", "does not continue"),
    "unterminated string": (b"a='b\n", 3, "unterminated string", "same line"),
    "unterminated string of the other kind": (b"a=\"b'\n", 3, "unterminated string", "same line"),
    "unterminated string in a list": (b"a=['b, 'c']\n", 9, "'c' after a string", "backslash"),
    "unterminated string at the end": (b"a='b", 3, "unterminated string", "same line"),
    "Python statement": (b"import os\n", 8, "'os'", "no Python is run"),
    "call": (b"f(1)\n", 2, "'('", "no Python is run"),
    "uppercase key": (b"Name='a'\n", 1, "uppercase key 'Name'", "lowercase"),
    "uppercase in a key": (b"nAme='a'\n", 2, "uppercase 'Ame' in a key", "lowercase"),
    "key with a digit first": (b"1a=1\n", 1, "key '1a' does not begin with a letter", "lowercase letter"),
    "dash in a key": (b"on-crash=1\n", 3, "'-' in a key", "letters, digits, _"),
    "key in quotes": (b"'a' = 1\n", 1, "key in quotes", "no quotes"),
    "section": (b"[disks]\n", 1, "'[disks]'", "no sections"),
    "colon": (b"a: 1\n", 2, "':'", "key = value"),
    "minus-equals": (b"a -= 1\n", 3, "'-='", "+= to add"),
    "key alone": (b"a\n", 2, "key without a value", "on one line"),
    "two =": (b"a == 1\n", 4, "second =", "one ="),
    "tuple": (b"a = (1, 2)\n", 5, "'('", "tuples are Python: use [ ]"),
    "tuple in a list": (b"a = [(1, 2)]\n", 6, "'('", "tuples are Python"),
    "dictionary": (b"a = {'b': 1}\n", 5, "'{'", "dictionaries are Python"),
    "True": (b"a = True\n", 5, "'True'", "strings need quotes, and true is 1"),
    "yes": (b"memory = yes # y\n", 10, "'yes'", "strings need quotes, and true is 1"),
    "False": (b"a = False;\n", 5, "'False'", "strings need quotes, and false is 0"),
    "None": (b"a = None\n", 5, "'None'", "leave the setting out"),
    "negative number": (b"a = -1\n", 5, "number with a sign: '-1'", "put it in quotes"),
    "decimal without a digit before it": (b"a = .5\n", 5, "'.5'", "numbers are whole"),
    "bare word": (b"a = internal\n", 5, "'internal' without quotes", "strings need quotes"),
    "bare path": (b"a = /var/lib/x\n", 5, "'/var/lib/x' without quotes", "strings need quotes"),
    "bare word in a list": (b"a = [hda]\n", 6, "'hda' without quotes", "strings need quotes"),
    "yes and more": (b"a = yes-x\n", 5, "'yes-x' without quotes", "strings need quotes"),
    "variable": (b"a = $HOME/x\n", 5, "'$HOME/x' without quotes", "strings need quotes"),
    "no value": (b"a =\n", 4, "no value", "on the line of its key"),
    "no value but a comment": (b"a = # b\n", 5, "no value", "on the line of its key"),
    "comma first": (b"a = [,1]\n", 6, "comma without an item", "one comma more"),
    "two commas": (b"a = [1,,2]\n", 8, "comma without an item", "one comma more"),
    "semicolon in a list": (b"a = [1;2]\n", 7, "';'", "commas separate"),
    "decimal": (b"a = 1.5\n", 6, "decimal point", "numbers are whole"),
    "uppercase hexadecimal": (b"a = 0x1F\n", 8, "uppercase digits 'F'", "lowercase"),
    "unit": (b"a = 1k\n", 6, "number followed by 'k'", "no unit"),
    "unit in uppercase": (b"memory = 1GB\n", 11, "number followed by 'GB'", "no unit"),
    "date": (b"a = 2014-07-10\n", 9, "number followed by '-07-10'", "put it in quotes"),
    "apostrophe": (b"a = 'it's'\n", 9, "'s' after a string", "backslash"),
    "missing comma": (b"a = ['b' 'c']\n", 10, "missing comma", "commas separate"),
    "missing comma before a list": (b"a = [[1] [2]]\n", 10, "missing comma", "commas separate"),
    "wrong bracket": (b"a = [1)\n", 7, "')'", "ends with ]"),
    "two strings": (b"a = 'b' 'c'\n", 9, "second string", "not joined"),
    "sum": (b"a = 'b' + 'c'\n", 9, "'+'", "no expressions"),
    "two settings": (b"a=1 b=2\n", 5, "second setting", "line of its own"),
    "list without brackets": (b"a = 1, 2\n", 6, "','", "use [ ]"),
    "bracket too many": (b"a = [1]]\n", 8, "']'", "no list is open"),
    "bracket alone": (b"]\n", 1, "']'", "no list is open"),
    "line continued": (b"a = 1 \\\n", 7, r"'\\", "does not continue"),
    "hexadecimal escape": (rb"a = '\x41'" + b"\n", 6, r"'\x'", "no hexadecimal escapes"),
    "octal escape": (rb"a = '\1'" + b"\n", 6, r"'\1'", "no octal escapes"),
    "unknown escape": (rb"a = 'C:\dir'" + b"\n", 8, r"'\d'", r"write \\"),
    "list added to a string": (b"a = 1; a += [1]\n", 8, "no list can be added", "set it with ="),
    "string added to a list": (b"a = [1]; a += 1\n", 10, "no string can be added", "+= [ … ]"),
    "unclosed list": (b"a = [1,\n", 5, "not closed", "end it with ]"),
    "nothing known": (b"a = @\n", 5, "unexpected '@': expected a value", None),
    "nothing known after a value": (b"a = 1 @\n", 7, "unexpected '@': expected the end of the line", None),
    "nothing known after a key": (b"a @ 1\n", 3, "unexpected '@': expected = after the key", None),
    "nothing known before a key": (b"@\n", 1, "unexpected '@': expected a setting", None),
    "nothing known in a list": (b"a = [@]\n", 6, "unexpected '@': expected a list item or ]", None),
    "nothing known after an item": (b"a = [1 @]\n", 8, "unexpected '@': expected a comma or ]", None),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_explained(mistake: str) -> None:
    text, column, message, hint = MISTAKES[mistake]
    error = errors(text)[0]
    assert (error.line, error.column) == (1, column)
    assert message in error.message
    assert (error.hint is None) == (hint is None)
    assert (hint or "") in (error.hint or "")


def test_every_cause_explains_some_mistake() -> None:
    said = {(error.message, error.hint) for text, *_ in MISTAKES.values() for error in errors(text)}
    silent = [
        cause.pattern.pattern
        for cause in CAUSES
        if not any(
            message.startswith(cause.message.partition("{}")[0]) and hint == cause.hint
            for message, hint in said
        )
    ]
    assert silent == []


def test_an_error_is_shown_with_its_line_and_a_caret() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config('name = "a"\nmemory = yes\n', filename="my.conf")
    assert str(caught.value) == (
        "my.conf:2:10: unexpected 'yes'\n"
        "    memory = yes\n"
        "             ^\n"
        "hint: strings need quotes, and true is 1"
    )


def test_all_errors_of_a_file_are_reported_in_order() -> None:
    text = b"Name='a'\nb=1\nc=yes\nd='\\z'\ne=1\ne+=[2]\n\nf=(1,\n2)\ng='\nh=1 2\n"
    assert places(text) == [(1, 1), (3, 3), (4, 4), (6, 1), (8, 3), (10, 3), (11, 5)]


def test_a_list_stays_open_after_an_error_in_it() -> None:
    text = b"disk = [ 'a'\n 'b',\n 'c',\n 'd' 'e', [1\n ], # ]\n 'f',\n yes\n , 'g'\n]\nname=x\n"
    assert places(text) == [(2, 2), (4, 6), (7, 2), (10, 6)]


def test_a_list_that_opens_after_an_error_is_open() -> None:
    assert places(b"Disk = [ 'a',\n 'b',\n c ]\nd=1\n") == [(1, 1), (3, 2)]


def test_a_tuple_of_many_lines_is_one_error() -> None:
    assert places(b"disk = ( 'a',\n 'b',\n {'c':\n 1} )\nd=x\n") == [(1, 8), (5, 3)]


def test_an_unclosed_list_ends_where_a_setting_begins() -> None:
    text = b"disk = [ 'a',\n  'b'\nname = \"c\"\nMemory = \"yes\"\n"
    assert places(text) == [(1, 8), (4, 1)]


def test_an_unclosed_list_is_not_reported_beside_an_error_in_it() -> None:
    assert places(b"disk = [ 'a 'b' ]\nname = 'c'\nd=x\n") == [(1, 14), (3, 3)]


def test_errors_in_lists_within_lists() -> None:
    assert places(b"a=[[1 2],\n[3;4],\n[[[[[[x,\n]]]]]],\n]\nb=x\n") == [(1, 7), (2, 3), (3, 7), (6, 3)]


def test_wrong_line_ends_are_reported_once_and_hide_nothing() -> None:
    assert places(b"a=1\r\nb=2\r\nC=3\r\nd=4\r\n") == [(1, 4), (3, 1)]


@pytest.mark.parametrize(
    "text",
    [b"[" * 100_000, b"a=" + b"[" * 100_000, b"a=" + b"[" * 100_000 + b"]" * 100_000 + b"\n"],
    ids=["no setting", "unclosed", "closed"],
)
def test_deep_nesting_is_an_error(text: bytes) -> None:
    assert "more than 100 deep" in errors(text)[0].message


def test_many_lists_are_not_deep_nesting() -> None:
    assert parse_config(b"a=[[1]]\n" * 200 + b"b=['[[[']\n" * 100) == {"a": [["1"]], "b": ["[[["]}
    assert places(b"a=[1,\nb=1\n" * 200) == [(line, 3) for line in range(1, 400, 2)]


def test_columns_count_characters() -> None:
    error = errors("a='é€😀'; B=1\n".encode())[0]
    assert error.column == 10
    shown = str(error).splitlines()
    assert shown[2] == "    " + " " * 10 + "^"  # the emoji is two columns wide


def test_a_combining_character_has_no_width() -> None:
    shown = str(errors("a='e\u0301'; B=1\n")[0]).splitlines()
    assert shown[2].index("^") == len("    a='e'; ")


def test_bytes_that_are_not_utf8_are_shown_as_such() -> None:
    error = errors(b"a='\xff\xfe'; B=1\n")[0]
    assert error.column == 9
    assert str(error).splitlines()[1:3] == [r"    a='\xff\xfe'; B=1", "                  ^"]


def test_control_characters_never_reach_the_terminal() -> None:
    hostile = "\x1b[2J\x07\u202e\u2028\x9b\ue000"
    error = errors(f"a='{hostile}'; B=1\n")[0]
    assert str(error).replace("\n", "").isprintable()
    for text in (f"a=1{hostile}\n", f"{hostile}=1\n", f"a=['\\{hostile}']\n"):
        with pytest.raises(ConfigError) as caught:
            parse_config(text, filename=f"x{hostile}")
        assert str(caught.value).replace("\n", "").isprintable()


def test_a_long_line_is_cut_around_the_caret() -> None:
    error = errors("a='" + "x" * 1_000_000 + "'; B=1; b='" + "y" * 1_000_000 + "'\n")[0]
    message, line, caret, _ = str(error).splitlines()
    assert message.startswith("<config>:1:1000007: ")
    assert len(line) < 120
    assert line.startswith("    …x")
    assert line.endswith("y…")
    assert line[caret.index("^")] == "B"


def test_a_surrogate_that_stands_for_no_byte_is_an_error() -> None:
    for parse in (parse_config, parse_snapshot_config, parse_disk):
        with pytest.raises(ConfigError, match=r"1:4: '.ud800' is not a character"):
            parse("a='\ud800'")


def test_nul_in_a_disk_specification_is_an_error() -> None:
    with pytest.raises(ConfigError, match="1:3: NUL byte"):
        parse_disk("/d\0,raw,hda")


def test_all_errors_of_a_disk_are_reported() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_disk("format=img,acces=ro,discard=1,backendtype=file,target=/d", filename="disk 1")
    assert [(error.column, error.hint) for error in caught.value.diagnostics] == [
        (8, "one of raw, qcow, qcow2, vhd, qed, empty"),
        (12, "did you mean access=?"),
        (21, "write discard alone"),
        (43, "one of phy, tap, qdisk, standalone"),
    ]
    assert str(caught.value).startswith("disk 1:1:8: unknown format 'img'\n    format=img,acces")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("target=/d", "no vdev"),
        ("vdev=hda", "no target"),
        ("hda=/d", "unknown parameter 'hda'"),
        ("Vdev=hda,target=/d", "unknown parameter 'Vdev'"),
        ("nfs:/d,hda", "unknown prefix 'nfs:'"),
        ("/d,raw,hda,r,x", "too many parameters: 'x'"),
        ("vdev=hda,vdev=hdb,target=/d", "vdev is given twice"),
        ("format=raw,format=qcow2,vdev=hda,target=/d", "format is raw already"),
        ("colo-port=x,vdev=hda,target=/d", "colo-port 'x' is not a number"),
    ],
)
def test_a_wrong_disk_is_explained(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_disk(spec)


def well_formed(error: ConfigError, text: str) -> bool:
    lines = text.split("\n")
    diagnostics = error.diagnostics
    return bool(diagnostics) and all(
        lines[each.line - 1] == each.source_line
        and 1 <= each.column <= len(each.source_line) + 1
        and str(each).replace("\n", "").isprintable()
        for each in diagnostics
    )


@examples
@given(st.one_of(near_configs, heaped_configs, st.binary(max_size=40)))
def test_any_error_has_a_place_in_the_text(text: bytes) -> None:
    for parse in (parse_config, parse_snapshot_config):
        try:
            parse(text)
        except ConfigError as error:
            assert well_formed(error, text.decode("utf-8", "surrogateescape"))  # noqa: PT017


@examples
@given(st.one_of(heaped_disks, st.text(max_size=40)))
def test_any_disk_error_has_a_place_in_the_text(spec: str) -> None:
    try:
        parse_disk(spec)
    except ConfigError as error:
        assert well_formed(error, spec)  # noqa: PT017


_LINES = (
    "a=1",
    "b='x'",
    "c=[1,2]",
    "d=x",
    "E=1",
    "f=1 2",
    "g='",
    "h=[1;2]",
    "i=-1",
    "j=[1 2]",
    "# k",
    "",
    "l",
    "m='\\z'",
)


@examples
@given(st.lists(st.sampled_from(_LINES), max_size=8))
def test_error_lines_are_those_of_libxlu(oracle: Oracle, lines: list[str]) -> None:
    """libxlu keeps quiet about errors soon after another one; we report all, and it reports no others."""
    text = "".join(f"{line}\n" for line in lines).encode()
    theirs = oracle.config(text)
    if theirs.accepted:
        return
    ours = {error.line for error in errors(text)}
    wrong = {
        number
        for number, line in enumerate(lines, start=1)
        if not oracle.config(f"{line}\n".encode()).accepted
    }
    assert ours == wrong
    assert set(theirs.lines) <= wrong
