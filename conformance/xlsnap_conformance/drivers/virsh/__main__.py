# SPDX-License-Identifier: LGPL-2.1-or-later
"""Driver of libvirt: ``python -m xlsnap_conformance.drivers.virsh [--connect URI]``."""

from __future__ import annotations

import argparse

from ..serving import Refused, serve
from .command import Virsh
from .daemon import Daemon, DaemonError
from .driver import VirshDriver


def main() -> None:
    """Serve on standard input and output; by default with the kit's own libvirtd."""
    parser = argparse.ArgumentParser(prog="xlsnap_conformance.drivers.virsh", description=__doc__)
    parser.add_argument(
        "--connect",
        metavar="URI",
        help="connection to libvirt (default: the daemon that 'xlsnap-conformance host libvirt start' runs)",
    )
    options = parser.parse_args()
    try:
        driver = VirshDriver(Virsh(options.connect or Daemon.default().uri))
    except (DaemonError, Refused) as error:
        parser.exit(1, f"virsh driver: {error}\n")
    serve(driver)


main()
