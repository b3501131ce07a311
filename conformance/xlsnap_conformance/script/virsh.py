# SPDX-License-Identifier: LGPL-2.1-or-later
"""The script for libvirt's QEMU driver: commands of `virsh` (pure)."""

from __future__ import annotations

import shlex
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator

from .. import protocol as p
from .. import trace as do
from ..drivers.virsh.domain_xml import domain_xml
from ..drivers.virsh.options import create_options
from ..trace import DiskOf, Step, Trace
from .common import Dialect, image, new_images, quoted

_HEAD = """\
#!/bin/sh
# {title}
#
# Does the steps of a trace of the xlsnap conformance kit by hand. Needs virsh (LIBVIRT_DEFAULT_URI chooses
# the connection), qemu-img, python3 for the guest's serial port, and the probe guest's firmware (PROBE_ROM).
set -u
VIRSH=${{VIRSH:-virsh}}
PROBE_ROM=${{PROBE_ROM:?set it to the path of probe.rom}}
DOMAIN=xlsnap-cts-script-$$
SCRATCH=$(mktemp -d)
trap '"$VIRSH" -q destroy "$DOMAIN" >/dev/null 2>&1
    "$VIRSH" -q undefine "$DOMAIN" --snapshots-metadata
    echo "images: $SCRATCH"' EXIT
n=$$

# One request to the probe guest on the domain's first serial port; prints the reply.
guest() {{
    n=$((n + 1))
    python3 -c '
import socket, sys
path, number, request = sys.argv[1:]
port = socket.socket(socket.AF_UNIX)
port.settimeout(5)
port.connect(path)
port.sendall(f"\\x15{{number}} {{request}}\\n".encode())
for line in port.makefile():
    if line.startswith(f"{{number}} "):
        print(line.partition(" ")[2].strip())
        break
' "$SCRATCH/console" "$n" "$*" || echo "no answer"
}}
"""

_LOOK = """
# --- what there is to see ---
run "$VIRSH" domstate "$DOMAIN"
run "$VIRSH" snapshot-list "$DOMAIN"
"$VIRSH" resume "$DOMAIN" >/dev/null 2>&1 # so that the guest can answer
"""

_UUID = "00000000-0000-4000-8000-000000000000"


def _begin(trace: Trace) -> Iterator[str]:
    yield from new_images(trace)
    yield _definition(trace, [disk for disk in trace.domain.disks if not disk.spare])
    yield 'run "$VIRSH" start "$DOMAIN"'


def _definition(trace: Trace, disks: list[DiskOf]) -> str:
    """Return the commands that define the domain with these disks."""
    request = p.DomainCreate(
        name="$DOMAIN",
        memory_mib=trace.domain.memory_mib,
        vcpus=trace.domain.vcpus,
        firmware=p.Firmware(rom="$PROBE_ROM", disk="", iso=""),
        disks=tuple(
            p.Disk(
                vdev=disk.vdev,
                path=image(disk),
                format=disk.format,
                readonly=disk.readonly,
                cdrom=disk.cdrom,
            )
            for disk in disks
        ),
    )
    element = ET.fromstring(domain_xml(request, "$SCRATCH/console"))
    ET.indent(element)
    xml = ET.tostring(element, encoding="unicode")
    return f'cat >"$SCRATCH/domain.xml" <<EOF\n{xml}\nEOF\nrun "$VIRSH" define "$SCRATCH/domain.xml"'


def _commands(step: Step, trace: Trace) -> Iterable[str]:
    match step:
        case do.Create():
            return [_create(step, trace)]
        case do.Revert(name=name, paused=paused):
            option = " --paused" if paused else ""
            return [f'run "$VIRSH" snapshot-revert "$DOMAIN" --snapshotname={shlex.quote(name)}{option}']
        case do.Delete(name=name):
            option = " --children-only" if step.children_only else " --children" if step.children else ""
            return [f'run "$VIRSH" snapshot-delete "$DOMAIN" --snapshotname={shlex.quote(name)}{option}']
        case do.Start(paused=paused, disks=vdevs):
            begin = f'run "$VIRSH" start "$DOMAIN"{" --paused" if paused else ""}'
            chosen = [disk for disk in trace.domain.disks if disk.vdev in (vdevs or ())]
            return [begin] if vdevs is None else [_definition(trace, chosen), begin]
        case _:
            return _PLAIN[type(step)]


_PLAIN: dict[type[Step], list[str]] = {
    do.Pause: ['run "$VIRSH" suspend "$DOMAIN"'],
    do.Unpause: ['run "$VIRSH" resume "$DOMAIN"'],
    do.PowerCycle: ['run "$VIRSH" destroy "$DOMAIN"', 'run "$VIRSH" start "$DOMAIN"'],
    do.Destroy: ['run "$VIRSH" destroy "$DOMAIN"'],
    do.List: ['run "$VIRSH" snapshot-list "$DOMAIN"'],
    do.Check: ['run "$VIRSH" snapshot-list --tree "$DOMAIN"'],
}


def _create(step: do.Create, trace: Trace) -> str:
    request = p.SnapshotCreate(
        domain="$DOMAIN",
        name=step.name,
        description=step.description,
        memory=step.memory,
        disks=step.disks,
        type=step.type,
    )
    writable = [disk.vdev for disk in trace.domain.disks if disk.writable and not disk.spare]
    number = trace.steps.index(step) + 1
    options = create_options(request, writable, f"{do.SCRATCH}/memory-{number}.save")
    return f'run "$VIRSH" snapshot-create-as "$DOMAIN" {" ".join(map(quoted, options))}'


DIALECT = Dialect(head=_HEAD, begin=_begin, commands=_commands, look=_LOOK)
