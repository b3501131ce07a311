# SPDX-License-Identifier: LGPL-2.1-or-later
"""Driver of the reference toolstack: ``python -m xlsnap_conformance.drivers.reference [OPTIONS]``."""

from __future__ import annotations

import argparse
import asyncio

from xlsnap.errors import XlsnapError
from xlsnap.hosts import CHOICES, choose

from ...protocol import CAPABILITIES
from ..linux import KINDS
from . import mutants
from .server import ReferenceDriver, serve


def main() -> None:
    """Serve on standard input and output; with a mutant, as that broken toolstack."""
    breaks = {
        name: mutant.break_it
        for name, mutant in mutants.CATALOGUE.items()
        if mutant.part == "toolstack" and mutant.break_it is not None
    }
    parser = argparse.ArgumentParser(prog="xlsnap_conformance.drivers.reference", description=__doc__)
    parser.add_argument("--mutant", choices=sorted(breaks), metavar="NAME", help="be broken in this way")
    parser.add_argument(
        "--accelerator",
        default="tcg",
        help="tcg (the default: quickest for so small a guest, and the most even), kvm or auto",
    )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        choices=CAPABILITIES,
        metavar="CAPABILITY",
        help="do not claim it, and refuse what needs it; can be given again",
    )
    parser.add_argument(
        "--host", default="qemu", choices=CHOICES, help="what the domains run on (qemu)", metavar="NAME"
    )
    parser.add_argument(
        "--guest",
        choices=KINDS,
        default="pv",
        metavar="KIND",
        help="kind of the domains on Xen: pv (the default), pvh or hvm",
    )
    options = parser.parse_args()
    implementation = "xlsnap"
    if options.mutant:
        breaks[options.mutant]()
        implementation = f"xlsnap broken by mutant {options.mutant}"
    try:
        host = choose(options.host)
    except XlsnapError as error:
        parser.exit(error.exit_code, f"{parser.prog}: {error}\n")
    driver = ReferenceDriver(
        implementation=implementation,
        accelerator=options.accelerator,
        without=options.without,
        mutant=options.mutant,
        host=host,
        guest=options.guest,
    )
    asyncio.run(serve(driver))


main()
