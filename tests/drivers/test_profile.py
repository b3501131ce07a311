# SPDX-License-Identifier: LGPL-2.1-or-later
"""Driver profiles: what a slip of the pen says, and that words arrive as they are, also behind a shell."""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec
import pytest
from xlsnap_conformance import protocol as p
from xlsnap_conformance.drivers.profile import transport
from xlsnap_conformance.drivers.profile.commands import Profile, Transport, load
from xlsnap_conformance.drivers.profile.console import ConsoleSocket
from xlsnap_conformance.drivers.profile.driver import ProfileDriver
from xlsnap_conformance.drivers.profile.templates import check
from xlsnap_conformance.drivers.serving import Refused
from xlsnap_conformance.failures import HarnessError

HEAD = 'implementation = "echo"\nversion = "1"\n'

ODD = ["a b", "it's", 'say "x"', "$HOME", "`id`", "a\nb", "*", "\\", "", "-n", "☃", "a;b", "~"]


def profile(tmp_path: Path, text: str) -> Profile:
    file = tmp_path / "p.toml"
    file.write_text(HEAD + text)
    found = load(file)
    check(found, str(file))
    return found


SLIPS = {
    "no TOML": ("x =", "Invalid value"),
    "unknown key": ("colour = 1\n[verbs]\n", "unknown field `colour`"),
    "no verbs": ("", "missing required field `verbs`"),
    "unknown verb": ("[verbs.dance]\nrun = ['x']\n", "verbs.dance: no such verb; there are setup"),
    "unknown capability": ("capabilities = ['flying']\n[verbs]\n", "nobody knows 'flying'; there are memory"),
    "claimed without a verb": (
        "capabilities = ['revert']\n[verbs]\n",
        "'revert' is claimed, but there is no verbs.snapshot_revert",
    ),
    "unknown placeholder": (
        "[verbs.domain_pause]\nrun = ['xl', 'pause', '{{ domian }}']\n",
        "verbs.domain_pause.run: there is no 'domian'; there are conf, domain, root",
    ),
    "open placeholder": ("[verbs.domain_pause]\nrun = ['{{ domain']\n", "verbs.domain_pause.run: "),
    "bad condition": (
        "[verbs.snapshot_revert]\nrun = ['xl', { if = 'paused ==', add = ['-p'] }]\n",
        "verbs.snapshot_revert.run: ",
    ),
    "bad pattern": ("[verbs.domain_pause]\nrun = ['xl']\npattern = '('\n", "verbs.domain_pause.pattern: "),
    "words beside commands": (
        "[verbs.domain_pause]\nrun = ['xl', ['xl']]\n",
        "one command (a list of words), or several (a list of lists), not both",
    ),
    "kind of nobody": ("[[errors]]\nkind = 'theirs'\n[verbs]\n", "Invalid enum value 'theirs'"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_of_the_pen_is_told(slip: str, tmp_path: Path) -> None:
    text, words = SLIPS[slip]
    with pytest.raises(HarnessError) as caught:
        profile(tmp_path, text)
    assert words in str(caught.value)
    assert "p.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def fake_ssh(tmp_path: Path) -> tuple[str, ...]:
    """ssh as far as quoting goes: it joins its words with spaces and has a shell run the line."""
    program = tmp_path / "ssh"
    program.write_text('#!/bin/sh\nshift\nexec sh -c "$*"\n')
    program.chmod(0o700)
    return (str(program), "host")


@pytest.mark.parametrize("kind", ["local", "prefix", "ssh"])
def test_words_arrive_as_they_are(kind: str, tmp_path: Path) -> None:
    way = {
        "local": Transport(),
        "prefix": Transport(run=("env", "-u", "NOTHING")),
        "ssh": Transport(run=fake_ssh(tmp_path)),
    }[kind]
    script = 'printf "%s\\0" "$V" "$@"'
    ended = transport.run(way, ["sh", "-c", script, "sh", *ODD], {"V": "it's a 'test'"}, seconds=30)
    assert ended.status == 0
    assert ended.stdout.split("\0")[:-1] == ["it's a 'test'", *ODD]


def test_command_that_hangs_or_is_not_there() -> None:
    with pytest.raises(Refused, match="did not end within"):
        transport.run(Transport(), ["sleep", "60"], {}, seconds=0.2)
    with pytest.raises(Refused, match="cannot run no-such-program: No such file"):
        transport.run(Transport(), ["no-such-program"], {}, seconds=5)
    with pytest.raises(Refused, match="null byte") as caught:
        transport.run(Transport(), ["echo", "a\0b"], {}, seconds=5)
    assert caught.value.kind == "input"


LIST = """
capabilities = ["revert", "delete"]
[tables.states]
r = "running"
[[errors]]
kind = "input"
exit = [4]
pattern = "no such"
[[errors]]
kind = "state"
exit = [4]
[verbs.snapshot_create]
files."{{ domain }}.conf" = "{{ conf }}"
run = ["cat", "{{ root }}/{{ domain }}.conf"]
pattern = '(?s)name = "(?P<name>.*?)"'
[verbs.snapshot_list]
run = ["printf", "%s\\\\n", "1 first r 10 internal", "2 second r 20 disk"]
rows = '(?m)^\\d+ (?P<name>\\S+) (?P<state>.) (?P<creation_time>\\d+) (?P<kind>\\S+)$'
fields.disk_only = "row.kind == 'disk'"
[verbs.domain_state]
run = ["printf", '{"domains": {"xlsnap-cts-a": "r"}}']
result.state = "states[printed.domains[domain]] if domain in printed.domains else 'absent'"
[verbs.snapshot_revert]
run = ["sh", "-c", "echo no such snapshot >&2; exit 4"]
[verbs.snapshot_delete]
run = ["sh", "-c", "echo it runs >&2; exit 4"]
[verbs.domain_destroy]
run = ["sh", "-c", "exit 1"]
[verbs.domain_disks]
run = ["echo", "nothing of the kind"]
json = "printed"
"""


@pytest.fixture(params=["local", "ssh"])
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> ProfileDriver:
    found = profile(tmp_path, LIST)
    if request.param == "ssh":
        found = msgspec.structs.replace(found, transport=Transport(run=fake_ssh(tmp_path)))
    driver = ProfileDriver(found)
    driver.setup(p.Setup(root=str(tmp_path)))
    return driver


@pytest.mark.parametrize("name", ["a b", "it's", "$HOME", "☃", "`id`"])
def test_names_survive_files_and_commands(driver: ProfileDriver, name: str) -> None:
    made = driver.snapshot_create(p.SnapshotCreate(domain="xlsnap-cts-a", name=name))
    assert made == p.SnapshotCreateResult(name=name)


def test_rows_and_json(driver: ProfileDriver) -> None:
    assert driver.snapshot_list(p.SnapshotList(domain="d")) == p.SnapshotListResult(
        snapshots=(
            p.ListedSnapshot(name="first", creation_time=10, disk_only=False, state="r"),
            p.ListedSnapshot(name="second", creation_time=20, disk_only=True, state="r"),
        )
    )
    assert driver.domain_state(p.DomainStateOf(domain="xlsnap-cts-a")) == p.DomainStateResult(state="running")
    assert driver.domain_state(p.DomainStateOf(domain="who")) == p.DomainStateResult(state="absent")


def test_errors_say_whose_fault_it_is(driver: ProfileDriver) -> None:
    for verb, request, kind, words in (
        ("snapshot_revert", p.SnapshotRevert(domain="d", name="s"), "input", "no such snapshot"),
        ("snapshot_delete", p.SnapshotDelete(domain="d", name="s"), "state", "it runs"),
        ("domain_destroy", p.DomainDestroy(domain="d"), "host", "exit status 1"),
        ("domain_disks", p.DomainDisks(domain="d"), "bug", "verbs.domain_disks: no JSON was printed"),
    ):
        with pytest.raises(Refused, match=words) as caught:
            getattr(driver, verb)(request)
        assert caught.value.kind == kind


def test_files_stay_below_the_directory(driver: ProfileDriver, tmp_path: Path) -> None:
    for domain in ("../../evil", "/evil"):
        with pytest.raises(Refused, match="no name for a file"):
            driver.snapshot_create(p.SnapshotCreate(domain=domain, name="s"))


def test_domains_of_others_are_never_created(driver: ProfileDriver) -> None:
    firmware = p.Firmware(rom="/r", disk="/d", iso="/i")
    found = msgspec.structs.replace(
        driver.profile,
        verbs={**driver.profile.verbs, "domain_create": driver.profile.verbs["domain_destroy"]},
    )
    other = ProfileDriver(found)
    with pytest.raises(Refused, match="not one of the suite's"):
        other.domain_create(p.DomainCreate(name="vm", memory_mib=1, vcpus=1, firmware=firmware, disks=()))


def test_a_command_becomes_a_socket(tmp_path: Path) -> None:
    console = ConsoleSocket(tmp_path / "console", ["cat"])
    try:
        for _ in range(2):  # a console is connected to again and again
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10)
                connection.connect(str(tmp_path / "console"))
                connection.sendall(b"hello\n")
                assert connection.recv(100) == b"hello\n"
    finally:
        console.close()
    assert not (tmp_path / "console").exists()


def test_a_console_that_ends_hangs_up(tmp_path: Path) -> None:
    console = ConsoleSocket(tmp_path / "console", ["true"])
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(tmp_path / "console"))
            assert connection.recv(100) == b""
    finally:
        console.close()
