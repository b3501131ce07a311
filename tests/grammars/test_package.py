# SPDX-License-Identifier: LGPL-2.1-or-later
"""The package as its users meet it."""

import subprocess
import sys

import xlsnap_grammars
from hypothesis import given
from libxlu_strategies import examples, near_configs, valid_configs
from xlsnap_grammars import ConfigError, parse_config


def test_importing_does_not_import_lark() -> None:
    code = "import sys, xlsnap_grammars; sys.exit('lark' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_all_that_is_public_has_a_docstring() -> None:
    public = [getattr(xlsnap_grammars, name) for name in xlsnap_grammars.__all__ if name != "DEVIATIONS"]
    assert all(each.__doc__ for each in public)


def test_deviations_have_an_id_each() -> None:
    ids = [deviation.id for deviation in xlsnap_grammars.DEVIATIONS]
    assert len(set(ids)) == len(ids) > 0


@examples
@given(valid_configs | near_configs)
def test_text_and_its_bytes_are_the_same(text: bytes) -> None:
    def result(source: str | bytes) -> object:
        try:
            return parse_config(source)
        except ConfigError as error:
            return str(error)

    assert result(text) == result(text.decode("utf-8", "surrogateescape"))


def test_values_are_plain_text_and_lists() -> None:
    values = parse_config("a=1; b='x'; c=['y', [2]]")
    assert [type(values[key]) for key in "abc"] == [str, str, list]
    assert [type(item) for item in values["c"]] == [str, list]
    assert {type(key) for key in values} == {str}


def test_results_are_not_shared() -> None:
    first, second = parse_config("a=[[1]]"), parse_config("a=[[1]]")
    assert isinstance(first["a"], list)
    first["a"][0].append("2")
    assert second == {"a": [["1"]]}
