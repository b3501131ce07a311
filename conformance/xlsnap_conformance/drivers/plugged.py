# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run the driver of an installed package: ``python -m xlsnap_conformance.drivers.plugged NAME [OPTION…]``.

Its entry point, in the group `drivers.GROUP`, names a function that takes the options, a list of words, and
returns what `serving.serve` takes. It runs in a process of its own, like any other driver.
"""

from __future__ import annotations

import sys

from . import plugged_in
from .serving import Refused, serve


def main() -> None:
    """Serve on standard input and output."""
    name, *options = sys.argv[1:] or [""]
    point = plugged_in().get(name)
    if point is None:
        sys.exit(f"no installed package offers a driver {name!r}")
    try:
        driver = point.load()(options)
    except Refused as error:
        sys.exit(f"driver {name}: {error}")
    serve(driver)


if __name__ == "__main__":
    main()
