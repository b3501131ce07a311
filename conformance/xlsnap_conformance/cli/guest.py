# SPDX-License-Identifier: LGPL-2.1-or-later
"""``xlsnap-conformance guest``: the probe guest, for toolstacks of one's own."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import click

from .progress import Progress

_CONFIGURATION = """\
# xl create {name}.cfg      speaks the probe's line protocol on its console
name = "probe-{name}"
type = "{name}"
memory = {memory}
vcpus = 1
kernel = "{kernel}"
ramdisk = "{ramdisk}"
extra = "console={console} quiet loglevel=4 mitigations=off nokaslr"
{more}disk = [ "format=qcow2,vdev=xvda,access=rw,backendtype=qdisk,target=/path/of/disk.qcow2" ]
"""

_HVM = 'serial = "pty"\nvga = "none"\nvnc = 0\nusb = 0\nxen_platform_pci = 1\n'

_KINDS = {  # kind: memory in MiB, kernel, console, further settings
    "pv": (96, "vmlinux", "hvc0", ""),
    "pvh": (128, "vmlinux", "hvc0", ""),
    "hvm": (128, "vmlinuz", "ttyS0", _HVM),
}


@click.group("guest", short_help="Get the probe guest for a toolstack of your own.")
def command() -> None:
    """The probe guest: what its images are, its README tells."""


@command.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--no-linux", is_flag=True, help="Only the bare-metal images, which need no downloads.")
def export(directory: Path, no_linux: bool) -> None:
    """Write the probe guest to DIRECTORY: bare-metal images; kernel, ramdisk and configurations for Xen."""
    from ..guest import image

    directory.mkdir(parents=True, exist_ok=True)
    sources = [image("rom"), image("disk"), image("iso"), image("linux")]
    targets = {source.name: source for source in [*sources, image("rom").parent.parent / "README.md"]}
    if not no_linux:
        targets |= _linux()
    for name, source in targets.items():
        shutil.copyfile(source, directory / name)
    for kind, (memory, kernel, console, more) in _KINDS.items() if not no_linux else ():
        here = directory.absolute()
        text = _CONFIGURATION.format(
            name=kind,
            memory=memory,
            kernel=here / kernel,
            ramdisk=here / "probe.cpio",
            console=console,
            more=more,
        )
        (directory / f"{kind}.cfg").write_text(text)
    sums = [
        f"{hashlib.sha256((directory / name).read_bytes()).hexdigest()}  {name}\n" for name in sorted(targets)
    ]
    (directory / "SHA256SUMS").write_text("".join(sums))
    for path in sorted(directory.iterdir()):
        click.echo(path)


def _linux() -> dict[str, Path]:
    from ..hosts.xen.build import Builder
    from ..hosts.xen.cache import default_directory

    with Progress() as progress:
        builder = Builder(default_directory(), progress)
        built = builder.latest() or builder.build()
    return {
        "vmlinux": built.guest_kernel,
        "vmlinuz": built.guest_image,
        "probe.cpio": built.guest_ramdisk,
    }
