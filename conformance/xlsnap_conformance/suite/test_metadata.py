# SPDX-License-Identifier: LGPL-2.1-or-later
"""Metadata files. Every scenario looks at them; the first tests are for those who test nothing else.

The others are about files that another toolstack has written, or that somebody has damaged.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xlsnap_conformance import protocol as p
from xlsnap_conformance import trace as do
from xlsnap_conformance.coverage import metadata_clauses
from xlsnap_conformance.failures import ConformanceFailure, HarnessError, ImplementationError
from xlsnap_conformance.oracles import metadata
from xlsnap_conformance.scenario import Scenario

from .conftest import Need, Play, Tell
from .test_scenarios import TRACES


@pytest.mark.parametrize(
    "name", ["paused-domain", "some-disks", "memory-path", "descriptions", "delete-all", "deep-tree"]
)
@pytest.mark.clauses(*metadata_clauses())
def test_metadata(name: str, play: Play, need: Need) -> None:
    need("metadata-files")
    play(TRACES[name])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("external", marks=pytest.mark.clauses(*metadata_clauses("external"))),
        pytest.param("external-default-target", marks=pytest.mark.clauses(*metadata_clauses("external"))),
        pytest.param("mixed", marks=pytest.mark.clauses(*metadata_clauses("mixed"))),
    ],
)
def test_metadata_of_external_disks(name: str, play: Play, need: Need) -> None:
    need("metadata-files")
    play(TRACES[name])


# --- files by other hands -----------------------------------------------------------------------------------

KNOWN = {
    *("name", "description", "creation_time", "memory", "type", "disks"),
    *("running", "blocked", "paused", "shutdown", "dying"),
}
KNOWN_OF_DISKS = {"device", "name", "file", "format", "path", "type"}


@pytest.fixture
def kept(scenario: Scenario, need: Need) -> Scenario:
    """A domain whose snapshots `one` and `two` have metadata files; what its variable was says their name."""
    for capability in ("metadata-files", "memory", "revert", "delete"):
        need(capability)
    for name in ("one", "two"):
        scenario.play(do.Set(key="a", value=name))
        scenario.play(do.Create(name=name))
    return scenario


def file_of(scenario: Scenario, name: str) -> Path:
    """Return the metadata file of a snapshot."""
    return scenario.domain.metadata_directory() / f"{metadata.PREFIX}{name}{metadata.SUFFIX}"


def read(path: Path, clause: str) -> dict[str, Any]:
    """Return the content of a metadata file."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConformanceFailure(
            (clause,), "a metadata file is not there or not JSON", expected=path.name, observed=str(error)
        ) from error
    if not isinstance(value, dict):
        raise ConformanceFailure(
            (clause,), "a metadata file is no JSON object", observed=type(value).__name__
        )
    return value


def rewrite(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]], clause: str) -> None:
    """Change a metadata file as another toolstack would: written anew, and renamed."""
    new = path.with_name("new-by-another-hand")
    new.write_text(json.dumps(change(read(path, clause))))
    new.chmod(0o600)
    new.rename(path)


def went_back(scenario: Scenario, name: str, clause: str) -> None:
    """Revert to a snapshot, and look at the guest."""
    domain = scenario.domain
    scenario.accepts(p.SnapshotRevert(domain=domain.name, name=name), (clause, "XLS-REVERT-011"))
    domain.reconnect()
    observed = domain.guest().get("a")
    if observed != name:
        summary = f"the revert to {name!r} has led elsewhere"
        raise ConformanceFailure((clause, "XLS-REVERT-003"), summary, expected=name, observed=observed)


@pytest.mark.clauses("XLS-META-009")
def test_unknown_keys_are_kept(kept: Scenario, tell: Tell) -> None:
    """Another toolstack has added them; then the snapshot's parent is deleted, and it is reverted to."""
    clause, path = "XLS-META-009", file_of(kept, "two")
    more = {"othertool_note": {"a": [1, 2.5, None, "ü"]}, "othertool_flag": True}

    def add(value: dict[str, Any]) -> dict[str, Any]:
        disks = [{**disk, "othertool_disk": "kept"} for disk in value["disks"]]
        return {**value, **more, "disks": disks}

    rewrite(path, add, clause)
    before = path.stat().st_ino
    kept.accepts(p.SnapshotDelete(domain=kept.domain.name, name="one"), (clause,))
    went_back(kept, "two", clause)
    value = read(path, clause)
    found = {key: value.get(key) for key in more}
    disks = [disk.get("othertool_disk") for disk in value["disks"]]
    if found != more or disks != ["kept"]:
        summary = "keys that the toolstack does not know are lost"
        raise ConformanceFailure((clause,), summary, expected=more, observed={**found, "disks": disks})
    written = "was written again" if path.stat().st_ino != before else "was not written again"
    tell(f"the file {written} and has the keys of another toolstack")


