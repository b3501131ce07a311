# SPDX-License-Identifier: LGPL-2.1-or-later
"""The driver client, against small drivers that do right or wrong in one way each."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from xlsnap_conformance import protocol as p
from xlsnap_conformance.driver import Driver
from xlsnap_conformance.drivers import command_of
from xlsnap_conformance.failures import DriverError, HarnessError, ImplementationError

# A driver in a few lines: `answer(request)` returns the line to print, or None for none.
PROGRAM = """
import json, os, sys, time
def ok(request, **result):
    return json.dumps({{"id": request["id"], "ok": True, "result": result}})
def hello(request):
    return ok(request, protocol=1, implementation="small", version="1", capabilities=["memory"])
{answer}
for line in sys.stdin:
    request = json.loads(line)
    text = hello(request) if request["verb"] == "hello" else answer(request)
    if text is not None:
        sys.stdout.write(text + "\\n")
        sys.stdout.flush()
"""

Start = Callable[..., Driver]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    opened = []

    def start(answer: str, *, program: str = PROGRAM, **options: object) -> Driver:
        source = tmp_path / "small_driver.py"
        source.write_text(program.format(answer=answer))
        driver = Driver([sys.executable, str(source)], log=tmp_path / "log", **options)  # type: ignore[arg-type]
        opened.append(driver)
        return driver

    yield start
    for driver in opened:
        driver.close()


ASK = p.DomainStateOf(domain="d")


def test_hello_is_asked_at_once(start: Start) -> None:
    driver = start("def answer(request): return ok(request, state='running')")
    assert driver.hello.implementation == "small"
    assert driver.capabilities == {"memory"}
    assert driver.call(ASK).state == "running"
    assert driver.calls == 2


def test_a_refusal_is_the_implementations_answer(start: Start) -> None:
    driver = start(
        "def answer(request): return json.dumps({'id': request['id'], 'ok': False,"
        " 'error': {'kind': 'state', 'message': 'two\\nlines'}})"
    )
    for _ in range(2):
        with pytest.raises(ImplementationError) as caught:
            driver.call(ASK)
        assert (caught.value.kind, caught.value.message) == ("state", "two lines")
    assert driver.broken is None


WRONG = {
    "no JSON": ("def answer(request): return 'oops {'", "not one of the protocol"),
    "not UTF-8": (
        "def answer(request): sys.stdout.buffer.write(b'\\xff\\n'); sys.stdout.flush()",
        "not one of the protocol",
    ),
    "another id": ("def answer(request): return ok({'id': 99}, state='running')", "has id 99"),
    "no id": ("def answer(request): return '{\"ok\": true}'", "not one of the protocol"),
    "result of another form": ("def answer(request): return ok(request, state='asleep')", "asleep"),
    "error without error": ('def answer(request): return \'{"id": 2, "ok": false}\'', "has no error"),
    "kind that is none": (
        'def answer(request): return \'{"id": 2, "ok": false, "error": {"kind": "x", "message": ""}}\'',
        "not one of the protocol",
    ),
    "exit": ("def answer(request): sys.exit(3)", "exit status 3"),
    "killed": ("def answer(request): os.kill(os.getpid(), 9)", "killed by signal 9"),
    "silence": ("def answer(request): time.sleep(60)", "no reply from the driver within 0.3 s"),
    "half a line": (
        "def answer(request): sys.stdout.write('{'); sys.stdout.flush(); time.sleep(60)",
        "no reply",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_broken_driver_is_told_from_a_refusing_one(what: str, start: Start) -> None:
    answer, said = WRONG[what]
    driver = start(answer, limits={"domain_state": 0.3 if what in ("silence", "half a line") else 10})
    with pytest.raises(DriverError, match=said):
        driver.call(ASK)
    with pytest.raises(DriverError, match="cannot be asked any more"):
        driver.call(ASK)
    driver.close()
    assert not psutil.pid_exists(driver.pid)


def test_log_of_the_driver_is_in_the_error(start: Start) -> None:
    driver = start("def answer(request): print('the cause', file=sys.stderr, flush=True); sys.exit(1)")
    with pytest.raises(DriverError) as caught:
        driver.call(ASK)
    assert caught.value.log == "the cause"
    assert driver.log.stat().st_mode & 0o777 == 0o600


def test_another_protocol_is_refused(start: Start) -> None:
    program = PROGRAM.replace("protocol=1", "protocol=2")
    with pytest.raises(DriverError, match="protocol 2"):
        start("def answer(request): pass", program=program)


def test_a_driver_that_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="No such file"):
        Driver([str(tmp_path / "missing")], log=tmp_path / "log")


def test_a_driver_that_ignores_everything_is_killed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xlsnap_conformance.driver.END_SECONDS", 0.3)
    driver = start(
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "def answer(request): return ok(request, state='running')\n"
        "import atexit; atexit.register(time.sleep, 60)"
    )
    driver.call(ASK)
    began = time.monotonic()
    driver.close()
    assert not psutil.pid_exists(driver.pid)
    assert time.monotonic() - began < 50, "it ended by itself"
    driver.close()


def test_an_interrupt_ends_the_driver_and_nothing_more_is_asked(start: Start) -> None:
    driver = start(
        "import signal\ndef answer(request):\n    os.kill(os.getppid(), signal.SIGINT)\n    time.sleep(60)"
    )
    with pytest.raises(KeyboardInterrupt):
        driver.call(ASK)
    assert "interrupted" in str(driver.broken)
    driver.close()
    assert not psutil.pid_exists(driver.pid)


def test_names_of_built_in_drivers() -> None:
    assert command_of("reference")[-2:] == ["-m", "xlsnap_conformance.drivers.reference"]
    assert command_of("reference --mutant x")[-2:] == ["--mutant", "x"]
    assert command_of("./mine 'a b'") == ["./mine", "a b"]
    for wrong in ("", "  ", "'open"):
        with pytest.raises(HarnessError):
            command_of(wrong)


def test_the_references_driver_ends_with_its_input(tmp_path: Path) -> None:
    with Driver.start("reference", log=tmp_path / "log") as driver:
        (tmp_path / "root").mkdir(mode=0o700)
        driver.setup(tmp_path / "root")
        assert driver.call(p.DomainStateOf(domain="xlsnap-cts-nobody")).state == "absent"
        with pytest.raises(ImplementationError) as caught:
            driver.call(p.SnapshotList(domain="xlsnap-cts-nobody"))
        assert caught.value.kind == "input"
    assert not psutil.pid_exists(driver.pid)


def test_the_references_driver_ends_at_sigterm() -> None:
    command = command_of("reference")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b'{"id": 1, "verb": "hello", "args": {}}\n')
        process.stdin.flush()
        assert b'"ok":true' in process.stdout.readline()
        process.stdin.write(b'{"id": 2, "verb": "dance", "args": {}}\n')
        process.stdin.flush()
        assert b'"unsupported"' in process.stdout.readline()
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(timeout=60) == 0
