# SPDX-License-Identifier: LGPL-2.1-or-later
"""The plans of start, save and restore."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from .. import steps as do
from ..chain import present_images, with_images
from ..domain import DomainConfig, RunState
from ..errors import DiskChoiceError
from ..steps import Plan, PlannedStep
from .observed import ObservedDomain

PAUSE = PlannedStep(do.PauseDomain(), do.ResumeDomain(if_active=True))


def let_run(*, runs: bool) -> PlannedStep:
    """Let a guest that takes part in saving its memory run, whether it `runs` by itself or was paused.

    Whatever happens afterwards, it is as it was in the end.
    """
    undo = do.ResumeDomain(if_active=True) if runs else do.PauseDomain(if_active=True)
    return PlannedStep(do.ResumeDomain(if_active=True), undo)


def then_stay_paused(
    operation: str, name: str, begun: Sequence[PlannedStep], config: DomainConfig, memory_image: str
) -> Plan:
    """Let a domain whose memory was saved go on paused.

    QEMU gives its disks up once it has saved its memory and takes them back only by running, so the domain
    goes on in a new process that is loaded from what was just written.
    """
    again = do.LoadSuccessor(config=config, memory_image=memory_image)
    promote = do.PromoteSuccessor(config=config, memory_image=memory_image, paused=True, keep_domid=True)
    steps = [
        *begun,
        PlannedStep(again, do.DiscardSuccessor()),
        PlannedStep(do.StopDomain()),
        PlannedStep(promote),
    ]
    return Plan(operation=operation, snapshot=name, steps=tuple(steps), irrevocable_after=len(begun) + 2)


def adopt_images(
    domain: ObservedDomain, config: DomainConfig, *, fresh: bool
) -> tuple[DomainConfig, list[str]]:
    """Return a configuration to start the domain with, on its present images; and warnings (XLS-CREATE-031).

    The user's xl.cfg still names the image that a disk had before its first external snapshot. With `fresh`
    the disk's present overlay is taken instead; without, memory and disks would not fit to each other.

    :raise DiskChoiceError: if a disk is an image that a snapshot needs.
    """
    images = domain.images()
    present = present_images(domain.config)
    instead, warnings = {}, []
    for vdev, image in present_images(config).items():
        known = present.get(vdev)
        if known is not None and known.path == image.path:
            if known.format != image.format:
                instead[vdev] = known
            continue
        if (
            fresh
            and known is not None
            and image.path in (*images.below(known.path), images.first(known.path))
        ):
            instead[vdev] = known
            warnings.append(f"disk {vdev}: {image.path} has gone on as {known.path}, which is used")
        elif images.is_frozen(image.path):
            raise DiskChoiceError(
                f"disk {vdev}: {image.path} is needed by a snapshot of domain {domain.name!r}",
                hint="revert to a snapshot, or name another image",
            )
    return with_images(config, instead), warnings


def plan_start(config: DomainConfig, *, paused: bool) -> Plan:
    """Plan the start of a domain afresh, as `xl create` does."""
    start = do.StartDomain(config=config, paused=paused)
    return Plan(
        operation="create-domain", snapshot="", steps=(PlannedStep(do.DiscardSuccessor()), PlannedStep(start))
    )


def plan_save(
    domain: ObservedDomain,
    path: str,
    *,
    leave: Literal["destroy", "running", "paused"],
    memory_first: bool = False,
) -> Plan:
    """Plan the writing of a domain's memory to a file, as `xl save` does; for `memory_first` see `Host`."""
    paused = domain.run_state is RunState.PAUSED
    steps = [let_run(runs=not paused)] if memory_first else [] if paused else [PAUSE]
    steps.append(PlannedStep(do.SaveMemory(path=path), do.RemoveMemory(path=path)))
    if leave == "paused" and not memory_first:
        steps.append(PlannedStep(do.SyncFile(path=path)))
        return then_stay_paused("save", path, steps, domain.config, path)
    if leave == "running":
        steps.append(PlannedStep(do.ResumeDomain(), do.PauseDomain(if_active=True) if paused else None))
    steps.append(PlannedStep(do.SyncFile(path=path)))
    if leave != "destroy":
        return Plan(operation="save", snapshot=path, steps=tuple(steps))
    steps.append(PlannedStep(do.StopDomain()))
    return Plan(operation="save", snapshot=path, steps=tuple(steps), irrevocable_after=len(steps))


def plan_restore(config: DomainConfig, *, path: str, paused: bool) -> Plan:
    """Plan the start of a domain from a save file, as `xl restore` does."""
    load = do.LoadSuccessor(config=config, memory_image=path)
    promote = do.PromoteSuccessor(config=config, memory_image=path, paused=paused)
    return Plan(
        operation="restore",
        snapshot=path,
        steps=(PlannedStep(load, do.DiscardSuccessor()), PlannedStep(promote, do.StopDomain())),
        irrevocable_after=2,
    )
