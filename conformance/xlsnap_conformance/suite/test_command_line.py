# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line: exit status, output, options, configuration files."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest

from xlsnap_conformance import protocol as p
from xlsnap_conformance import trace as do
from xlsnap_conformance.command_line import KINDS, CommandLine, Ended, file_with
from xlsnap_conformance.failures import ConformanceFailure
from xlsnap_conformance.scenario import Scenario
from xlsnap_conformance.subject import Subject

from .conftest import Need, Tell

pytestmark = pytest.mark.needs("cli")


@pytest.fixture
def command(subject: Subject) -> CommandLine:
    """The implementation's command line."""
    return CommandLine(subject)


def must(clauses: Sequence[str], holds: bool, summary: str, expected: Any, observed: Any) -> None:
    """Fail with the clauses unless something holds."""
    if not holds:
        told = str(observed) if isinstance(observed, Ended) else observed
        raise ConformanceFailure(tuple(clauses), summary, expected=expected, observed=told)


def done(clause: str, ended: Ended) -> Ended:
    """Return a command that must have succeeded."""
    must((clause, "XLS-CLI-001"), ended.status == 0, "a command that should work has failed", 0, ended)
    return ended


def refused(clause: str, ended: Ended) -> Ended:
    """Return a command that must have been refused."""
    must((clause, "XLS-CLI-001"), ended.status > 0, "a command that should be refused was not", "> 0", ended)
    return ended


def names(scenario: Scenario) -> list[str]:
    """Return the names of the domain's snapshots, as the driver lists them."""
    listed = scenario.accepts(p.SnapshotList(domain=scenario.domain.name), ("XLS-LIST-001",))
    return [snapshot.name for snapshot in listed.snapshots]


@pytest.mark.clauses("XLS-CLI-001", "XLS-CLI-003", "XLS-CLI-005", "XLS-CLI-010")
def test_status_and_errors(scenario: Scenario, command: CommandLine, need: Need, tell: Tell) -> None:
    """Each operation works by its command; what is wrong with each is told by status and one line."""
    for capability in ("memory", "disk-only", "revert", "delete", "revert-paused"):
        need(capability)
    by = command.on(scenario.domain)
    scenario.play(do.Set(key="a", value="1"))
    scenario.play(do.Create(name="with memory"), by=by)
    scenario.play(do.Create(name="disks", memory="no"), by=by, also=("XLS-CLI-003",))
    scenario.play(do.Set(key="a", value="2"))
    scenario.play(do.Revert(name="with memory", paused=True), by=by)
    scenario.play(do.Unpause())
    for step in (
        do.Create(name="disks", refused="input"),
        do.Revert(name="nothing", refused="input"),
        do.Delete(name="nothing", refused="input"),
    ):
        scenario.play(step, by=by, also=("XLS-CLI-001",))
        _one_line(command.ended, "input")
    scenario.play(do.Delete(name="disks"), by=by)
    for words in (["snapshot-list", f"{scenario.domain.name}-nobody"], ["snapshot-list"], ["-n", "x"]):
        _one_line(refused("XLS-CLI-001", command.run(*words)), "input")
    scenario.play(do.Destroy())
    scenario.play(do.Create(name="late", refused="state"), by=by)
    _one_line(command.ended, "state")
    tell("statuses 0, 2 and 3, each error in one line on standard error")


def _one_line(ended: Ended | None, kind: str) -> None:
    """An error is one line on standard error, and its status tells its kind."""
    assert ended is not None
    one = not ended.out.strip() and len(ended.err.strip().splitlines()) == 1
    must(["XLS-CLI-005"], one, "an error is not one line on standard error alone", "one line", ended)
    told = KINDS.get(ended.status)
    must(["XLS-CLI-010"], told == kind, "the status does not tell the kind of an error", kind, ended)


