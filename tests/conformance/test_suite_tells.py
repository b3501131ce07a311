# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every test of the suite says what it has seen: one that cannot may have seen nothing."""

import ast
from pathlib import Path

import pytest
from xlsnap_conformance import suite

TESTS = [
    pytest.param(function, id=f"{path.name}::{function.name}")
    for path in sorted(Path(suite.__file__).parent.glob("test_*.py"))
    for function in ast.parse(path.read_text(encoding="utf-8")).body
    if isinstance(function, ast.FunctionDef) and function.name.startswith("test_")
]


@pytest.mark.parametrize("function", TESTS)
def test_it_tells_what_it_has_seen(function: ast.FunctionDef) -> None:
    """By the fixture `tell`, or by playing a trace, which tells."""
    arguments = {argument.arg for argument in function.args.args}
    calls = {
        node.func.id
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert {"tell", "play"} & arguments & calls
