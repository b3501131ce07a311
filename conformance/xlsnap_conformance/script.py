# SPDX-License-Identifier: LGPL-2.1-or-later
"""A trace as a shell script that shows the failure without the kit (pure).

It needs a POSIX shell, `qemu-img`, the image of the probe guest, and a toolstack with the commands of `xl`:
``XL=xlsnap`` by default. It does the steps one after another and then prints what there is to see; what
should be seen stands above it as a comment.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from . import trace as do
from .guest import disk_number
from .snapshot_conf import text_of
from .trace import SCRATCH, DiskOf, Step, Trace
from .wording import describe

_HEAD = """\
#!/bin/sh
# {title}
#
# Does the steps of a trace of the xlsnap conformance kit by hand. Needs qemu-img, the probe guest's firmware
# (PROBE_ROM), and a toolstack with the commands of xl (XL, by default xlsnap).
set -u
XL=${{XL:-xlsnap}}
PROBE_ROM=${{PROBE_ROM:?set it to the path of probe.rom}}
DOMAIN=xlsnap-cts-script-$$
SCRATCH=$(mktemp -d)
trap '"$XL" destroy "$DOMAIN" >/dev/null 2>&1; echo "images: $SCRATCH"' EXIT
n=$$

# One request to the probe guest on the domain's first serial port; prints the reply.
guest() {{
    n=$((n + 1))
    {{ printf '\\025%s %s\\n' "$n" "$*"; sleep 1; }} |
        "$XL" console "$DOMAIN" | tr -d '\\r' | sed -n "s/^$n //p"
}}

# Run a command; say how it ended.
run() {{
    echo "+ $*"
    "$@"
    echo "  exit status $?"
}}
"""

_LOOK = """
# --- what there is to see ---
run "$XL" list
run "$XL" snapshot-list --long "$DOMAIN"
"$XL" unpause "$DOMAIN" >/dev/null 2>&1 # so that the guest can answer
"""


def to_shell(trace: Trace) -> str:
    """Return the script, with a final newline."""
    vdevs = [disk.vdev for disk in trace.domain.disks]
    lines = [_HEAD.format(title=_comment(trace.title or "a scenario")), *_domain(trace)]
    for number, step in enumerate(trace.steps, start=1):
        lines += ["", f"# {number}. {_comment(describe(step))}", *_commands(step, trace)]
    return "\n".join([*lines, *_failure(trace), _LOOK, *_looks(trace, vdevs), ""])


def _comment(text: str) -> str:
    return " ".join(text.split())


def _quoted(text: str) -> str:
    """Quote a word for the shell; the scratch directory stays a variable."""
    return '"$SCRATCH"'.join(shlex.quote(part) if part else "" for part in text.split(SCRATCH)) or "''"


def _image(disk: DiskOf) -> str:
    return f"$SCRATCH/{disk.vdev}.{disk.format}"


def _domain(trace: Trace) -> Iterator[str]:
    for disk in trace.domain.disks:
        yield f'qemu-img create -q -f {disk.format} "{_image(disk)}" {disk.size_kib}K'
    yield _configuration(trace, tuple(disk.vdev for disk in trace.domain.disks if not disk.spare))
    yield 'run "$XL" create "$SCRATCH/domain.cfg"'


def _configuration(trace: Trace, vdevs: tuple[str, ...]) -> str:
    """Return the command that writes the configuration of a domain with these disks."""
    specs = []
    for disk in trace.domain.disks:
        if disk.vdev in vdevs:
            access = "ro" if disk.readonly else "rw"
            devtype = ",cdrom" if disk.cdrom else ""
            specs.append(
                f"'vdev={disk.vdev},format={disk.format},access={access}{devtype},target={_image(disk)}'"
            )
    return f"""\
