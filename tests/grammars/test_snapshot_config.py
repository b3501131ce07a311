# SPDX-License-Identifier: LGPL-2.1-or-later
"""xl.snapshot.conf: what it means, what is refused, and what is only warned of."""

import pytest
from hypothesis import given
from libxlu_oracle import our_config
from libxlu_strategies import examples, heaped_configs, heaped_disks, near_configs, valid_disks
from xlsnap_grammars import (
    ConfigError,
    Diagnostic,
    SnapshotConfig,
    SnapshotDisk,
    parse_config,
    parse_disk,
    parse_snapshot_config,
)

INTERNAL = """\
# before the upgrade
name = "internal snapshot 20140710"
description = "d"
memory="yes"
disk=['vdev=hda,target=null','vdev=hdc,target=null']
"""
EXTERNAL = """\
name="external"
memory="/var/lib/save/m"
type="external"
disk=['format=qcow2,vdev=hda,target=/s/hda.qcow2', 'vdev=hdb,target=/s/b,c.qcow2', 'vdev=xvda']
"""


def errors(text: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_snapshot_config(text)
    return caught.value.diagnostics


def only_error(text: str) -> Diagnostic:
    (error,) = errors(text)
    return error


def disks(*specs: str, type: str | None = None) -> tuple[SnapshotDisk, ...] | None:
    lines = [f"disk = [{', '.join(map(repr, specs))}]", *([f"type = {type!r}"] if type else [])]
    return parse_snapshot_config("\n".join(lines)).disks


def test_an_internal_snapshot() -> None:
    assert parse_snapshot_config(INTERNAL) == SnapshotConfig(
        name="internal snapshot 20140710",
        description="d",
        memory="yes",
        disks=(SnapshotDisk("hda", "internal"), SnapshotDisk("hdc", "internal")),
    )


def test_an_external_snapshot() -> None:
    assert parse_snapshot_config(EXTERNAL.encode()) == SnapshotConfig(
        name="external",
        memory="/var/lib/save/m",
        type="external",
        disks=(
            SnapshotDisk("hda", "external", "/s/hda.qcow2", "qcow2"),
            SnapshotDisk("hdb", "external", "/s/b,c.qcow2", "qcow2"),
            SnapshotDisk("xvda", "external", None, "qcow2"),
        ),
    )


def test_an_empty_file_asks_for_nothing() -> None:
    assert parse_snapshot_config("") == SnapshotConfig()


def test_the_later_of_two_settings_counts_and_a_warning_says_so() -> None:
    config = parse_snapshot_config("name='a'\nname='b'\n")
    assert config.name == "b"
    (warning,) = config.warnings
    assert (warning.line, warning.message) == (2, "'name' is set again")


def test_additions_count() -> None:
    config = parse_snapshot_config("name='a'; name+='b'\ndisk=['vdev=hda']; disk+=['vdev=hdb']\n")
    assert (config.name, config.warnings) == ("ab", ())
    assert config.disks == (SnapshotDisk("hda", "internal"), SnapshotDisk("hdb", "internal"))


def test_a_number_is_a_name_too() -> None:
    assert parse_snapshot_config("name = 1403510400").name == "1403510400"


@pytest.mark.parametrize("memory", ["yes", "no", "/m", "/with space/é"])
def test_memory(memory: str) -> None:
    assert parse_snapshot_config(f'memory = "{memory}"').memory == memory


@pytest.mark.parametrize("memory", ["'YES'", "'true'", "1", "0", "''", "'m'", "'./m'", "'yes '"])
def test_other_memory_is_an_error(memory: str) -> None:
    error = only_error(f"memory = {memory}\n")
    assert (error.line, error.column) == (1, 10)
    assert error.message.startswith("memory cannot be '")
    assert error.hint == '"yes", an absolute path for the memory image, or "no"'


@pytest.mark.parametrize("kind", ["internal", "external"])
def test_type(kind: str) -> None:
    assert parse_snapshot_config(f"type = '{kind}'").type == kind


@pytest.mark.parametrize("kind", ["any", "Internal", ""])
def test_another_type_is_an_error(kind: str) -> None:
    error = only_error(f"type = '{kind}'")
    assert (error.column, error.message) == (8, f"type cannot be '{kind}'")


@pytest.mark.parametrize(("text", "live"), [("", None), ("live = 1\n", True), ("live = '0'\n", False)])
def test_live(text: str, live: bool | None) -> None:
    assert parse_snapshot_config(f"memory = 'yes'\n{text}").live is live


@pytest.mark.parametrize("live", ["2", "'yes'", "'true'", "''", "01", "0x1"])
def test_live_is_0_or_1(live: str) -> None:
    error = only_error(f"memory = '/m'\nlive = {live}\n")
    assert (error.line, error.column) == (2, 8)
    assert error.message.startswith("live cannot be '")


@pytest.mark.parametrize("memory", ["", "memory = 'no'\n"])
def test_a_live_snapshot_needs_memory(memory: str) -> None:
    error = only_error(f"live = 1\n{memory}")
    assert (error.line, error.column, error.message) == (1, 8, "a live snapshot needs memory")
    assert parse_snapshot_config(f"live = 0\n{memory}").live is False


def test_memory_that_is_wrong_is_not_memory_that_is_missing() -> None:
    assert only_error("live = 1\nmemory = 'maybe'\n").message == "memory cannot be 'maybe'"


@pytest.mark.parametrize("key", ["name", "description", "memory", "type", "live"])
def test_a_list_in_place_of_text_is_an_error(key: str) -> None:
    error = only_error(f"# \n {key} = ['yes']\n")
    assert (error.line, error.column) == (2, 2)
    assert error.message == f"{key} is a list where text is expected"


def test_text_in_place_of_the_disks_is_an_error() -> None:
    error = only_error("disk = 'vdev=hda'\n")
    assert (error.column, error.hint) == (8, "write disk = [ '…' ]")


def test_no_disks_at_all_is_an_error() -> None:
    assert only_error("disk = []\n").hint == "leave disk out to snapshot all writable disks"


def test_a_list_in_place_of_a_disk_is_an_error() -> None:
    error = only_error("disk = ['vdev=hda', ['vdev=hdb']]\n")
    assert (error.column, error.hint) == (22, "write one string for each disk")
    assert only_error("disk = [[[]]]").message == error.message


@pytest.mark.parametrize(
    ("spec", "file_type", "expected"),
    [
        ("vdev=hda", None, SnapshotDisk("hda", "internal")),
        ("vdev=hda", "internal", SnapshotDisk("hda", "internal")),
        ("vdev=hda", "external", SnapshotDisk("hda", "external", None, "qcow2")),
        ("vdev=hda,format=qcow2", "external", SnapshotDisk("hda", "external", None, "qcow2")),
        ("vdev=hda,target=null", None, SnapshotDisk("hda", "internal")),
        ("vdev=hda,target=null", "external", SnapshotDisk("hda", "internal")),
        ("vdev=hda,target=/n", None, SnapshotDisk("hda", "external", "/n", "qcow2")),
        ("vdev=hda,target=/n", "internal", SnapshotDisk("hda", "external", "/n", "qcow2")),
        ("/n,qcow2,hda", None, SnapshotDisk("hda", "external", "/n", "qcow2")),
        ("/n,,hda", None, SnapshotDisk("hda", "external", "/n", "qcow2")),
        (",,hda", None, SnapshotDisk("hda", "internal")),
        ("vdev=hda,target=", None, SnapshotDisk("hda", "internal")),
        ("format=qcow2,vdev=hda,target=null", None, SnapshotDisk("hda", "internal")),
    ],
)
def test_what_a_disk_asks_for(spec: str, file_type: str | None, expected: SnapshotDisk) -> None:
    assert disks(spec, type=file_type) == (expected,)


@pytest.mark.parametrize(
    ("spec", "column", "message"),
    [
        ("vdev=hda,format=raw,target=/n", 17, "format 'raw' cannot hold a snapshot"),
        ("/n,vhd,hda", 4, "format 'vhd' cannot hold a snapshot"),
        ("vdev=hda,target=n", 17, "target 'n' is not an absolute path"),
        ("vdev=hda,target=NULL", 17, "target 'NULL' is not an absolute path"),
        ("target=/n", 1, "no vdev"),
        ("vdev=,target=/n", 6, "no vdev"),
        ("vdev=hda,access=ro,target=/n", 17, "'ro' has no meaning in a snapshot"),
        ("vdev=hdc,cdrom", 10, "'cdrom' has no meaning in a snapshot"),
        ("vdev=hda,backendtype=qdisk,target=/n", 22, "'qdisk' has no meaning in a snapshot"),
        ("file:/n,hda", 1, "'file' has no meaning in a snapshot"),
        ("vdev=hda,target=/n,format=qcow2,type=qcow2", None, None),  # target takes the rest
        ("hda=/n", 1, "unknown parameter 'hda'"),
        ("vdev=hda,fromat=qcow2,target=/n", 10, "unknown parameter 'fromat'"),
    ],
)
def test_a_wrong_disk_is_reported_at_its_own_place(
    spec: str, column: int | None, message: str | None
) -> None:
    text = f"disk = [ 'vdev=hdz',\n    '{spec}' ]\n"
    if column is None:
        assert parse_snapshot_config(text).disks
        return
    error = only_error(text)
    assert (error.line, error.column, error.message) == (2, 5 + column, message)
    assert error.source_line == f"    '{spec}' ]"


def test_the_caret_takes_escapes_into_account() -> None:
    error = only_error(r"disk = [ 'vdev=h\"\012\"a,format=x' ]")
    assert error.source_line[error.column - 1 :].startswith("x'")


def test_a_disk_given_twice_is_an_error() -> None:
    error = only_error("disk = [ 'vdev=hda', 'vdev=hda,target=/n' ]\n")
    assert (error.column, error.message) == (22, "disk 'hda' is given twice")


def test_all_errors_of_all_kinds_are_reported_in_order() -> None:
    text = (
        "name = [1]\nType = 'x'\ntype = 'x'\ndisk = [ 'x=1', 'vdev=hda,format=y' ]\nmemory = yes\na = '\\z'\n"
    )
    assert [(each.line, each.column) for each in errors(text)] == [
        (1, 1), (2, 1), (3, 8), (4, 11), (4, 34), (5, 10), (6, 6),
    ]  # fmt: skip


def test_the_howto_example_that_xl_itself_cannot_read_is_an_error() -> None:
    first, *_ = errors("disk=['hda=/x.qcow2,type=qcow2,\\\n hdc=/y.qcow2,type=qcow2']\n")
    assert first.message == "line end in a string"


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("nmae", "did you mean name?"),
        ("disks", "did you mean disk?"),
        ("desription", "did you mean description?"),
        ("vcpus", "the keys are name, description, memory, type, live, disk"),
    ],
)
def test_an_unknown_key_is_warned_of(key: str, hint: str) -> None:
    config = parse_snapshot_config(f"name = 'a'\n{key} = 1\n", filename="f")
    (warning,) = config.warnings
    assert (warning.filename, warning.line, warning.hint) == ("f", 2, hint)
    assert warning.message == f"unknown key '{key}' is ignored"


