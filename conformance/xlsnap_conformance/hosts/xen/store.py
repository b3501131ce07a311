# SPDX-License-Identifier: LGPL-2.1-or-later
"""A nested host by the shortest way: resumed if one is frozen, else booted and frozen, else built first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .accelerator import choose
from .build import Builder, Built, Tell
from .cache import Kept, default_directory
from .machine import Machine, Places, find_qemu
from .nested import NestedHost

IMAGE = "memory"


@dataclass(frozen=True, slots=True)
class Store:
    """Hosts in the cache, for one machine. ``tell`` is told what goes on."""

    cache: Path
    machine: Machine
    tell: Tell

    @property
    def builder(self) -> Builder:
        """What makes hosts."""
        return Builder(self.cache, self.tell)

    @property
    def _frozen(self) -> Kept:
        return Kept(self.cache / "frozen")

    def built(self) -> Built:
        """Return the host that was built last, or build one."""
        return self.builder.latest() or self.builder.build()

    def frozen(self, built: Built) -> Path | None:
        """Return the image of this host, frozen on this machine, if there is one."""
        directory = self._frozen.find(self.machine.key(built))
        return directory / IMAGE if directory else None

    async def freeze(self, built: Built, places: Places) -> Path:
        """Boot a host and freeze it, unless that was done. Return the image.

        :raise XenHostError: if it does not boot.
        """
        with self._frozen.lock():
            image = self.frozen(built)
            if image is not None:
                return image
            name = self.machine.key(built)
            with self._frozen.new(name) as directory:
                host = await NestedHost.boot(self.machine, built, places, self.say)
                try:
                    await host.link.check(["python3", "-c", f"import {', '.join(_WARM)}"], seconds=300)
                    self.say("freezing Xen")
                    await host.freeze(directory / IMAGE)
                except BaseException:
                    await host.stop()
                    raise
            self._frozen.remove_old(name)
            return self._frozen.directory / name / IMAGE

    async def start(self, places: Places, *, boot: bool = False, image: Path | None = None) -> NestedHost:
        """Return a running host.

        :param boot: boot it, even if it could be resumed.
        :param image: resume this one, rather than the one in the cache.
        :raise XenHostError: if that fails.
        """
        built = self.built()
        if boot:
            return await NestedHost.boot(self.machine, built, places, self.say)
        image = image or self.frozen(built) or await self.freeze(built, places)
        return await NestedHost.resume(self.machine, built, image, places, self.say)

    def say(self, text: str) -> None:
        """Tell of a step of unknown length."""
        self.tell(text, 0, 0)


_WARM = ("asyncio", "argparse", "json", "logging", "socket", "subprocess", "uuid")
"""Modules that every driver imports: dom0's Python compiles them before it is frozen."""


async def open_store(accelerator: str, tell: Tell) -> Store:
    """Return the store of this user, for this QEMU.

    :param accelerator: one of `accelerator.CHOICES`.
    :raise XenHostError: if there is no QEMU, or it cannot do that.
    """
    binary, version = find_qemu()
    store = Store(default_directory(), Machine(version, "tcg", binary), tell)
    chosen = await choose(accelerator, store)
    return Store(store.cache, Machine(version, chosen, binary), tell)
