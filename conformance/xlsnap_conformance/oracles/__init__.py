# SPDX-License-Identifier: LGPL-2.1-or-later
"""Oracles: each looks at one thing, compares it with the model, and yields what differs.

`guest` asks the probe guest, `chains` follows the images and their backing files, `content` reads those that
snapshots need, `images` looks at internal snapshots and consistency, `metadata` reads the metadata files,
`listing` compares the implementation's own list, and `leftovers` looks at directories. None knows how the
implementation works.
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
    IDENTITY = "name and uuid"
    VARIABLES = "guest memory"
    SECTORS = "guest disks"
    NOT_LISTED = "a snapshot that the list lacks"
    LISTED_TOO_MUCH = "a snapshot in the list that should not be there"
    LIST_FAILS = "a list that is refused"
    LIST_ORDER = "order of the list"
    LIST_FIELDS = "what the list tells of a snapshot"
    LIST_TIME = "creation time in the list"
    LIST_DESCRIPTION = "the description in the list"
    LIST_DISKS = "the disks in the list"
    LIST_TREE = "the tree in the list"
    CREATION_TIME = "creation time in the metadata"
    DEFAULT_NAME = "name of a snapshot that was created without one"
    TAG_MISSING = "internal snapshot that an image lacks"
    TAG_LEFT = "internal snapshot that belongs to nothing"
    TAG_TWICE = "internal snapshots of one name"
    FOREIGN_TAG = "internal snapshot that somebody else has made"
    IMAGE_SOUND = "consistency of an image"
    DISKS = "which disks the domain has"
    DISK_IMAGE = "the image that a disk uses"
    DISK_FORMAT = "the format in which a disk's image is opened"
    OVERLAY = "what an overlay lies over"
    OVERLAY_PLACE = "where an overlay is"
    OVERLAY_LEFT = "image that nothing reads from"
    BACKING = "what the images of a chain name as their backing files"
    FIRST_IMAGE = "image that the user made for a disk"
    IMAGE_GONE = "image from which something reads"
    WRITES_BELOW = "image that is written to though another reads from it"
    STATE_CHANGED = "content of an image that a snapshot needs"
    METADATA_SET = "metadata file for each snapshot"
    METADATA_FIELDS = "fields of the metadata"
    METADATA_DISKS = "disks in the metadata"
    METADATA_EXTERNAL = "external disks in the metadata"
    METADATA_TYPE = "type of all disks in the metadata"
    METADATA_MEMORY = "memory image in the metadata"
    METADATA_STATE = "run state in the metadata"
    METADATA_MODE = "mode of files and directories"
    DEFAULT_MEMORY = "memory image in the default place"
    MEMORY_IMAGE = "memory image where the user wanted it"
    MEMORY_LEFT = "memory image that belongs to nothing"
    FILE_LEFT = "file that belongs to nothing"
    USER_FILE = "file of the user"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as the model says.

    ``expected`` and ``observed`` are plain data; ``vdev`` is the disk that it is about, if any.
    """

    aspect: Aspect
    summary: str
    expected: Any
    observed: Any
    vdev: str | None = None
