# SPDX-License-Identifier: LGPL-2.1-or-later
"""``python -m xlsnap.cli``."""

from . import main

main()
