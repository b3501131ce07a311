# SPDX-License-Identifier: LGPL-2.1-or-later
"""``xlsnap-conformance host libvirt``: start and stop a libvirtd of the kit's own."""

from __future__ import annotations

import click

_EPILOG = """\b
Examples:
  xlsnap-conformance host libvirt start
  xlsnap-conformance run --driver virsh --profile quick
  xlsnap-conformance host libvirt stop
"""


@click.group("libvirt", epilog=_EPILOG)
def libvirt() -> None:
    """A libvirtd for the driver 'virsh'.

    It lives in a private directory, XLSNAP_LIBVIRT_DIR, and has nothing to do with a libvirtd of the system.
    """


@libvirt.command()
def start() -> None:
    """Start it, unless it runs, and print its connection."""
    from ..drivers.virsh.daemon import Daemon

    click.echo(Daemon.default().start())


@libvirt.command()
def stop() -> None:
    """End it and the domains that it has left, and remove its directory."""
    from ..drivers.virsh.daemon import Daemon

    click.echo("stopped" if Daemon.default().stop() else "it did not run")


@libvirt.command()
def status() -> int:
    """Print the connection; exit status 1 if it does not run."""
    from ..drivers.virsh.daemon import Daemon

    daemon = Daemon.default()
    if daemon.process() is None:
        click.echo("it does not run")
        return 1
    click.echo(daemon.uri)
    return 0
