# SPDX-License-Identifier: LGPL-2.1-or-later
"""The published JSON schemas, made from the types so that they cannot disagree with the code.

``python -m xlsnap_conformance.schemas`` writes them anew; a test compares.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from .. import protocol
from ..links import Specification
from ..mutation.matrix import Matrix
from ..trace import Trace

DIRECTORY = Path(__file__).parent

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def driver_protocol() -> dict[str, Any]:
    """Return the schema of the driver protocol: any line of it, in either direction."""
    verbs = protocol.VERBS
    results = dict.fromkeys(verb.result for verb in verbs.values())
    definitions = _definitions([*(verb.arguments for verb in verbs.values()), *results, protocol.Refusal])
    for verb in verbs.values():
        definitions[verb.arguments.__name__]["additionalProperties"] = False
    return {
        "$schema": _DIALECT,
        "title": f"xlsnap driver protocol {protocol.PROTOCOL}",
        "description": "One request a line to the driver, one reply a line back, with the request's id.",
        "oneOf": [_reference("Request"), _reference("Reply")],
        "$defs": {
            "Request": {"oneOf": [_request(name, verb) for name, verb in verbs.items()]},
            "Reply": {"anyOf": [*(_reply(True, "result", kind) for kind in results), _REFUSAL]},
            **definitions,
        },
    }


def trace() -> dict[str, Any]:
    """Return the schema of trace files."""
    return {
        "$schema": _DIALECT,
        "title": "xlsnap trace",
        **_reference("Trace"),
        "$defs": _definitions([Trace]),
    }


def specification() -> dict[str, Any]:
    """Return the schema of what ``spec --json`` prints."""
    return {
        "$schema": _DIALECT,
        "title": "xlsnap specification with its tests and mutants",
        **_reference("Specification"),
        "$defs": _definitions([Specification]),
    }


def mutants() -> dict[str, Any]:
    """Return the schema of the kill matrix of ``mutants --report``."""
    return {
        "$schema": _DIALECT,
        "title": "Kill matrix of the xlsnap conformance suite",
        **_reference("Matrix"),
        "$defs": _definitions([Matrix]),
    }


FILES: dict[str, Callable[[], dict[str, Any]]] = {
    "driver-protocol.schema.json": driver_protocol,
    "trace.schema.json": trace,
    "specification.schema.json": specification,
    "mutants.schema.json": mutants,
}
"""File name to the function that makes the schema."""


def text(schema: dict[str, Any]) -> str:
    """Return a schema as it is published."""
    return json.dumps(schema, indent=2) + "\n"


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _definitions(types: Sequence[type]) -> dict[str, Any]:
    _, found = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    for definition in found.values():
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
    return dict(sorted(found.items()))


def _request(name: str, verb: protocol.Verb) -> dict[str, Any]:
    properties = {
        "id": {"type": "integer", "minimum": 1},
        "verb": {"const": name},
        "args": _reference(verb.arguments.__name__),
    }
    return {
        "title": name,
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _reply(ok: bool, member: str, kind: type) -> dict[str, Any]:
    properties = {"id": {"type": "integer"}, "ok": {"const": ok}, member: _reference(kind.__name__)}
    return {"type": "object", "properties": properties, "required": list(properties)}


_REFUSAL = _reply(False, "error", protocol.Refusal)
