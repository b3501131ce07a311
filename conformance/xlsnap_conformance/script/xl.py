# SPDX-License-Identifier: LGPL-2.1-or-later
"""The script for a toolstack with the commands of xl (pure).

It needs a POSIX shell, `qemu-img`, the image of the probe guest, and a toolstack with the commands of `xl`:
``XL=xlsnap`` by default. It does the steps one after another and then prints what there is to see; what
should be seen stands above it as a comment.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from .. import trace as do
from ..snapshot_conf import text_of
from ..trace import Step, Trace
from .common import Dialect, image, new_images, quoted

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
"""

_LOOK = """
# --- what there is to see ---
run "$XL" list
run "$XL" snapshot-list --long "$DOMAIN"
"$XL" unpause "$DOMAIN" >/dev/null 2>&1 # so that the guest can answer
"""


def _domain(trace: Trace) -> Iterator[str]:
    yield from new_images(trace)
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
                f"'vdev={disk.vdev},format={disk.format},access={access}{devtype},target={image(disk)}'"
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
    match step:
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
        case _:
            return _PLAIN[type(step)]


_PLAIN: dict[type[Step], list[str]] = {
    do.Pause: ['run "$XL" pause "$DOMAIN"'],
    do.Unpause: ['run "$XL" unpause "$DOMAIN"'],
    do.PowerCycle: ['run "$XL" destroy "$DOMAIN"', 'run "$XL" create "$SCRATCH/domain.cfg"'],
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
    config = f'printf %s {quoted(text_of(step))} >"$SCRATCH/snapshot.conf"'
    return [config, f'run "$XL" {dry}snapshot-create {live}"$SCRATCH/snapshot.conf" "$DOMAIN"']


DIALECT = Dialect(head=_HEAD, begin=_domain, commands=_commands, look=_LOOK)
