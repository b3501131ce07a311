# SPDX-License-Identifier: LGPL-2.1-or-later
"""Our parsers and the real libxlu 4.17 must agree on every fact of the tables, and differ where we say so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libxlu_cases import CONFIGS, DISKS
from libxlu_oracle import (
    ABORT,
    JAM,
    Oracle,
    as_libxlu,
    config_difference,
    disk_difference,
    our_config,
    our_disk,
)
from libxlu_strategies import (
    edited_configs,
    edited_disks,
    examples,
    heaped_configs,
    heaped_disks,
    near_configs,
    near_disks,
    valid_configs,
    valid_disks,
)
from xlsnap_grammars import DEVIATIONS, ConfigError, Deviation, parse_config


@pytest.mark.parametrize("fact", CONFIGS)
def test_config(fact: str) -> None:
    text, expected = CONFIGS[fact]
    assert our_config(text) == expected


@pytest.mark.parametrize("fact", CONFIGS)
def test_config_is_true_of_libxlu(fact: str, oracle: Oracle) -> None:
    text, expected = CONFIGS[fact]
    assert oracle.config(text).value == expected


@pytest.mark.parametrize("fact", DISKS)
def test_disk(fact: str) -> None:
    spec, expected = DISKS[fact]
    assert our_disk(spec) == expected


@pytest.mark.parametrize("fact", DISKS)
def test_disk_is_true_of_libxlu(fact: str, oracle: Oracle) -> None:
    spec, expected = DISKS[fact]
    verdict = oracle.disk(spec.encode("utf-8", "surrogateescape"))
    assert verdict.value == (None if expected is None else as_libxlu(expected))


@examples
@given(st.one_of(valid_configs, near_configs, heaped_configs))
def test_generated_configs(oracle: Oracle, text: bytes) -> None:
    assert config_difference(oracle, text) is None


@examples
@given(st.one_of(valid_disks, near_disks, heaped_disks))
def test_generated_disks(oracle: Oracle, spec: str) -> None:
    assert disk_difference(oracle, spec) is None


@examples
@given(edited_configs([text for text, _ in CONFIGS.values()]))
def test_edited_facts_of_configs(oracle: Oracle, text: bytes) -> None:
    assert config_difference(oracle, text) is None


@examples
@given(edited_disks([spec for spec, _ in DISKS.values()]))
def test_edited_facts_of_disks(oracle: Oracle, spec: str) -> None:
    assert disk_difference(oracle, spec) is None


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=lambda deviation: deviation.id)
def test_libxlu_differs_where_we_say_so(deviation: Deviation, oracle: Oracle) -> None:
    assert_deviates = {
        "last-byte": _drops_the_last_byte,
        "nul-in-string": _aborts,
        "nesting": _accepts_what_we_reject,
        "line-of-a-line-end": _reports_another_line,
        "last-equals-sign": _drops_the_last_equals_sign,
        "line-end-after-equals-sign": _jams,
        "format-left-out": _takes_raw,
    }[deviation.id]
    assert_deviates(oracle, deviation.example)


def _accepts_what_we_reject(oracle: Oracle, text: bytes) -> None:
    assert oracle.config(text).accepted
    assert our_config(text) is None


def _drops_the_last_byte(oracle: Oracle, text: bytes) -> None:
    _accepts_what_we_reject(oracle, text)
    assert oracle.config(text).value == our_config(text[:-1])


def _aborts(oracle: Oracle, text: bytes) -> None:
    assert oracle.config(text).died == ABORT
    assert our_config(text) is None


def _reports_another_line(oracle: Oracle, text: bytes) -> None:
    assert "config:1: config parsing error near <newline>" in oracle.config(text).report
    with pytest.raises(ConfigError, match=r"^<config>:2:5: "):
        parse_config(text)


def _drops_the_last_equals_sign(oracle: Oracle, spec: bytes) -> None:
    without = our_disk(spec[:-1].decode())
    assert without is not None
    assert oracle.disk(spec).value == as_libxlu(without)
    assert our_disk(spec.decode()) is None


def _jams(oracle: Oracle, spec: bytes) -> None:
    assert oracle.disk(spec).died == JAM
    assert our_disk(spec.decode()) is None


def _takes_raw(oracle: Oracle, text: bytes) -> None:
    ours = our_disk(text.decode())
    assert ours is not None
    assert (oracle.disk(text).value["format"], ours.format) == ("raw", "unknown")
