# SPDX-License-Identifier: LGPL-2.1-or-later
"""Driver of xl: ``python -m xlsnap_conformance.drivers.xl [OPTIONS]``.

All files of the run must have the same paths here and in dom0.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from ...capabilities import CAPABILITIES as ALL
from ..linux import KINDS
from ..profile.commands import Transport
from ..serving import Refused, serve
from .command import Xl
from .driver import CAPABILITIES, XlDriver

METADATA_ROOT = Path("/var/lib/xen/snapshots")


def main() -> None:
    """Serve on standard input and output."""
    parser = argparse.ArgumentParser(prog="xlsnap_conformance.drivers.xl", description=__doc__)
    parser.add_argument(
        "--run", metavar="PREFIX", default="", help="words before each command: 'ssh root@xen1'"
    )
    parser.add_argument(
        "--xl", metavar="COMMAND", default="xl", help="the command (xl); more words are allowed"
    )
    parser.add_argument(
        "--guest",
        choices=(*KINDS, "bare"),
        default="pv",
        metavar="KIND",
        help="pv (the default), pvh, hvm: the Linux probe; bare: the bare-metal one as firmware",
    )
    parser.add_argument(
        "--metadata-root", metavar="DIR", type=Path, default=METADATA_ROOT, help=f"metadata ({METADATA_ROOT})"
    )
    parser.add_argument(
        "--time-scale",
        metavar="N",
        type=float,
        default=1.0,
        help="how many times slower Xen is than usual (1)",
    )
    for option, text in (("--with", "claim this too"), ("--without", "do not claim this")):
        parser.add_argument(
            option, action="append", default=[], choices=ALL, metavar="CAPABILITY", help=f"{text}; repeatable"
        )
    options = vars(parser.parse_args())
    claimed = dict.fromkeys((*CAPABILITIES, *options["with"]))
    try:
        xl = Xl(
            tuple(shlex.split(options["xl"])),
            Transport(run=tuple(shlex.split(options["run"]))),
            scale=options["time_scale"],
        )
        driver = XlDriver(
            xl,
            guest=KINDS.get(options["guest"]),
            metadata_root=options["metadata_root"],
            capabilities=[name for name in claimed if name not in options["without"]],
            time_scale=options["time_scale"],
        )
    except (Refused, ValueError) as error:
        parser.exit(1, f"xl driver: {error}\n")
    serve(driver)


main()
