# SPDX-License-Identifier: LGPL-2.1-or-later
"""Metadata files. Every scenario looks at them; these are here for those who test nothing else."""

from __future__ import annotations

import pytest

from xlsnap_conformance.coverage import metadata_clauses

from .conftest import Need, Play
from .test_scenarios import TRACES


@pytest.mark.parametrize(
    "name", ["paused-domain", "some-disks", "memory-path", "descriptions", "delete-all", "deep-tree"]
)
@pytest.mark.clauses(*metadata_clauses())
def test_metadata(name: str, play: Play, need: Need) -> None:
    need("metadata-files")
    play(TRACES[name])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("external", marks=pytest.mark.clauses(*metadata_clauses("external"))),
        pytest.param("external-default-target", marks=pytest.mark.clauses(*metadata_clauses("external"))),
        pytest.param("mixed", marks=pytest.mark.clauses(*metadata_clauses("mixed"))),
    ],
)
def test_metadata_of_external_disks(name: str, play: Play, need: Need) -> None:
    need("metadata-files")
    play(TRACES[name])
