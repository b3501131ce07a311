# SPDX-License-Identifier: LGPL-2.1-or-later
"""``python -m xlsnap_conformance``: the same as the command ``xlsnap-conformance``."""

from .cli import main

main()
