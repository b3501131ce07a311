# SPDX-License-Identifier: LGPL-2.1-or-later
"""The driver's end of the protocol for drivers in Python, and how drivers are named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from xlsnap_conformance import drivers
from xlsnap_conformance import protocol as p
from xlsnap_conformance.driver import Driver
from xlsnap_conformance.drivers.serving import Refused, answer
from xlsnap_conformance.failures import HarnessError, ImplementationError


class Plug:
    implementation = "plug"
    version = "1"
    edition = "v4"
    capabilities: tuple[str, ...] = ("pause",)

    def domain_pause(self, request: p.DomainPause) -> p.Done:
        raise Refused("state", f"{request.domain}\nis asleep")

    def domain_unpause(self, request: p.DomainUnpause) -> p.Done:
        raise RuntimeError("oh")

    def snapshot_revert(self, request: p.SnapshotRevert) -> p.Done:
        return p.Done()

    def domain_state(self, request: p.DomainStateOf) -> p.DomainStateResult:
        return p.DomainStateResult(state="running")


def ask(line: str) -> dict[str, object]:
    reply: dict[str, object] = json.loads(answer(Plug(), line.encode())[1])
    return reply


def error(kind: str, message: str, number: int = 1) -> dict[str, object]:
    return {"id": number, "ok": False, "error": {"kind": kind, "message": message}}


def test_hello_is_told_from_the_attributes() -> None:
    told = ask('{"id": 1, "verb": "hello", "args": {}}')["result"]
    assert isinstance(told, dict)
    assert told.items() >= {"protocol": 1, "implementation": "plug", "version": "1"}.items()
    assert told["capabilities"] == ["pause"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"id": 1, "verb": "domain_pause", "args": {"domain": "d"}}', error("state", "d is asleep")),
        (
            '{"id": 1, "verb": "domain_unpause", "args": {"domain": "d"}}',
            error("bug", "driver: RuntimeError: oh"),
        ),
        ('{"id": 1, "verb": "dance", "args": {}}', error("unsupported", "this driver has no verb 'dance'")),
        (
            '{"id": 1, "verb": "metadata", "args": {}}',
            error("unsupported", "this driver has no verb 'metadata'"),
        ),
        (
            '{"id": 1, "verb": "snapshot_revert", "args": {"domain": "d", "name": "s"}}',
            error("unsupported", "snapshot_revert needs the capability revert, which is not claimed"),
        ),
    ],
)  # fmt: skip
def test_refusals(line: str, expected: dict[str, object]) -> None:
    assert ask(line) == expected


@pytest.mark.parametrize("line", ["", "{", "[]", '{"id": 1, "verb": "domain_state", "args": {}}'])
def test_bad_requests_are_answered(line: str) -> None:
    told = ask(line)
    assert isinstance(told["error"], dict)
    assert told["error"]["kind"] == "input"


TIDY = """
import pathlib, sys
from xlsnap_conformance import protocol as p
from xlsnap_conformance.drivers.serving import serve

class Plug:
    implementation, version, edition, capabilities = "tidy", "1", "v4", ()
    def setup(self, request):
        self.root = pathlib.Path(request.root)
        print("this must not go where replies go")
        return p.Done()
    def teardown(self, request):
        with (self.root / "tidied").open("a") as file:
            file.write("x")
        return p.Done()

serve(Plug())
"""


@pytest.mark.parametrize("asked", [True, False], ids=["torn down", "left alone"])
def test_teardown_is_called_once_also_when_the_suite_is_gone(tmp_path: Path, asked: bool) -> None:
    with Driver([sys.executable, "-c", TIDY], log=tmp_path / "log") as driver:
        driver.setup(tmp_path)
        if asked:
            driver.teardown()
    assert (tmp_path / "tidied").read_text() == "x"
    assert "must not go" in (tmp_path / "log").read_text()


def test_names_lead_to_commands(tmp_path: Path) -> None:
    assert drivers.command_of("virsh --connect 'a b'")[1:] == [
        *("-m", "xlsnap_conformance.drivers.virsh", "--connect", "a b")
    ]
    assert drivers.command_of("profile:'a b.toml'")[1:] == [
        *("-m", "xlsnap_conformance.drivers.profile", "a b.toml")
    ]
    assert drivers.command_of("./mine --x") == ["./mine", "--x"]
    with pytest.raises(HarnessError, match="No closing quotation"):
        drivers.command_of("./mine 'x")


PACKAGE = Path(__file__).parents[2] / "examples" / "drivers" / "python"


def test_a_package_offers_a_driver(tmp_path: Path) -> None:
    """The example is installed where nothing else is, and found by its entry point."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", "--target", str(tmp_path / "site"), str(PACKAGE)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "xlsnap_conformance.drivers.plugged", "xlsnap-library"]
    with Driver(command, log=tmp_path / "log", environment={"PYTHONPATH": str(tmp_path / "site")}) as driver:
        assert driver.hello.implementation == "xlsnap, as a library"
        driver.setup(tmp_path)
        assert driver.call(p.DomainStateOf(domain="xlsnap-cts-x")).state == "absent"
        with pytest.raises(ImplementationError, match=r"input: .*no domain"):
            driver.call(p.SnapshotList(domain="xlsnap-cts-x"))
