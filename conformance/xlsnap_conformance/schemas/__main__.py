# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write the published schemas anew: ``python -m xlsnap_conformance.schemas``."""

from . import DIRECTORY, FILES, text

for name, make in FILES.items():
    (DIRECTORY / name).write_text(text(make()))
