# SPDX-License-Identifier: LGPL-2.1-or-later
"""Oracles: each looks at one thing, compares it with the model, and yields what differs.

`guest` asks the probe guest, `images` reads the disk images, `metadata` the metadata files, `listing`
compares the implementation's own list, and `leftovers` looks at directories. None of them trusts another,
and none knows how the implementation works.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Aspect(StrEnum):
    """What a finding is about; with the operation that it follows it tells the clause (`expectations`)."""

    ACCEPTED = "a right request is carried out"
    ERROR_KIND = "an error says whose fault it is"
    RUN_STATE = "run state"
    VARIABLES = "guest memory"
    SECTORS = "guest disks"
    LIST_NAMES = "which snapshots the list shows"
    LIST_ORDER = "order of the list"
    CREATION_TIME = "creation time"
    LIST_FIELDS = "what the list tells of a snapshot"
    DEFAULT_NAME = "name of a snapshot that was created without one"
    TAG_MISSING = "internal snapshot in an image"
    TAG_LEFT = "internal snapshot that nothing refers to"
    TAG_TWICE = "internal snapshots of one name"
    IMAGE_IN_USE = "image that the domain uses"
    IMAGE_SOUND = "consistency of an image"
    METADATA_SET = "metadata file for each snapshot"
    METADATA_FIELDS = "fields of the metadata"
    METADATA_MODE = "mode of files and directories"
    MEMORY_IMAGE = "memory image"
    LEFTOVER = "file that nothing refers to"
    USER_FILE = "file of the user"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as the model says. ``expected`` and ``observed`` are plain data."""

    aspect: Aspect
    summary: str
    expected: Any
    observed: Any
