# SPDX-License-Identifier: LGPL-2.1-or-later
"""The rules for names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xlsnap.errors import BadNameError
from xlsnap.names import check_name, default_name, name_problem


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "1",
        "internal snapshot 20140710",
        "ü" * 100,
        "a" * 200,
        ".hidden",
        "...",
        "a-b",
        "x.libxl-json",
        "%s",
        "*",
        "'",
        "snapshotdata-d.x",
        "日本",
    ],
)
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty"),
        (".", "directory"),
        ("..", "directory"),
        ("a/b", "'/'"),
        ("/", "'/'"),
        ("../../etc/passwd", "'/'"),
        ("-n", "starts with '-'"),
        ("a\0b", "control"),
        ("a\nb", "control"),
        ("\x1b[31m", "control"),
        ("a\x7f", "control"),
        ("a\x85", "control"),
        ("a" * 201, "201 bytes"),
        ("ü" * 101, "202 bytes"),
        ("\udc80", "UTF-8"),
    ],
)
def test_bad_names_and_their_reasons(name: str, reason: str) -> None:
    with pytest.raises(BadNameError, match=r"bad snapshot name") as caught:
        check_name(name)
    assert reason in caught.value.message
    assert caught.value.exit_code == 2
    assert caught.value.message.isprintable()
    assert caught.value.message.isascii()


@given(st.text())
def test_a_good_name_is_one_path_component(name: str) -> None:
    if name_problem(name) is None:
        assert "/" not in name
        assert name not in {"", ".", ".."}
        assert 1 <= len(name.encode()) <= 200


def test_default_name_is_the_time_or_the_next_free_integer() -> None:
    assert default_name([], 1000) == "1000"
    assert default_name(["1000", "1001", "1003", "x"], 1000) == "1002"