@pytest.mark.clauses("XLS-CLI-003")
def test_parts_of_a_snapshot(scenario: Scenario, command: CommandLine, need: Need, tell: Tell) -> None:
    need("memory")
    need("disk-only")
    found = {}
    for name, options in (("all", []), ("short", ["-D"]), ("long", ["--disk-only"])):
        done("XLS-CLI-003", command.run("snapshot-create", "-n", name, *options, scenario.domain.name))
        listed = scenario.accepts(p.SnapshotList(domain=scenario.domain.name), ("XLS-LIST-001",)).snapshots
        made = [each for each in listed if each.name == name]
        must(["XLS-CLI-003"], len(made) == 1, f"snapshot {name!r} is not listed once", 1, len(made))
        found[name] = (made[0].disk_only, [disk.vdev for disk in made[0].disks])
    expected = {"all": (False, ["hda"]), "short": (True, ["hda"]), "long": (True, ["hda"])}
    must(["XLS-CLI-003"], found == expected, "the snapshot has other parts", expected, found)
    tell(f"disk-only: {found}")


CONFLICTS: dict[str, tuple[str, list[str]]] = {
    "another name": ('name = "one"\nmemory = "yes"\n', ["-n", "other"]),
    "memory and -D": ('name = "one"\nmemory = "yes"\n', ["-D"]),
    "external and -D": (
        'name = "one"\ndisk = [ "format=qcow2,vdev=hda,target=/nowhere/o.qcow2" ]\n',
        ["-D"],
    ),
}


@pytest.mark.clauses("XLS-CLI-002")
def test_file_and_options(scenario: Scenario, command: CommandLine, need: Need, tell: Tell) -> None:
    """They go together unless they contradict each other."""
    need("memory")
    need("disk-only")
    domain = scenario.domain
    same = str(file_with(domain, 'name = "same"\nmemory = "yes"\n'))
    done("XLS-CLI-002", command.run("snapshot-create", "-n", "same", same, domain.name))
    unnamed = str(file_with(domain, 'description = "no name"\n'))
    done("XLS-CLI-002", command.run("snapshot-create", "-D", "-n", "given", unnamed, domain.name))
    made = names(scenario)
    must(["XLS-CLI-002"], made == ["same", "given"], "other snapshots were made", ["same", "given"], made)
    for what, (text, options) in CONFLICTS.items():
        file = str(file_with(domain, text))
        refused("XLS-CLI-002", command.run("snapshot-create", *options, file, domain.name))
        made = names(scenario)
        must(["XLS-CLI-002"], made == ["same", "given"], f"{what}: something was made", "nothing", made)
    tell(f"refused: {', '.join(CONFLICTS)}")


@pytest.mark.clauses("XLS-CLI-004")
def test_dry_run(scenario: Scenario, command: CommandLine, need: Need, tell: Tell) -> None:
    """What a dry run shows is what the same command makes without -N."""
    need("memory")
    domain = scenario.domain
    words = ["snapshot-create", "-n", "shown", domain.name]
    shown = _json(done("XLS-CLI-004", command.run("-N", *words)), "XLS-CLI-004")
    told = {key: shown.get(key) for key in ("name", "type", "running", "disks")} if shown else shown
    devices = [disk.get("device") for disk in told["disks"] or []] if told else None
    good = told and (told["name"], told["type"], told["running"], devices) == (
        "shown",
        "internal",
        True,
        ["hda"],
    )
    must(["XLS-CLI-004"], bool(good), "a dry run does not show the snapshot", "libxl's fields", told)
    scenario.play(do.List())
    done("XLS-CLI-004", command.run(*words))
    made = names(scenario)
    must(["XLS-CLI-004"], made == ["shown"], "the command itself made something else", ["shown"], made)
    tell(f"shown: {told}")


def _json(ended: Ended, clause: str) -> Any:
    try:
        return json.loads(ended.out)
    except ValueError:
        must([clause], False, "what is printed is not JSON", "JSON", ended.out[:200])


