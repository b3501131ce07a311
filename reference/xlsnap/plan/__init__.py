# SPDX-License-Identifier: LGPL-2.1-or-later
"""Decisions: from a request and the observed state to a plan (pure, no I/O).

Each `plan_…` function refuses what the specification refuses, before anything is touched, and otherwise
returns the steps of the operation in order. One module for each operation; `observed` has what they look at.
"""

from .create import (
    ChosenDisk,
    check_can_snapshot,
    choose_disks,
    choose_name,
    describe,
    overlay_candidates,
    plan_create,
    plan_disk_snapshots,
)
from .delete import descendants, plan_delete, plan_merge
from .lifecycle import adopt_images, plan_restore, plan_save, plan_start
from .observed import (
    ObservedDisk,
    ObservedDomain,
    find_snapshot,
    observe_disk,
    snapshot_config,
    snapshot_disks,
    with_one_image_less,
    without_snapshot,
)
from .revert import Return, choose_returns, plan_disk_revert, plan_revert

__all__ = [
    "ChosenDisk",
    "ObservedDisk",
    "ObservedDomain",
    "Return",
    "adopt_images",
    "check_can_snapshot",
    "choose_disks",
    "choose_name",
    "choose_returns",
    "descendants",
    "describe",
    "find_snapshot",
    "observe_disk",
    "overlay_candidates",
    "plan_create",
    "plan_delete",
    "plan_disk_revert",
    "plan_disk_snapshots",
    "plan_merge",
    "plan_restore",
    "plan_revert",
    "plan_save",
    "plan_start",
    "snapshot_config",
    "snapshot_disks",
    "with_one_image_less",
    "without_snapshot",
]
