# SPDX-License-Identifier: LGPL-2.1-or-later
"""What one run finds the next ones begin with; a database that is lost, or lies, costs no run."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis.database import DirectoryBasedExampleDatabase, ExampleDatabase
from xlsnap_conformance import trace as do
from xlsnap_conformance.failures import ConformanceFailure, HarnessError
from xlsnap_conformance.fence import Fence
from xlsnap_conformance.profiles import Effort
from xlsnap_conformance.search import search
from xlsnap_conformance.sharing import SharedFailures, open_database
from xlsnap_conformance.subject import Subject

SHORT = do.Trace(steps=(do.Create(name="a"), do.Revert(name="a")))
LONG = do.Trace(steps=(do.Create(name="a"), do.Create(name="b"), do.Revert(name="a")))


def shared(database: ExampleDatabase, shape: str = "one-disk") -> SharedFailures:
    return SharedFailures(database, "toy", shape)


@pytest.fixture
def directory(tmp_path: Path) -> ExampleDatabase:
    return open_database(str(tmp_path / "examples"))


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis server of our own. Debian's redis-tools has the program under another name."""
    program = shutil.which("redis-server") or shutil.which("redis-check-rdb")
    if program is None:
        assert not os.environ.get("XLSNAP_REQUIRE_ORACLE"), "no Redis server: apt-get install redis-tools"
        pytest.skip("no Redis server on this machine")
    socket = tmp_path_factory.mktemp("redis") / "socket"
    arguments = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", ""]
    process = subprocess.Popen(arguments, executable=program, cwd=socket.parent, stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not socket.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        assert socket.exists(), "the Redis server does not start"
        yield f"unix://{socket}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(params=["directory", "redis"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "directory":
        return str(tmp_path / "examples")
    url: str = request.getfixturevalue("redis_url")
    return f"{url}?db={len(request.node.name) % 16}"


def test_what_one_keeps_another_finds_smallest_first(where: str) -> None:
    ours, theirs = shared(open_database(where)), shared(open_database(where))
    ours.keep(LONG)
    ours.keep(SHORT)
    assert theirs.known() == [SHORT, LONG]
    assert shared(open_database(where), "two-disks").known() == []
    theirs.forget(SHORT)
    assert ours.known() == [LONG]


def test_what_came_of_a_trace_is_not_kept(directory: ExampleDatabase) -> None:
    failure = do.Failure(step=2, clauses=("XLS-REVERT-003",), summary="lost", observed="$HOME/secret")
    shared(directory).keep(do.Trace(steps=SHORT.steps, failure=failure))
    assert shared(directory).known() == [SHORT]


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"\xff\xfe",
        b'{"steps": [{"do": "rm"}]}',
        do.to_json(do.Trace(steps=(do.PutFile(path="/etc/passwd"),))),
        do.to_json(do.Trace(steps=(do.PutFile(path="beside"),))),
        do.to_json(do.Trace(steps=(do.PutLink(path=f"{do.SCRATCH}/../../beside"),))),
        do.to_json(do.Trace(steps=(do.Create(name="a", memory="/elsewhere/x"),))),
        do.to_json(do.Trace(steps=(do.Create(name="a", memory=f"{do.SCRATCH}/../x"),))),
    ],
)
def test_what_others_have_put_there_is_not_trusted(directory: ExampleDatabase, hostile: bytes) -> None:
    directory.save(b"toy/one-disk", hostile)
    shared(directory).keep(SHORT)
    assert shared(directory).known() == [SHORT]


def test_a_database_that_fails_is_told_once_and_costs_nothing(
    directory: ExampleDatabase, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*arguments: object) -> None:
        raise OSError("gone")

    monkeypatch.setattr(DirectoryBasedExampleDatabase, "save", fails)
    ours = shared(directory)
    ours.keep(SHORT)
    ours.keep(LONG)
    assert ours.known() == []
    assert capsys.readouterr().err == "examples are not shared any more: gone\n"


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("redis://user:secret@127.0.0.1:1/0", "examples in redis://127.0.0.1:1/0: "),
        ("redis://127.0.0.1:x", "examples in redis://127.0.0.1:x: "),
        ("/proc/nope", "examples in /proc/nope: "),
    ],
)
def test_a_database_that_cannot_be_opened_is_told_without_passwords(where: str, told: str) -> None:
    with pytest.raises(HarnessError) as error:
        open_database(where)
    assert str(error.value).startswith(told)
    assert "secret" not in str(error.value)


def test_runs_find_and_shrink_together(where: str) -> None:
    """The second run begins with what the first has found; what was mended is forgotten."""
    database = open_database(where)
    with Fence() as fence, Subject("reference --mutant wrong-memory-after-revert", fence) as subject:
        with pytest.raises(ConformanceFailure) as first:
            search(subject, "one-disk", seed=4, effort=Effort.NORMAL, database=database)
        known = SharedFailures(database, subject.driver.hello.implementation, "one-disk").known()
        assert first.value.trace is not None
        assert [trace.steps for trace in known] == [first.value.trace.steps]
        with pytest.raises(ConformanceFailure) as second:
            search(subject, "one-disk", seed=2, effort=Effort.QUICK, database=database)
        assert second.value.trace is not None
        assert len(second.value.trace.steps) <= len(known[0].steps)
        assert second.value.trace.title == known[0].title, "it was found by the first run"
        key = subject.driver.hello.implementation
    with Fence() as fence, Subject("reference", fence) as subject:
        mended = SharedFailures(database, subject.driver.hello.implementation, "one-disk")
        for trace in SharedFailures(database, key, "one-disk").known():
            mended.keep(trace)
        assert search(subject, "one-disk", seed=3, effort=Effort.QUICK, database=database) > 0
        assert mended.known() == []
