# SPDX-License-Identifier: LGPL-2.1-or-later
"""Look at everything that belongs to a domain's snapshots, for `snapshot-check`, and mend what can be."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from . import savefile
from .chain import present_images
from .check import Damaged, ImageFacts, MemoryFacts, Observations, check, images_of
from .errors import HostError, SnapshotDamagedError
from .findings import Finding, Kind, plan_repair
from .journal import Journal
from .layout import MEMORY_SUFFIX, DomainPaths
from .snapshot import DomainSnapshot
from .stored import DamagedSnapshot

if TYPE_CHECKING:
    from .domain import DomainRecord
    from .executor import Executor
    from .steps import DiskImage, Plan
    from .store import Store


class Examiner(Protocol):
    """The part of a host that is needed here."""

    def is_active(self, record: DomainRecord) -> bool:
        """Say whether the domain has a process."""

    async def examine(self, record: DomainRecord, images: Sequence[DiskImage]) -> list[ImageFacts]:
        """Look at images, each by itself, whether the domain has them open or not."""


async def find_and_mend(run: Executor, host: Examiner, *, repair: bool) -> list[Finding]:
    """Check the domain whose lock `run` holds; with `repair` mend what can be mended without loss.

    One repair can bring another to light, so that the domain is looked at again after each. Returns what was
    repaired, then what is left.
    """
    tried: dict[tuple[Kind, str], Finding] = {}
    while True:
        found = check(await observe_for_check(host, run.store, run.record))
        there = {(item.kind, item.what): item for item in found}
        new = (item for key, item in there.items() if item.repair and key not in tried)
        if not repair or (finding := next(new, None)) is None:
            mended = [item for key, item in tried.items() if key not in there]
            return [*(msgspec.structs.replace(item, repaired=True) for item in mended), *found]
        await run.execute(plan_repair(finding))
        tried[finding.kind, finding.what] = finding


async def observe_for_check(host: Examiner, store: Store, record: DomainRecord) -> Observations:
    """Look at metadata, memory images and disk images of a domain, whose lock is held.

    :raise HostError: if the state root cannot be read.
    """
    paths = store.root.domain(record.uuid)
    listed, hidden = store.listing(record.uuid), store.listing(record.uuid, hidden=True)
    snapshots = (*listed.snapshots, *hidden.snapshots)
    interrupted = Journal(paths.journal).interrupted()
    images = await host.examine(record, images_of(record, snapshots))
    return Observations(
        record=record,
        directory=str(paths.snapshots),
        active=host.is_active(record),
        interrupted=None if interrupted is None else _operation(interrupted.plan),
        snapshots=listed.snapshots,
        damaged=tuple(map(_damaged, listed.damaged)),
        hidden=hidden.snapshots,
        hidden_damaged=tuple(map(_damaged, hidden.damaged)),
        memory={
            snapshot.memory: MemoryFacts(savefile.memory_image_problem(snapshot.memory, record.uuid))
            for snapshot in snapshots
            if snapshot.memory is not None
        },
        stray_memory=_stray_memory(paths, snapshots, (*listed.damaged, *hidden.damaged)),
        images={facts.image.path: facts for facts in images},
        elsewhere=frozenset(_elsewhere(store, record)),
    )


def _damaged(item: DamagedSnapshot) -> Damaged:
    return Damaged(item.name, item.error.message, garbled=isinstance(item.error, SnapshotDamagedError))


def _operation(plan: Plan) -> str:
    return f"{plan.operation} of snapshot {plan.snapshot!r}" if plan.snapshot else plan.operation


def _stray_memory(
    paths: DomainPaths, snapshots: Sequence[DomainSnapshot], damaged: Sequence[DamagedSnapshot]
) -> dict[str, MemoryFacts]:
    """Return the memory images in the snapshot directory that no snapshot names, however it names them.

    A snapshot that cannot be read is taken to name the default place.
    """
    named = {os.path.realpath(snapshot.memory) for snapshot in snapshots if snapshot.memory is not None}
    try:
        entries = {entry for entry in os.listdir(paths.snapshots) if entry.endswith(MEMORY_SUFFIX)}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise HostError(f"cannot read {paths.snapshots}: {error.strerror}") from error
    entries -= {item.name + MEMORY_SUFFIX for item in damaged}
    found = (str(paths.snapshots / entry) for entry in sorted(entries))
    return {
        path: MemoryFacts(
            savefile.memory_image_problem(path, paths.uuid),
            ours=savefile.is_save_file(path) and not os.path.islink(path),
        )
        for path in found
        if os.path.realpath(path) not in named
    }


def _elsewhere(store: Store, record: DomainRecord) -> set[str]:
    """Return the images of other domains, whose overlays a user may have laid over ours."""
    others = [other for other in store.records() if other.uuid != record.uuid]
    disks = {image.path for other in others for image in present_images(other.config).values()}
    return disks | {item.backing for other in others for item in other.overlays if item.backing is not None}
