# SPDX-License-Identifier: LGPL-2.1-or-later
"""``python -m xlsnap_conformance.cli``: the same as the command ``xlsnap-conformance``."""

from . import main

main()
