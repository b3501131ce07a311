# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command ``xlsnap`` as the driver starts it: the reference's own, as the mutant that the driver is."""

from __future__ import annotations

import os

MUTANT_VARIABLE = "XLSNAP_CONFORMANCE_MUTANT"
"""Environment variable with the name of the mutant."""


def main() -> None:
    """Be the mutant, if one is named, and run the command line."""
    if name := os.environ.get(MUTANT_VARIABLE):
        from .mutants import CATALOGUE

        break_it = CATALOGUE[name].break_it
        if break_it is not None:
            break_it()
    from xlsnap.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