@pytest.mark.clauses("XLS-CLI-006", "XLS-CLI-008", "XLS-CLI-009")
def test_lists(scenario: Scenario, command: CommandLine, need: Need, tell: Tell) -> None:
    """Two snapshots, one of them disk-only and with blanks in its name."""
    need("memory")
    need("disk-only")
    domain = scenario.domain.name
    scenario.play(do.Create(name="one"))
    scenario.play(do.Create(name="two of them", memory="no"))
    only = done("XLS-CLI-006", command.run("snapshot-list", "-n", "one", domain)).out
    alone = "one" in only and "two of them" not in only
    must(["XLS-CLI-006"], alone, "one snapshot is not shown alone", "one", only)
    refused("XLS-CLI-006", command.run("snapshot-list", "-n", "three", domain))
    rows = _json(done("XLS-CLI-008", command.run("snapshot-list", "-o", "json", domain)), "XLS-CLI-008")
    told = [(row.get("name"), "memory" in row, isinstance(row.get("creation_time"), int)) for row in rows]
    expected = [("one", True, True), ("two of them", False, True)]
    must(["XLS-CLI-008"], told == expected, "the JSON list is another one", expected, rows)
    lines = done("XLS-CLI-009", command.run("snapshot-list", domain)).out.splitlines()
    head = r"TAG\s+NAME\s+DATE\s+STATE\s+DISK ONLY"
    first = r"1\s+one\s+\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\s+r-*\s+no"
    second = r"2\s+two of them\s+\S+ \S+\s+r-*\s+yes"
    fits = len(lines) == 3 and all(map(re.fullmatch, (head, first, second), lines))
    must(["XLS-CLI-009"], fits, "the short list has another form", "headings, and a line for each", lines)
    tell("; ".join(lines))


@pytest.mark.clauses("XLS-CLI-007")
def test_files_that_cannot_be_used(scenario: Scenario, command: CommandLine, need: Need, tell: Tell) -> None:
    """A good file works; a missing one, a directory and a wrong one are refused, and nothing is made."""
    need("memory")
    domain = scenario.domain
    good = file_with(domain, 'name = "good"\nmemory = "yes"\n', "good.conf")
    wrong = file_with(domain, 'name = "wrong"\nmemory = yes\n', "wrong.conf")
    done("XLS-CLI-007", command.run("snapshot-create", str(good), domain.name))
    for path in (good.with_name("missing.conf"), good.parent, wrong):
        ended = refused("XLS-CLI-007", command.run("snapshot-create", "-n", "x", str(path), domain.name))
        made = names(scenario)
        must(["XLS-CLI-007"], made == ["good"], f"{path.name}: a snapshot was made", ["good"], made)
        must(["XLS-CLI-007"], path.name in ended.err, "the error does not name the file", path.name, ended)
    tell("a missing file, a directory and a wrong file are refused by name")


@pytest.mark.parametrize("operation", ["revert", "delete"])
@pytest.mark.clauses("XLS-CLI-011")
def test_a_name_is_needed(
    operation: str, scenario: Scenario, command: CommandLine, need: Need, tell: Tell
) -> None:
    """Also where there is only one snapshot that could be meant."""
    for capability in ("memory", operation):
        need(capability)
    scenario.play(do.Set(key="a", value="1"))
    scenario.play(do.Create(name="only"))
    scenario.play(do.Set(key="a", value="2"))
    tell(str(refused("XLS-CLI-011", command.run(f"snapshot-{operation}", scenario.domain.name))))
    scenario.undisturbed(("XLS-CLI-011",), f"after snapshot-{operation} without a name")
    step = do.Revert(name="only") if operation == "revert" else do.Delete(name="only")
    scenario.play(step, by=command.on(scenario.domain))


@pytest.mark.clauses("XLS-CLI-012")
def test_names_of_a_domain(
    scenario: Scenario, subject: Subject, command: CommandLine, need: Need, tell: Tell
) -> None:
    need("memory")
    need("list-stopped")
    scenario.play(do.Create(name="one"))
    domains = subject.call(p.DomainList()).domains
    ids = [str(domain.domid) for domain in domains if domain.uuid == scenario.domain.uuid and domain.domid]
    for stopped in (False, True):
        if stopped:
            scenario.play(do.Destroy())
        for name in (scenario.domain.name, scenario.domain.uuid, *([] if stopped else ids)):
            told = done("XLS-CLI-012", command.run("snapshot-list", name)).out
            must(["XLS-CLI-012"], "one" in told, f"the domain is not found as {name}", "one", told)
    tell(f"found by name, uuid{' and domain id' if ids else ''}, stopped by name and uuid")


