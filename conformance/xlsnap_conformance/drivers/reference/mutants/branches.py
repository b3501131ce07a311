# SPDX-License-Identifier: LGPL-2.1-or-later
"""Toolstacks whose revert of external disks is broken, and those that lose their way in the tree."""

from __future__ import annotations

from typing import Any

import msgspec
from xlsnap import plan, steps
from xlsnap.chain import present_images
from xlsnap.domain import DomainConfig
from xlsnap.plan import ObservedDomain, Return
from xlsnap.snapshot import PARENT_KEY, DomainSnapshot, SnapshotType
from xlsnap.steps import Plan, PlannedStep
from xlsnap.toolstack import Toolstack

from .catalogue import edit_metadata, edit_steps, mutant, replace, without, wrap

# --- revert -------------------------------------------------------------------------------------------------


def _edit_returns(edit: Any) -> None:
    """Change how each disk comes back; `edit` gets the domain, the snapshot and the way."""

    def choose(original: Any, domain: ObservedDomain, snapshot: DomainSnapshot) -> tuple[Return, ...]:
        return tuple(edit(domain, snapshot, item) for item in original(domain, snapshot))

    wrap(plan, "choose_returns", choose)


@mutant("XLS-REVERT-015", test="external-disk-only")
def revert_into_the_base() -> None:
    """After a revert the guest writes to the image of the external snapshot itself."""
    _edit_returns(lambda _, __, item: Return("keep", item.image) if item.how == "overlay" else item)


@mutant("XLS-REVERT-015", test="external-delete-after-internal")
def applied_in_a_shared_image() -> None:
    """An internal snapshot is applied in an image that an external one needs."""
    _edit_returns(lambda _, __, item: Return("apply", item.image) if item.how == "copy" else item)


@mutant(
    "XLS-REVERT-017",
    bug="LXD #10194: only the configuration was restored, not the block volume",
    test="mixed",
)
def external_disks_not_reverted() -> None:
    """Only the internal disks of a snapshot come back."""

    def keep(domain: ObservedDomain, snapshot: DomainSnapshot, item: Return) -> Return:
        external = {disk.device for disk in snapshot.disks if disk.type is SnapshotType.EXTERNAL}
        present = present_images(domain.config).get(item.image.vdev)
        return Return("keep", present) if present and item.image.vdev in external else item

    _edit_returns(keep)


@mutant("XLS-REVERT-016", test="external")
def overlay_left_by_revert() -> None:
    """The overlay of the working state that was given up is left."""
    edit_steps("plan_revert", without(steps.RemoveImages))


@mutant(
    "XLS-REVERT-016",
    "XLS-REVERT-010",
    bug="Incus #4030: a restore deletes the disk of another snapshot",
    test="external-branches",
)
def other_branch_removed_by_revert() -> None:
    """A revert removes all overlays that the domain does not read from any more, whoever needs them."""

    def revert(original: Any, domain: ObservedDomain, *args: Any, **kwargs: Any) -> Plan:
        made: Plan = original(domain, *args, **kwargs)
        after = next(step.do for step in made.steps if isinstance(step.do, steps.UpdateDomain))
        new = [step.do.overlays for step in made.steps if isinstance(step.do, steps.CreateOverlays)]
        images = domain.images(config=after.config, overlays=(*domain.overlays, *sum(new, ())))
        kept = {lower for path in images.present for lower in (path, *images.below(path))}
        gone = tuple(path for path in images.overlays if path not in kept)
        return replace(made, steps=(*made.steps, PlannedStep(steps.RemoveImages(paths=gone))))

    wrap(plan, "plan_revert", revert)


@mutant(
    "XLS-REVERT-013",
    bug="XAPI #7116, #7156: a disk attached after the snapshot survives the revert",
    test="disk-attached-later",
)
def attached_disk_survives_revert() -> None:
    """A disk that was attached after the snapshot is still there after the revert."""

    def config(original: Any, domain: ObservedDomain, snapshot: DomainSnapshot) -> DomainConfig:
        found: DomainConfig = original(domain, snapshot)
        more = tuple(disk for disk in domain.config.disks if found.disk(str(disk.vdev)) is None)
        return replace(found, disks=(*found.disks, *more))

    wrap(plan.revert, "snapshot_config", config)


