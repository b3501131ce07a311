# SPDX-License-Identifier: LGPL-2.1-or-later
"""The driver protocol and the published schemas."""

import json
from typing import Any

import msgspec
import pytest
from xlsnap_conformance import protocol, schemas


@pytest.mark.parametrize("name", schemas.FILES)
def test_published_schema_is_that_of_the_types(name: str) -> None:
    published = (schemas.DIRECTORY / name).read_text()
    assert published == schemas.text(schemas.FILES[name]()), (
        "run python -m xlsnap_conformance.schemas and commit what it wrote"
    )


@pytest.mark.parametrize("name", schemas.FILES)
def test_references_of_a_schema_lead_somewhere(name: str) -> None:
    schema = schemas.FILES[name]()
    wanted = {value.removeprefix("#/$defs/") for value in _references(schema)}
    assert wanted
    assert wanted <= schema["$defs"].keys()


def _references(value: Any) -> set[str]:
    if isinstance(value, dict):
        found = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return found.union(*(_references(item) for item in value.values()))
    if isinstance(value, list):
        return set[str]().union(*(_references(item) for item in value))
    return set()


def test_every_verb_is_in_the_schema_with_its_arguments() -> None:
    requests = schemas.driver_protocol()["$defs"]["Request"]["oneOf"]
    assert [request["title"] for request in requests] == list(protocol.VERBS)
    for request in requests:
        arguments = protocol.VERBS[request["title"]].arguments
        assert request["properties"]["args"]["$ref"] == f"#/$defs/{arguments.__name__}"


def test_every_verb_has_types_of_its_own_and_a_limit() -> None:
    assert len(protocol.VERB_OF) == len(protocol.VERBS)
    assert all(verb.seconds > 0 for verb in protocol.VERBS.values())
    assert {verb.capability for verb in protocol.VERBS.values()} - {None} <= set(protocol.CAPABILITIES)


def test_a_request_leaves_out_what_is_not_said() -> None:
    request = protocol.SnapshotCreate(domain="d", name="n")
    assert json.loads(msgspec.json.encode(request)) == {"domain": "d", "name": "n"}


def test_results_may_have_members_that_are_not_known_yet() -> None:
    text = b'{"protocol": 1, "implementation": "x", "version": "1", "colour": "red"}'
    hello = msgspec.json.decode(text, type=protocol.HelloResult)
    assert hello.capabilities == ()


def test_results_must_have_what_is_asked_for() -> None:
    with pytest.raises(msgspec.ValidationError, match="state"):
        msgspec.json.decode(b"{}", type=protocol.DomainStateResult)
