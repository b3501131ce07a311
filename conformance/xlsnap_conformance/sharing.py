# SPDX-License-Identifier: LGPL-2.1-or-later
"""Failing scenarios that runs share: each begins with what others have found, and makes it smaller.

They are kept in an example database of Hypothesis: a directory, or a Redis server that all machines of a CI
pipeline reach. What is kept are traces, smallest first, by implementation and shape of the domain; one that
does not fail any more is forgotten. What comes from a database is not trusted: what is no trace, or would
leave the scratch directory, is left alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
from hypothesis.database import DirectoryBasedExampleDatabase, ExampleDatabase

from .failures import HarnessError
from .trace import SCRATCH, PutFile, PutLink, Trace, to_json

T = TypeVar("T")

PREFIX = b"xlsnap:"
"""Before each key in Redis."""

REDIS_SECONDS = 5.0
"""How long Redis may take to answer."""


class SharedFailures:
    """The failing scenarios of one implementation, on domains of one shape.

    A database that fails costs no run: it is told once on standard error, and the run goes on without it.
    """

    def __init__(self, database: ExampleDatabase, implementation: str, shape: str) -> None:
        self._database: ExampleDatabase | None = database
        self._key = f"{implementation}/{shape}".encode("utf-8", "surrogateescape")

    def known(self) -> list[Trace]:
        """Return what is known to fail, the smallest trace first."""
        found = self._ask(lambda database: list(database.fetch(self._key))) or []
        traces = filter(None, map(_trusted, found))
        return sorted(traces, key=lambda trace: (len(trace.steps), to_json(trace)))

    def keep(self, trace: Trace) -> None:
        """Keep a trace that fails."""
        self._ask(lambda database: database.save(self._key, _content(trace)))

    def forget(self, trace: Trace) -> None:
        """Forget a trace: it does not fail any more, or a smaller one does."""
        self._ask(lambda database: database.delete(self._key, _content(trace)))

    def _ask(self, question: Callable[[ExampleDatabase], T]) -> T | None:
        if self._database is None:
            return None
        try:
            return question(self._database)
        except Exception as error:  # Redis raises what it likes; a run must not depend on it
            self._database = None
            print(f"examples are not shared any more: {error}", file=sys.stderr)
            return None


def open_database(where: str) -> ExampleDatabase:
    """Return the database at a URL of Redis (``redis://HOST:PORT/0``, ``rediss:``, ``unix:``) or a directory.

    :raise HarnessError: if it cannot be used.
    """
    if not where.startswith(("redis://", "rediss://", "unix://")):
        directory = Path(where)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise HarnessError(f"examples in {where}: {error.strerror}") from error
        return DirectoryBasedExampleDatabase(directory)
    try:
        from hypothesis.extra.redis import RedisExampleDatabase
        from redis import Redis
        from redis.exceptions import RedisError
    except ImportError as error:
        raise HarnessError("examples in Redis need its client: pip install 'xlsnap[redis]'") from error
    try:
        client = Redis.from_url(where, socket_timeout=REDIS_SECONDS, socket_connect_timeout=REDIS_SECONDS)
        client.ping()
    except (RedisError, ValueError) as error:
        raise HarnessError(f"examples in {_without_password(where)}: {error}") from error
    return RedisExampleDatabase(client, key_prefix=PREFIX)


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _content(trace: Trace) -> bytes:
    """Return what is kept of a trace: what was done, not what came of it."""
    return to_json(msgspec.structs.replace(trace, failure=None))


def _trusted(content: bytes) -> Trace | None:
    """Return the trace that was kept, or None if it is none that may be done here."""
    try:
        trace = msgspec.json.decode(content, type=Trace)
    except msgspec.MsgspecError:
        return None
    placed = [step.path for step in trace.steps if isinstance(step, PutFile | PutLink)]
    inside = all(path.startswith(f"{SCRATCH}/") for path in placed)
    return trace if inside and all(map(_stays_inside, _strings(msgspec.to_builtins(trace.steps)))) else None


def _strings(value: object) -> list[str]:
    match value:
        case str():
            return [value]
        case dict():
            return [text for item in value.values() for text in _strings(item)]
        case list() | tuple():
            return [text for item in value for text in _strings(item)]
        case _:
            return []


def _stays_inside(text: str) -> bool:
    """Say whether a text is no path, or one in the scratch directory. Bad requests may name any."""
    if text.startswith("/"):
        return False
    return not (text.startswith(SCRATCH) and ".." in Path(text).parts)
