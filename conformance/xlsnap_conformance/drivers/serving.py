# SPDX-License-Identifier: LGPL-2.1-or-later
"""The driver's end of the protocol for drivers in Python: one method a verb, requests and results typed.

::

    class MyDriver:
        implementation = "mine"
        version = "1.0"
        edition = "v4"
        capabilities = ("memory", "revert")

        def snapshot_revert(self, request: SnapshotRevert) -> Done:
            if not known(request.name):
                raise Refused("input", f"no snapshot {request.name!r}")
            ...
            return Done()

    serve(MyDriver())

A verb whose method is missing, or whose capability is not claimed, is refused as ``unsupported``. ``hello``
is answered from the attributes. When the suite hangs up, or SIGTERM comes, ``teardown`` is called once more
if something was set up, so that nothing stays behind a suite that was killed.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from types import FrameType
from typing import Any, NoReturn, Protocol

import msgspec

from .. import protocol as p


class Refused(Exception):
    """What a driver's method raises when the implementation refuses: whose fault, and why, in a line."""

    def __init__(self, kind: p.ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind: p.ErrorKind = kind


class Plug(Protocol):
    """What `serve` needs of a driver; beside this it has a method for each verb that it knows.

    It may have a ``time_scale`` too: see `protocol.HelloResult`.
    """

    implementation: str
    version: str
    edition: Any
    capabilities: tuple[str, ...]


class _Ended(BaseException):
    """SIGTERM came. Not an `Exception`: a driver that catches all of those must still end."""


def serve(plug: Plug) -> None:
    """Answer the requests of standard input until it ends or SIGTERM comes; then clean up.

    What else is printed goes to standard error: standard output belongs to the protocol.
    """
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    at_work = False
    try:
        for line in sys.stdin.buffer:
            verb, reply = answer(plug, line)
            at_work = verb != "teardown" if verb in ("setup", "teardown") else at_work
            replies.write(reply + b"\n")
    except (_Ended, BrokenPipeError):
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if at_work:
            answer(plug, b'{"id": 0, "verb": "teardown", "args": {}}')


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise _Ended


def answer(plug: Plug, line: bytes) -> tuple[str, bytes]:
    """Return the verb of a request and the reply to it, without the newline."""
    number, verb = 0, ""
    try:
        call = msgspec.json.decode(line, type=p.Call)
        number, verb = call.id, call.verb
        result = _result(plug, verb, call.args)
        return verb, msgspec.json.encode(p.Reply(id=number, ok=True, result=_raw(result)))
    except Refused as error:
        refusal = p.Refusal(kind=error.kind, message=" ".join(str(error).split()))
    except msgspec.MsgspecError as error:
        refusal = p.Refusal(kind="input", message=f"bad request: {error}")
    except Exception as error:  # whatever it is, the suite is to hear of it
        traceback.print_exc()
        refusal = p.Refusal(kind="bug", message=f"driver: {type(error).__name__}: {error}")
    return verb, msgspec.json.encode(p.Reply(id=number, ok=False, error=refusal))


def _result(plug: Plug, name: str, arguments: msgspec.Raw) -> p.Result:
    if name == "hello":
        return p.HelloResult(
            protocol=p.PROTOCOL,
            implementation=plug.implementation,
            version=plug.version,
            edition=plug.edition,
            capabilities=plug.capabilities,
            time_scale=getattr(plug, "time_scale", 1.0),
        )
    verb, method = p.VERBS.get(name), getattr(plug, name, None)
    if verb is None or method is None:
        raise Refused("unsupported", f"this driver has no verb {name!r}")
    if verb.capability is not None and verb.capability not in plug.capabilities:
        raise Refused("unsupported", f"{name} needs the capability {verb.capability}, which is not claimed")
    result = method(msgspec.json.decode(arguments, type=verb.arguments))
    return msgspec.convert(result, verb.result, from_attributes=True)


def _raw(result: p.Result) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(result))
