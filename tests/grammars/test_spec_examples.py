# SPDX-License-Identifier: LGPL-2.1-or-later
"""The examples of xl.snapshot.conf in the specification are accepted or rejected as it says."""

import re
from pathlib import Path

import pytest
from xlsnap_grammars import ConfigError, parse_snapshot_config

CHAPTERS = Path(__file__).parents[2] / "spec"
EXAMPLE = re.compile(r"^```xl\.snapshot\.conf (accepted|rejected)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXAMPLES = [
    pytest.param(found[1], found[2], id=f"{path.stem}:{text.count(chr(10), 0, found.start()) + 1}")
    for path in sorted(CHAPTERS.glob("*.md"))
    for text in [path.read_text(encoding="utf-8")]
    for found in EXAMPLE.finditer(text)
]


def test_there_are_examples_of_both_kinds() -> None:
    assert {example.values[0] for example in EXAMPLES} == {"accepted", "rejected"}


@pytest.mark.parametrize(("verdict", "text"), EXAMPLES)
def test_example(verdict: str, text: str) -> None:
    if verdict == "accepted":
        parse_snapshot_config(text)
    else:
        with pytest.raises(ConfigError):
            parse_snapshot_config(text)
