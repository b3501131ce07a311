# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kinds of what `snapshot-check` finds, and what each means to the user (pure)."""

from __future__ import annotations

import enum

import msgspec

from .steps import AnyStep, HideMetadata, Plan, PlannedStep, ShowMetadata


class Kind(enum.Enum):
    """What a finding is; the value is its name on the command line and in JSON."""

    INTERRUPTED = "interrupted"
    METADATA_DAMAGED = "metadata-damaged"
    CONFIG_DAMAGED = "config-damaged"
    METADATA_COPY = "metadata-copy"
    SNAPSHOT_HIDDEN = "snapshot-hidden"
    SNAPSHOT_INCOMPLETE = "snapshot-incomplete"
    SNAPSHOT_UNCERTAIN = "snapshot-uncertain"
    MEMORY_MISSING = "memory-missing"
    MEMORY_INCOMPLETE = "memory-incomplete"
    MEMORY_UNUSED = "memory-unused"
    IMAGE_MISSING = "image-missing"
    IMAGE_UNREADABLE = "image-unreadable"
    IMAGE_DAMAGED = "image-damaged"
    TAG_MISSING = "tag-missing"
    TAG_UNKNOWN = "tag-unknown"
    OVERLAY_UNUSED = "overlay-unused"
    OVERLAY_MISSING = "overlay-missing"
    LINK_DIFFERS = "link-differs"
    LINK_FORMAT = "link-format"
    DISK_IS_NEEDED = "disk-is-needed"
    PARENT_WRONG = "parent-wrong"
    CURRENT_WRONG = "current-wrong"


MEANING = {
    Kind.INTERRUPTED: "the next command on this domain undoes or finishes it",
    Kind.METADATA_DAMAGED: "the snapshot cannot be used, and no image is merged or removed as long as nobody "
    "knows what it needs; put the file back from a backup, or remove it to give the snapshot up",
    Kind.CONFIG_DAMAGED: "the snapshot cannot be reverted to; put its metadata back from a backup, or delete "
    "it",
    Kind.METADATA_COPY: "an interrupted write left a second copy of the metadata",
    Kind.SNAPSHOT_HIDDEN: "it was being made or deleted; all of it is there, so it can be listed again",
    Kind.SNAPSHOT_INCOMPLETE: "it was being made or deleted; what is left of it is of no use",
    Kind.SNAPSHOT_UNCERTAIN: "it was being made or deleted, and not all of it can be read now; make that "
    "accessible and check again",
    Kind.MEMORY_MISSING: "the snapshot cannot be reverted to; put the file back, or delete the snapshot",
    Kind.MEMORY_INCOMPLETE: "an interrupted operation left it, and it cannot be loaded",
    Kind.MEMORY_UNUSED: "no snapshot names this memory image; remove the file if you do not need it",
    Kind.IMAGE_MISSING: "what reads from it cannot be used; put the image back, or delete the snapshots that "
    "need it",
    Kind.IMAGE_UNREADABLE: "what reads from it cannot be used, or not now",
    Kind.IMAGE_DAMAGED: "its content may be wrong; keep a copy of it before qemu-img check -r, which guesses",
    Kind.TAG_MISSING: "the snapshot cannot be reverted to; delete it",
    Kind.TAG_UNKNOWN: "an internal snapshot that somebody else made; its name cannot be used for one of ours",
    Kind.OVERLAY_UNUSED: "the toolstack made this image, and nothing reads from it any more",
    Kind.OVERLAY_MISSING: "the record names an image that does not exist and that nothing needs",
    Kind.LINK_DIFFERS: "another program has changed one of them; do not start the domain before you know "
    "which is right (qemu-img rebase -u changes what the image says)",
    Kind.LINK_FORMAT: "a format that is not named right is guessed from what the guest wrote, or refused; it "
    "can be corrected while the domain is stopped",
    Kind.DISK_IS_NEEDED: "a snapshot needs this image, and the domain writes to it; revert to a snapshot, or "
    "delete the snapshots that need the image",
    Kind.PARENT_WRONG: "the tree of snapshots shows it as a first one",
    Kind.CURRENT_WRONG: "the domain's state came from it, and it does not exist any more",
}
"""What each kind means, and what can be done about it."""

NOTES = frozenset({Kind.TAG_UNKNOWN})
"""Kinds that are worth knowing and no fault: they leave the exit status 0."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that does not belong together.

    ``what`` names it, ``why`` tells what it means and what to do. ``repair`` are the steps that mend it
    without loss; None if there is no such way. ``repaired``: they have been taken.
    """

    kind: Kind
    what: str
    why: str
    repair: tuple[AnyStep, ...] | None = None
    repaired: bool = False

    @classmethod
    def of(cls, kind: Kind, what: str, repair: tuple[AnyStep, ...] | None = None) -> Finding:
        """Make a finding with the meaning of its kind."""
        return cls(kind=kind, what=what, why=MEANING[kind], repair=repair)

    @property
    def is_note(self) -> bool:
        """Whether it is only worth knowing."""
        return self.kind in NOTES

    @property
    def is_left(self) -> bool:
        """Whether it is a fault that is still there."""
        return not self.repaired and not self.is_note


def plan_repair(finding: Finding) -> Plan:
    """Return the plan that mends it.

    What fails or is interrupted stays as far as it got: the next check finds the rest. Only metadata that was
    hidden on the way is shown again.
    """
    return Plan(
        operation="repair",
        snapshot="",
        steps=tuple(
            PlannedStep(step, ShowMetadata(name=step.name) if type(step) is HideMetadata else None)
            for step in finding.repair or ()
        ),
    )
