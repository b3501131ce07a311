# SPDX-License-Identifier: LGPL-2.1-or-later
"""`smoke` finds what is wrong with a driver, says it, and does not blame the implementation."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from xlsnap_conformance import driver as driver_module
from xlsnap_conformance.cli import cli
from xlsnap_conformance.fence import Fence, users_of
from xlsnap_conformance.smoke import CHECKS, Finding, Outcome, smoke

BROKEN = Path(__file__).parent / "broken_driver.py"

# How the driver is broken, which check finds it, and words of what is said.
FOUND = {
    "says nothing": ("starts and says hello", "hello: no reply from the driver within 1 s"),
    "no JSON": ("starts and says hello", "the reply is not one of the protocol", "'OK'"),
    "half a line": ("starts and says hello", "the reply is not one of the protocol"),
    "log on standard output": ("starts and says hello", "not one of the protocol", "'about to hello'"),
    "another id": ("starts and says hello", "the reply has id 2, the request 1"),
    "error without words": ("starts and says hello", "not ok, but has no error"),
    "another protocol": ("starts and says hello", "speaks protocol 99, this suite 1"),
    "no version": ("tells what can be done", "no implementation or no version"),
    "unknown capability": ("tells what can be done", "'flying'"),
    "answers any verb": ("refuses a verb that it does not know", "as if it had been done"),
    "dies at once": ("starts and says hello", "ended instead of replying (exit status 3)"),
    "dies later": ("creates a domain", "ended instead of replying (killed by signal 9)"),
    "hangs later": ("pauses", "domain_pause: no reply from the driver within 1 s"),
    "no such state": ("knows who is not there", "domain_state: the result has another form"),
    "always running": ("knows who is not there", "it must be 'absent'"),
    "another uuid": ("creates a domain", "was asked for uuid"),
    "lists nobody": ("lists it", "it shows []"),
    "no disks": ("tells its disks", "it tells []"),
    "verb missing": ("tells its disks", "refused as unsupported: not yet"),
    "no console": ("reaches the guest", "no console: console /nowhere/console"),
    "relative console": ("reaches the guest", "'console' is not absolute"),
    "deaf console": ("reaches the guest", "the probe guest does not answer on it"),
    "does not pause": ("pauses", "domain_state is 'running', not 'paused'"),
    "another name": ("takes a snapshot", "asked for the name 'smoke' and tells 'other'"),
    "leaves domains": ("leaves nothing behind", "teardown leaves a domain running"),
    "never ends": ("ends when the suite hangs up", "it took SIGKILL"),
}

LIMITS = {"says nothing": {"hello": 1.0}, "hangs later": {"domain_pause": 1.0}}
"""Limits of the verbs that are let to hang; the others have the usual ones."""


def command(how: str) -> str:
    return shlex.join([sys.executable, str(BROKEN), how])


@pytest.fixture
def fence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fence]:
    monkeypatch.setattr(driver_module, "END_SECONDS", 2.0)
    monkeypatch.setattr("xlsnap_conformance.smoke_checks.GUEST_SECONDS", 2.0)
    with Fence() as fence:
        yield fence


def findings(how: str, fence: Fence) -> dict[str, Finding]:
    return {each.check: each for each in smoke(command(how), fence, limits=LIMITS.get(how))}


@pytest.mark.parametrize("how", FOUND)
def test_what_is_wrong_is_found_and_said(how: str, fence: Fence) -> None:
    check, *words = FOUND[how]
    found = findings(how, fence)
    wrong = [each for each in found.values() if each.outcome is Outcome.WRONG]
    assert [each.check for each in wrong][:1] == [check], found
    for word in words:
        assert word in wrong[0].text
    assert list(found) == list(CHECKS)
    fence.close()
    assert not users_of(fence.path)
    assert not fence.path.exists()


def test_log_of_a_driver_that_died_is_shown(fence: Fence) -> None:
    found = findings("dies at once", fence)
    assert "the disk of the driver is full" in found["starts and says hello"].log


def test_slow_driver_is_in_order_but_told(fence: Fence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xlsnap_conformance.smoke_checks.SLOW_SECONDS", 0.3)
    found = findings("slow", fence)
    assert {each.outcome for each in found.values()} <= {Outcome.OK, Outcome.SKIPPED, Outcome.SLOW}
    assert found["is quick"].outcome is Outcome.SLOW
    assert "domain_state took" in found["is quick"].text


@pytest.mark.parametrize(
    ("how", "check", "in_order"),
    [("host refuses", "creates a domain", False), ("snapshot refused", "takes a snapshot", True)],
)
def test_a_refusal_is_not_the_drivers_fault(how: str, check: str, in_order: bool, fence: Fence) -> None:
    found = findings(how, fence)
    assert found[check] == Finding(check, Outcome.REFUSED, "host: no space left")
    assert not [each for each in found.values() if each.outcome is Outcome.WRONG]
    assert (found["destroys"].outcome is Outcome.OK) == in_order


def test_command_says_what_is_wrong_and_exits_2() -> None:
    shown = CliRunner().invoke(cli, ["smoke", "--driver", command("no disks")], standalone_mode=False)
    assert shown.return_value == 2
    assert "wrong    domain_disks must tell hda" in shown.output
    assert "the driver is not in order" in shown.output


def test_the_references_driver_is_in_order() -> None:
    shown = CliRunner().invoke(cli, ["smoke", "reference"], standalone_mode=False)
    assert (shown.return_value, shown.output.splitlines()[-1]) == (0, "the driver is in order")