@pytest.mark.clauses("XLS-CLI-013", "XLS-CLI-014")
def test_paths_of_a_file(scenario: Scenario, command: CommandLine, need: Need, tell: Tell) -> None:
    """An absolute path works from anywhere; a relative one, where it is taken, from the current directory."""
    need("memory")
    domain = scenario.domain
    path = file_with(domain, 'name = "absolute"\nmemory = "yes"\n', "absolute.conf")
    done("XLS-CLI-013", command.run("snapshot-create", str(path), domain.name, directory=domain.scratch))
    must(["XLS-CLI-013"], names(scenario) == ["absolute"], "another snapshot", "absolute", names(scenario))
    path = file_with(domain, 'name = "relative"\nmemory = "yes"\n', "relative.conf")
    ended = command.run("snapshot-create", path.name, domain.name, directory=path.parent)
    expected = ["absolute", "relative"] if ended.status == 0 else ["absolute"]
    made = names(scenario)
    must(["XLS-CLI-014"], made == expected, "a relative path is taken for something else", expected, made)
    tell(f"a relative path is {'accepted' if ended.status == 0 else 'refused'}")


@pytest.mark.clauses("XLS-CLI-015", "XLS-CLI-016")
def test_what_create_prints(scenario: Scenario, command: CommandLine, need: Need, tell: Tell) -> None:
    """The name that was chosen on standard output, a warning on standard error."""
    need("disk-only")
    domain = scenario.domain
    scenario.play(do.Create(memory="no"), by=command.on(domain), also=("XLS-CLI-016",))
    assert command.ended is not None
    (chosen,) = names(scenario)
    must(["XLS-CLI-016"], chosen in command.ended.out, "the chosen name is not told", chosen, command.ended)
    file = str(file_with(domain, 'name = "warned"\ndesription = "x"\n'))
    warned = command.run("snapshot-create", file, domain.name)
    must(["XLS-CLI-015"], warned.status == 0, "a warning changes the exit status", 0, warned)
    right = "desription" in warned.err and "desription" not in warned.out
    must(["XLS-CLI-015"], right, "a warning is not on standard error", "on standard error", warned)
    tell(f"{command.ended.err.strip().splitlines()[0]}")


ESCAPE = "\x1b[31m"


@pytest.mark.clauses("XLS-CLI-017")
def test_nothing_printed_controls_the_terminal(
    scenario: Scenario, command: CommandLine, need: Need, tell: Tell
) -> None:
    """A description with an escape sequence is kept as it is, and shown harmlessly."""
    need("disk-only")
    domain = scenario.domain
    file = str(file_with(domain, f'name = "x"\ndescription = "red {ESCAPE} bell \\a"\n'))
    done("XLS-CLI-017", command.run("snapshot-create", file, domain.name))
    (row,) = scenario.accepts(p.SnapshotList(domain=domain.name), ("XLS-LIST-001",)).snapshots
    must(
        ["XLS-CREATE-013"], ESCAPE in row.description, "the description was changed", ESCAPE, row.description
    )
    for ended in (
        done("XLS-CLI-017", command.run("snapshot-list", "-l", domain.name)),
        done("XLS-CLI-017", command.run("snapshot-list", "-o", "json", domain.name)),
        refused("XLS-CLI-017", command.run("snapshot-delete", "-n", f"no{ESCAPE}", domain.name)),
    ):
        found = re.findall(r"[\x00-\x08\x0b-\x1f\x7f]", ended.out + ended.err)
        must(["XLS-CLI-017"], not found, "control characters are printed", "escaped", ended)
    tell("escape sequences are printed escaped")