@pytest.mark.clauses("XLS-META-011")
def test_damaged_file_hides_nothing_else(kept: Scenario, tell: Tell) -> None:
    clause, path = "XLS-META-011", file_of(kept, "two")
    whole = path.read_bytes()
    path.write_bytes(b'{"name": "tw')
    told = []
    requests: tuple[p.Request[Any], ...] = (
        p.SnapshotRevert(domain=kept.domain.name, name="two"),
        p.SnapshotList(domain=kept.domain.name),
    )
    for request in requests:
        try:
            result: Any = kept.subject.call(request)
        except ImplementationError as error:
            told.append(str(error))
            continue
        if isinstance(request, p.SnapshotRevert):
            summary = "a snapshot whose metadata cannot be understood was reverted to"
            raise ConformanceFailure((clause, "XLS-REVERT-002"), summary, expected="refused", observed="done")
        if "one" not in {snapshot.name for snapshot in result.snapshots}:
            summary = "a damaged metadata file hides another snapshot"
            raise ConformanceFailure((clause,), summary, expected="one", observed=str(result))
    if not any(path.name in text for text in told):
        raise ConformanceFailure((clause,), "no error names the file", expected=path.name, observed=told)
    went_back(kept, "one", clause)
    kept.accepts(p.SnapshotDelete(domain=kept.domain.name, name="one"), (clause,))
    if path.read_bytes() != b'{"name": "tw':
        summary = "the damaged file was changed"
        raise ConformanceFailure((clause, "XLS-MODEL-004"), summary, observed=path.read_text()[:200])
    path.write_bytes(whole)
    went_back(kept, "two", clause)
    tell(told[0])


@pytest.mark.clauses("XLS-META-012")
def test_own_keys_have_one_prefix(kept: Scenario, tell: Tell) -> None:
    found: set[str] = set()
    for name in ("one", "two"):
        value = read(file_of(kept, name), "XLS-META-012")
        found |= {key for key in value if key not in KNOWN}
        found |= {key for disk in value["disks"] for key in disk if key not in KNOWN_OF_DISKS}
    prefixes = {match[0] if (match := re.match(r"[^_.:-]+[_.:-]", key)) else "" for key in found}
    if "" in prefixes or len(prefixes) > 1:
        summary = "keys that are not libxl's have no prefix in common"
        raise ConformanceFailure(("XLS-META-012",), summary, expected="one prefix", observed=sorted(found))
    tell(f"{', '.join(sorted(found))}: prefix {min(prefixes)!r}" if found else "libxl's keys only")


@pytest.mark.clauses("XLS-META-014")
def test_defaults_may_be_left_out(kept: Scenario, tell: Tell) -> None:
    """As libxl's own JSON writer does."""
    clause = "XLS-META-014"

    def strip(value: dict[str, Any]) -> dict[str, Any]:
        return {key: item for key, item in value.items() if item not in ("", False, None)}

    rewrite(file_of(kept, "one"), strip, clause)
    left = sorted(read(file_of(kept, "one"), clause))
    if "paused" in left or "description" in left:
        raise HarnessError("the defaults are still in the file: nothing would be shown")
    kept.undisturbed((clause,), "after another toolstack has left out defaults in a metadata file")
    went_back(kept, "one", clause)
    tell(f"a file with {', '.join(left)} was read")


@pytest.mark.clauses("XLS-META-008")
def test_metadata_appears_complete(scenario: Scenario, need: Need, tell: Tell) -> None:
    """It is read as soon as there is a file of its name, while it is being made."""
    need("metadata-files")
    need("memory")
    need("delete")
    domain, looks = scenario.domain, 0
    for number in range(3):
        name = f"watched-{number}"
        seen: list[bytes] = []
        stop = threading.Event()

        def watch(path: Path, seen: list[bytes], stop: threading.Event) -> None:
            while not stop.is_set() and not seen:
                with contextlib.suppress(FileNotFoundError):
                    seen.append(path.read_bytes())
                time.sleep(0.0002)

        thread = threading.Thread(target=watch, args=(file_of(scenario, name), seen, stop), daemon=True)
        thread.start()
        try:
            request = p.SnapshotCreate(domain=domain.name, name=name, description="long " * 1000)
            scenario.accepts(request, ("XLS-META-008", "XLS-CREATE-001"))
            thread.join(timeout=5)
        finally:
            stop.set()
            thread.join(timeout=10)
        final = read(file_of(scenario, name), "XLS-META-008")
        if not seen:
            raise HarnessError("the metadata file was not seen: nothing would be shown")
        looks += len(seen)
        try:
            first = json.loads(seen[0])
        except ValueError:
            first = None
        if first != final:
            raise ConformanceFailure(
                ("XLS-META-008",),
                "the metadata file was there before it was complete",
                expected=f"{len(json.dumps(final))} characters",
                observed=seen[0][-100:].decode(errors="replace"),
            )
        scenario.accepts(p.SnapshotDelete(domain=domain.name, name=name), ("XLS-DELETE-007",))
    tell(f"{looks} files were complete when they appeared")
