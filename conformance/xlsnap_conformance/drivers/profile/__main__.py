# SPDX-License-Identifier: LGPL-2.1-or-later
"""Driver made of a profile: ``python -m xlsnap_conformance.drivers.profile FILE.toml``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...failures import HarnessError
from ..serving import Refused, serve
from .commands import load
from .driver import ProfileDriver
from .templates import check


def main() -> None:
    """Serve on standard input and output."""
    parser = argparse.ArgumentParser(prog="xlsnap_conformance.drivers.profile", description=__doc__)
    parser.add_argument("file", type=Path, help="the profile")
    options = parser.parse_args()
    try:
        profile = load(options.file)
        check(profile, str(options.file))
        driver = ProfileDriver(profile)
    except (HarnessError, Refused) as error:
        parser.exit(1, f"{error}\n")
    serve(driver)


main()
