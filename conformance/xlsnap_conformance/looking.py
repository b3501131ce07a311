# SPDX-License-Identifier: LGPL-2.1-or-later
"""Look at a real domain after a step, and yield what is not as the model says.

How much is looked at depends on what the step can change, so that scenarios stay quick.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import protocol as p
from . import trace as do
from .failures import ImplementationError
from .guest import Probe, ProbeClosed
from .live import LiveDomain
from .model import World
from .oracles import (
    Aspect,
    Finding,
    chains,
    content,
    guest,
    images,
    leftovers,
    listing,
    metadata,
)
from .trace import Step

_CHANGES_SNAPSHOTS = (
    *(do.Create, do.Revert, do.Delete, do.List),
    *(do.PowerCycle, do.Start, do.Destroy, do.Check),
)
"""Steps after which the snapshots are looked at."""

_ENDS_PROCESS = (do.Revert, do.PowerCycle, do.Destroy, do.Start)
"""Steps after which no process has anything unwritten for an image that it does not use any more."""


class Observer:
    """Looks at a domain. It remembers where images are, and what need not be looked at again.

    :ivar ignored: names in the scratch directory that belong to a test.
    """

    def __init__(self, domain: LiveDomain, *, thorough: bool) -> None:
        """Prepare to look.

        :param thorough: let the guest read all that it has ever written after each step. Otherwise it does so
            after those that should change it, and reads some after the others: for long scenarios.
        """
        self.domain = domain
        self.ignored: set[str] = set()
        self._capabilities = domain.subject.capabilities
        self._thorough = thorough
        self._tags: dict[chains.Key, str] = {}
        self._contents = content.Contents(domain.disk_number_of)
        self._settled = True
        self._looks = 0

    def findings(self, step: Step, world: World) -> Iterator[Finding]:
        """Yield what differs after a step from the domain as it must be.

        :raise ProbeTimeout: if the guest does not answer.
        :raise ProbeClosed: if it cannot.
        """
        self._looks += 1
        if isinstance(step, do.Set | do.Write):
            return
        # A domain that should run proves it by answering; only where that is not asked its state is.
        if not isinstance(step, do.Create | do.Delete | do.List) or world.state != "running":
            yield from self.state_findings(world)
        if isinstance(step, _CHANGES_SNAPSHOTS):
            yield from self._snapshot_findings(step, world)
        if world.state == "running":
            yield from self._guest_findings(step, world)
        yield from self._image_findings(step, world)
        if isinstance(step, do.Check):
            yield from self._identity_findings(world)

    def last_findings(self, world: World) -> Iterator[Finding]:
        """Yield what is wrong with the images of a domain that has ended."""
        graph = chains.follow(self.domain.chains, world)
        yield from self._contents.check(world, self.domain.chains, graph, thorough=True)
        yield from images.check_deeply(self.domain.chains, graph)

    def state_findings(self, world: World) -> Iterator[Finding]:
        """Compare the run state."""
        expected: tuple[str, ...] = (world.state,)
        if world.state == "stopped" and not world.snapshots:
            expected = ("stopped", "absent")  # nothing is left to remember it for
        observed = self.domain.state()
        if observed not in expected:
            yield Finding(
                Aspect.RUN_STATE, f"the domain is {observed}, not {expected[0]}", expected[0], observed
            )

    # --- snapshots ------------------------------------------------------------------------------------------

    def _snapshot_findings(self, step: Step, world: World) -> Iterator[Finding]:
        domain = self.domain
        yield from self._list_findings(world)
        files = None
        if "metadata-files" in self._capabilities:
            files = metadata.read(domain.metadata_directory())
            self._tags = files.tags()
        before = domain.chains
        disks = self._disks()
        told = None if files is None else files.places()
        domain.chains = chains.observe(before, world, step, disks, told, attached=domain.attached)
        domain.attached = tuple(disk.vdev for disk in world.disks)
        if disks is not None:
            yield from chains.check_present(world, disks)
            yield from chains.check_change(before, domain.chains, world, self._placed(step))
        elif world.state != "stopped" or (world.overlaid and world.snapshots):
            yield Finding(Aspect.DISK_IMAGE, "the images that the domain uses are not told", "told", None)
        if files is not None:
            yield from metadata.check(world, files, domain.chains, domain.scratch, domain.times)
        graph = chains.follow(domain.chains, world)
        first = (image.path for image in domain.chains.first.values())
        used = {*graph.nodes, *first, *domain.chains.set_aside}
        sure = files is not None or not world.overlaid or not world.snapshots
        yield from leftovers.check(world, used, domain.scratch, self.ignored, sure=sure)

    def _placed(self, step: Step) -> Step:
        return self.domain.placed(step) if isinstance(step, do.Create) else step

    def _list_findings(self, world: World) -> Iterator[Finding]:
        if world.state == "stopped" and not (world.snapshots and "list-stopped" in self._capabilities):
            return
        try:
            listed = self.domain.subject.call(p.SnapshotList(domain=self.domain.name))
        except ImplementationError as error:
            yield Finding(Aspect.LIST_FAILS, "the snapshots cannot be listed", world.names(), str(error))
            return
        ordered = "list-order" in self._capabilities
        times = self.domain.times
        yield from listing.check(world, listed.snapshots, times, current=listed.current, ordered=ordered)

    def _disks(self) -> tuple[p.DiskInUse, ...] | None:
        """Return the images in use, None if they are not told."""
        try:
            return self.domain.disks()
        except ImplementationError:
            return None

    # --- images and guest -----------------------------------------------------------------------------------

    def _image_findings(self, step: Step, world: World) -> Iterator[Finding]:
        known = self.domain.chains
        graph = chains.follow(known, world)
        yield from chains.check_graph(graph, known, world)
        yield from images.check(world, known, graph, self._tags)
        # What a running process has merged may not be in the files yet, and is no error.
        if isinstance(step, do.Delete) and world.state != "stopped":
            self._settled = False
        elif isinstance(step, _ENDS_PROCESS):
            self._settled = True
        if self._settled:
            yield from self._contents.check(world, known, graph)

    def _guest_findings(self, step: Step, world: World) -> Iterator[Finding]:
        domain = self.domain
        numbers = domain.disk_number_of
        attached = {disk.vdev for disk in world.disks}
        sectors = [each for each in domain.sectors if each[0] in attached]
        if not self._thorough and isinstance(step, do.Create | do.Delete | do.List):
            sectors = [*sectors[-1:], *sectors[self._looks % (len(sectors) or 1) :][:1]]
        yield from guest.check(world, self._guest(), numbers, domain.keys, dict.fromkeys(sectors))

    def _guest(self) -> Probe:
        try:
            return self.domain.guest()
        except ImplementationError as error:
            raise ProbeClosed(f"its console is not told: {error}") from error

    def _identity_findings(self, world: World) -> Iterator[Finding]:
        """The domain that has our name has our uuid."""
        domain = self.domain
        if world.state != "stopped":
            domains = domain.subject.call(p.DomainList()).domains
            found = [each.uuid for each in domains if each.name == domain.name]
            if found != [domain.uuid]:
                yield Finding(Aspect.IDENTITY, "the domain has another uuid", [domain.uuid], found)