@mutant("XLS-REVERT-013", test="disk-detached-later")
def detached_disk_stays_away() -> None:
    """A disk that was detached after the snapshot is not there after the revert."""

    def config(original: Any, domain: ObservedDomain, snapshot: DomainSnapshot) -> DomainConfig:
        found: DomainConfig = original(domain, snapshot)
        left = tuple(disk for disk in found.disks if domain.config.disk(str(disk.vdev)) is not None)
        return replace(found, disks=left)

    wrap(plan.revert, "snapshot_config", config)


# --- the tree -----------------------------------------------------------------------------------------------


def _edit_current(function: str, choose: Any) -> None:
    """Let plans note another snapshot as the one that the domain's state comes from."""

    def planned(original: Any, domain: ObservedDomain, *args: Any, **kwargs: Any) -> Plan:
        made: Plan = original(domain, *args, **kwargs)
        changed = (
            replace(step, do=replace(step.do, current=choose(domain)))
            if isinstance(step.do, steps.UpdateDomain)
            else step
            for step in made.steps
        )
        return replace(made, steps=tuple(changed))

    wrap(plan, function, planned)


@mutant("XLS-LIST-012", bug="XCP #825: a revert stamps a wrong parent", test="external-branches")
def parent_not_moved_by_revert() -> None:
    """The next snapshot after a revert has the parent that it would have had without."""
    _edit_current("plan_revert", lambda domain: domain.current)


@mutant("XLS-LIST-012", bug="XCP #844: a snapshot is its own parent", test="delete-newest")
def its_own_parent() -> None:
    """A snapshot names itself as its parent."""
    edit_metadata(lambda snapshot: replace(snapshot, extra={**snapshot.extra, PARENT_KEY: snapshot.name}))


@mutant("XLS-LIST-012", bug="XCP #837: a parent pointer is stale after a delete", test="delete-middle")
def children_of_the_deleted() -> None:
    """Snapshots that came from a deleted one still name it as their parent."""
    edit_steps("plan_delete", without(steps.ReplaceMetadata))


@mutant("XLS-LIST-012", bug="XCP #837: a parent pointer is stale after a delete", test="delete-newest")
def current_is_the_deleted() -> None:
    """A deleted snapshot is still told to be the one that the domain's state comes from."""
    _edit_current("plan_delete", lambda domain: domain.current)


@mutant("XLS-LIST-012", bug="XCP #837: a parent pointer is stale across a power change", test="power-cycle")
def current_forgotten_by_a_fresh_start() -> None:
    """After a fresh start nobody knows which snapshot the domain's state comes from."""

    async def create(original: Any, self: Toolstack, *args: Any, **kwargs: Any) -> Any:
        info = await original(self, *args, **kwargs)
        record = self.resolve(info.uuid)
        self.store.write_record(msgspec.structs.replace(record, current=None))
        return info

    wrap(Toolstack, "create", create)


@mutant("XLS-DELETE-016", test="delete-children")
def descendants_stay() -> None:
    """A delete with all that descend from a snapshot deletes that one only."""

    async def delete(original: Any, self: Toolstack, ref: str, name: str, **kwargs: Any) -> Any:
        return await original(self, ref, name, progress=kwargs.get("progress"))

    wrap(Toolstack, "snapshot_delete", delete)


@mutant("XLS-DELETE-016", test="delete-children-only")
def only_direct_children() -> None:
    """A delete with all that descend from a snapshot leaves its grandchildren."""

    def descendants(original: Any, needs: Any, name: str) -> list[str]:
        return [child for child in original(needs, name) if needs[child].parent == name]

    wrap(plan, "descendants", descendants)


@mutant("XLS-DELETE-016", test="delete-children-only")
def not_only_children() -> None:
    """A delete of those only that descend from a snapshot takes it as well."""

    async def delete(original: Any, self: Toolstack, ref: str, name: str, **kwargs: Any) -> Any:
        children_only = kwargs.pop("children_only", False)
        return await original(self, ref, name, **{**kwargs, "children": kwargs["children"] or children_only})

    wrap(Toolstack, "snapshot_delete", delete)
