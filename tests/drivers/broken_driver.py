# SPDX-License-Identifier: LGPL-2.1-or-later
"""A driver that is broken in one way: the reference's, with a hand in between.

    python broken_driver.py HOW

`WAYS` are all ways; each gets a request and a function that asks the real driver, and returns what to write.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

Message = dict[str, Any]
Ask = Callable[[Message], Message]
Way = Callable[[Message, Ask], bytes]


def line(reply: Message) -> bytes:
    return json.dumps(reply).encode() + b"\n"


def result(call: Message, **members: object) -> bytes:
    return line({"id": call["id"], "ok": True, "result": members})


def on(verb: str, do: Way) -> Way:
    """Be broken in one verb, and as the real driver in all others."""
    return lambda call, ask: do(call, ask) if call["verb"] == verb else line(ask(call))


def changed(**members: object) -> Way:
    def change(call: Message, ask: Ask) -> bytes:
        reply = ask(call)
        return line({**reply, "result": {**reply.get("result", {}), **members}})

    return change


def silence(call: Message, ask: Ask) -> bytes:
    time.sleep(600)
    return b""


def death(call: Message, ask: Ask) -> bytes:
    print("the disk of the driver is full", file=sys.stderr, flush=True)
    os._exit(3)


def murder(call: Message, ask: Ask) -> bytes:
    os.kill(os.getpid(), signal.SIGKILL)
    return b""


def deaf_console(call: Message, ask: Ask) -> bytes:
    """A socket that takes everything and says nothing."""
    path = os.path.join(tempfile.mkdtemp(dir=ROOT[0]), "deaf")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(5)
    ROOT.append(listener)
    return result(call, unix=path)


def slowly(call: Message, ask: Ask) -> bytes:
    time.sleep(0.4)
    return line(ask(call))


def noisy(call: Message, ask: Ask) -> bytes:
    return f"about to {call['verb']}\n".encode() + line(ask(call))


def unsupported(call: Message, ask: Ask) -> bytes:
    return line({"id": call["id"], "ok": False, "error": {"kind": "unsupported", "message": "not yet"}})


def refused(call: Message, ask: Ask) -> bytes:
    return line({"id": call["id"], "ok": False, "error": {"kind": "host", "message": "no space left"}})


def nothing(call: Message, ask: Ask) -> bytes:
    return result(call)


def no_uuid(call: Message, ask: Ask) -> bytes:
    """Domains get another uuid than was asked for."""
    call["args"].pop("uuid", None)
    return line(ask(call))


def foreign(call: Message, ask: Ask) -> bytes:
    """There are domains of others too. It is written down which domains are asked for."""
    with open(os.environ["ASKED"], "a") as asked:
        named = call["args"].get("domain") or (call["args"].get("name") if "uuid" in call["args"] else None)
        print(call["verb"], named or "-", file=asked)
    reply = ask(call)
    if call["verb"] == "domain_list":
        for number, name in enumerate(("vm-of-others", "xlsnap", "xlsnap-cts"), start=1):
            uuid = f"00000000-0000-4000-8000-00000000000{number}"
            reply["result"]["domains"].append({"name": name, "uuid": uuid, "state": "running"})
    return line(reply)


ROOT: list[Any] = [None]

WAYS: dict[str, Way] = {
    "says nothing": silence,
    "no JSON": lambda call, ask: b"OK\n",
    "half a line": lambda call, ask: b'{"id": 1, "ok"\n',
    "log on standard output": noisy,
    "another id": lambda call, ask: line({**ask(call), "id": call["id"] + 1}),
    "error without words": lambda call, ask: line({"id": call["id"], "ok": False}),
    "another protocol": on("hello", changed(protocol=99)),
    "no version": on("hello", changed(version="")),
    "unknown capability": on("hello", changed(capabilities=["memory", "flying"])),
    "answers any verb": on("no-such-verb", nothing),
    "dies at once": on("hello", death),
    "dies later": on("domain_create", murder),
    "hangs later": on("domain_pause", silence),
    "no such state": on("domain_state", changed(state="fine")),
    "always running": on("domain_state", changed(state="running")),
    "another uuid": on("domain_create", no_uuid),
    "lists nobody": on("domain_list", changed(domains=[])),
    "no disks": on("domain_disks", changed(disks=[])),
    "verb missing": on("domain_disks", unsupported),
    "host refuses": on("domain_create", refused),
    "no console": on("domain_console", changed(unix="/nowhere/console")),
    "relative console": on("domain_console", changed(unix="console")),
    "deaf console": on("domain_console", deaf_console),
    "does not pause": on("domain_pause", nothing),
    "another name": on("snapshot_create", changed(name="other")),
    "snapshot refused": on("snapshot_create", refused),
    "slow": on("domain_state", slowly),
    "leaves domains": on("teardown", nothing),
    "among others": foreign,
    "never ends": lambda call, ask: line(ask(call)),
}


def main() -> None:
    how = sys.argv[1]
    with subprocess.Popen(
        [sys.executable, "-m", "xlsnap_conformance.drivers.reference"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as real:
        assert real.stdin is not None
        assert real.stdout is not None

        def ask(call: Message) -> Message:
            assert real.stdin is not None
            assert real.stdout is not None
            real.stdin.write(line(call))
            real.stdin.flush()
            reply: Message = json.loads(real.stdout.readline())
            return reply

        for request in sys.stdin.buffer:
            call = json.loads(request)
            if call["verb"] == "setup":
                ROOT[0] = call["args"]["root"]
            sys.stdout.buffer.write(WAYS[how](call, ask))
            sys.stdout.buffer.flush()
        if how == "leaves domains":
            real.kill()
        if how == "never ends":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)


if __name__ == "__main__":
    main()