def test_a_creation_time_is_warned_of() -> None:
    (warning,) = parse_snapshot_config("creationtime = 1403510400\n").warnings
    assert "always the time of the creation" in warning.message


def test_bytes_are_kept() -> None:
    config = parse_snapshot_config(b"name = '\xff\xc3\xa9'\ndisk=['vdev=hda,target=/\xfe']")
    assert config.name == "\udcffé"
    assert config.disks is not None
    assert config.disks[0].target == "/\udcfe"


def test_every_xl_snapshot_conf_is_a_file_in_the_xl_configuration_language() -> None:
    for text in (INTERNAL, EXTERNAL):
        assert parse_config(text)["name"] == parse_snapshot_config(text).name


def test_wrong_escapes_count_where_nothing_else_is_read() -> None:
    text = "unknown = ['\\z']\ndisk = ['\\y']\ndisk = ['vdev=hda']\ncreationtime = '\\x'\n"
    assert [(each.line, each.message) for each in errors(text)] == [
        (1, "unknown escape '\\z' in a string"),
        (2, "unknown escape '\\y' in a string"),
        (4, "unknown escape '\\x' in a string"),
    ]


@examples
@given(near_configs | heaped_configs)
def test_what_the_language_rejects_is_no_snapshot_config(text: bytes) -> None:
    if our_config(text) is None:
        with pytest.raises(ConfigError):
            parse_snapshot_config(text)


def in_quotes(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


@examples
@given(heaped_disks | valid_disks)
def test_a_wrong_disk_specification_is_a_wrong_snapshot_config(spec: str) -> None:
    text = f"disk = [ {in_quotes(spec)} ]"
    assert parse_config(text) == {"disk": [spec]}
    try:
        parse_disk(spec)
    except ConfigError as error:
        if [each.message for each in error.diagnostics] != ["no target"]:
            assert errors(text)[0].source_line == text
