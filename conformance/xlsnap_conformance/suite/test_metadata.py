# SPDX-License-Identifier: LGPL-2.1-or-later
"""Metadata files. Every scenario looks at them; these are here for those who test nothing else."""

from __future__ import annotations

import pytest

from xlsnap_conformance.expectations import METADATA_CLAUSES

from .conftest import Need, Play
from .test_scenarios import TRACES


@pytest.mark.parametrize(
    "name", ["paused-domain", "some-disks", "memory-path", "descriptions", "delete-all", "deep-tree"]
)
@pytest.mark.clauses(*sorted(METADATA_CLAUSES))
def test_metadata(name: str, play: Play, need: Need) -> None:
    need("metadata-files")
    play(TRACES[name])