cat >"$SCRATCH/domain.cfg" <<EOF
name = '$DOMAIN'
type = 'hvm'
memory = {trace.domain.memory_mib}
vcpus = {trace.domain.vcpus}
bios_path_override = '$PROBE_ROM'
serial = 'pty'
on_poweroff = '{trace.domain.on_poweroff}'
disk = [ {", ".join(specs)} ]
EOF"""


def _commands(step: Step, trace: Trace) -> Iterable[str]:
    vdevs = [disk.vdev for disk in trace.domain.disks]
    match step:
        case do.Set(key=key, value=value):
            return [f"guest set {key} {value}"]
        case do.Write(vdev=vdev, lba=lba, word=word):
            return [f"guest wr {disk_number(vdev, vdevs)} {lba} {word}", "guest flush"]
        case do.Create():
            return _create(step)
        case do.Revert(name=name, paused=paused):
            option = "-p " if paused else ""
            return [f'run "$XL" snapshot-revert {option}-n {shlex.quote(name)} "$DOMAIN"']
        case do.Delete(name=name):
            option = "--children-only " if step.children_only else "--children " if step.children else ""
            return [f'run "$XL" snapshot-delete {option}-n {shlex.quote(name)} "$DOMAIN"']
        case do.Start(paused=paused, disks=disks):
            begin = f'run "$XL" create {"-p " if paused else ""}"$SCRATCH/domain.cfg"'
            return [begin] if disks is None else [_configuration(trace, disks), begin]
        case do.PutFile(path=path, content=content):
            return [f"printf %s {shlex.quote(content)} >{_quoted(path)}"]
        case do.PutLink(path=path):
            return [f"ln -s /proc {_quoted(path)}"]
        case do.PutTag(vdev=vdev, name=name):
            return [f'run qemu-img snapshot -c {shlex.quote(name)} "$SCRATCH/{vdev}.qcow2"']
        case do.Zero(vdev=vdev, lba=lba, count=count):
            return [f"# discard {count} sectors from {lba} on, with qemu-io in the present image of {vdev}"]
        case do.Lose(name=name, what="memory"):
            made = (each for each in trace.steps if isinstance(each, do.Create) and each.name == name)
            image = next((each.memory for each in made if SCRATCH in each.memory), None)
            return [f"rm {_quoted(image)}"] if image else ["# remove the memory image by hand here"]
        case do.Lose(name=name, what=vdev):
            return [f'run qemu-img snapshot -d {shlex.quote(name)} "$SCRATCH/{vdev}.qcow2"']
        case _:
            return _PLAIN[type(step)]


_PLAIN: dict[type[Step], list[str]] = {
    do.Pause: ['run "$XL" pause "$DOMAIN"'],
    do.Unpause: ['run "$XL" unpause "$DOMAIN"'],
    do.PowerCycle: ['run "$XL" destroy "$DOMAIN"', 'run "$XL" create "$SCRATCH/domain.cfg"'],
    do.PowerOff: ["guest off"],
    do.Destroy: ['run "$XL" destroy "$DOMAIN"'],
    do.List: ['run "$XL" snapshot-list "$DOMAIN"'],
    do.Check: ['run "$XL" snapshot-list --long "$DOMAIN"'],
}


def _create(step: do.Create) -> list[str]:
    """Through a configuration file, except where options can say it all."""
    dry = "-N " if step.dry_run else ""
    live = "--live " if step.live else ""
    plain = step.memory == "yes" and not step.description and step.disks is None and step.type == "internal"
    if plain and not step.as_config:
        name = "" if step.name is None else f"-n {shlex.quote(step.name)} "
        return [f'run "$XL" {dry}snapshot-create {live}{name}"$DOMAIN"']
    config = f'printf %s {_quoted(text_of(step))} >"$SCRATCH/snapshot.conf"'
    return [config, f'run "$XL" {dry}snapshot-create {live}"$SCRATCH/snapshot.conf" "$DOMAIN"']


def _failure(trace: Trace) -> Iterator[str]:
    if trace.failure is not None:
        broken = ", ".join(trace.failure.clauses)
        yield f"\n# {broken}: {_comment(trace.failure.summary)}"
        yield f"# expected: {_comment(str(trace.failure.expected))}"
        yield f"# observed: {_comment(str(trace.failure.observed))}"
        yield f"# seen with {_comment(trace.failure.implementation)}"


def _looks(trace: Trace, vdevs: list[str]) -> Iterator[str]:
    """Yield commands that show all that the guest has changed and the tags of the images."""
    for key in sorted({step.key for step in trace.steps if isinstance(step, do.Set)}):
        yield f'echo "variable {key}: $(guest get {key})"'
    sectors = {(step.vdev, step.lba) for step in trace.steps if isinstance(step, do.Write)}
    for vdev, lba in sorted(sectors):
        yield f'echo "sector {lba} of {vdev}: $(guest rd {disk_number(vdev, vdevs)} {lba})"'
    for disk in trace.domain.disks:
        if disk.format == "qcow2":
            yield f'run qemu-img info -U -f qcow2 "{_image(disk)}"'
