# SPDX-License-Identifier: LGPL-2.1-or-later
"""Grammars of the xl configuration language, xl disk specifications and xl.snapshot.conf."""

from .config import parse_config
from .deviations import DEVIATIONS, Deviation
from .diagnostics import ConfigError, Diagnostic
from .disk import DiskSpec, parse_disk
from .snapshot import SnapshotConfig, SnapshotDisk, parse_snapshot_config

__all__ = [
    "DEVIATIONS",
    "ConfigError",
    "Deviation",
    "Diagnostic",
    "DiskSpec",
    "SnapshotConfig",
    "SnapshotDisk",
    "parse_config",
    "parse_disk",
    "parse_snapshot_config",
]
