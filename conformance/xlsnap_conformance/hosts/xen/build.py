# SPDX-License-Identifier: LGPL-2.1-or-later
"""Make the files that a nested host boots: hypervisor, dom0's kernel and initial ramdisk, guests."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ...guest import image
from . import code, contents, cpio, debs, kernel
from .cache import Kept, digest_of, key
from .failure import XenHostError
from .packages import XEN, Apt, Package

HERE = Path(__file__).resolve().parent
OVERLAY = HERE / "dom0"

_DECIDING = ("build.py", "code.py", "contents.py", "cpio.py", "debs.py", "elf.py", "kernel.py", "packages.py")

Tell = Callable[[str, int, int], None]
"""Takes what goes on, how much is done, and of how much (0: not known)."""


@dataclass(frozen=True, slots=True)
class Built:
    """A host's files, in a directory of the cache; ``key`` names it."""

    directory: Path

    @property
    def key(self) -> str:
        """Name of this host: a key over its packages and our own part."""
        return self.directory.name

    @property
    def hypervisor(self) -> Path:
        """Xen, not packed."""
        return self.directory / "xen"

    @property
    def kernel(self) -> Path:
        """Kernel of dom0, not packed."""
        return self.directory / "vmlinux-dom0"

    @property
    def ramdisk(self) -> Path:
        """File system of dom0."""
        return self.directory / "dom0.cpio"

    @property
    def guest_kernel(self) -> Path:
        """Kernel of PV and PVH guests, not packed."""
        return self.directory / "vmlinux-guest"

    @property
    def guest_image(self) -> Path:
        """The same kernel as bzImage."""
        return self.directory / "vmlinuz-guest"

    @property
    def guest_ramdisk(self) -> Path:
        """The probe guest as initial ramdisk."""
        return self.directory / "probe.cpio"

    @property
    def packages(self) -> list[str]:
        """Names and versions of the packages that it was made of."""
        return msgspec.json.decode((self.directory / "packages.json").read_bytes(), type=list[str])


class Builder:
    """Makes hosts in the cache."""

    def __init__(self, cache: Path, tell: Tell) -> None:
        self._cache = cache
        self._kept = Kept(cache / "built")
        self._latest = cache / "latest-of"  # file names: hashes of our part, since checkouts share the cache
        self._tell = tell

    def latest(self) -> Built | None:
        """Return what was built last, if our own part of it is still the same."""
        try:
            name = (self._latest / our_part()).read_text()
        except OSError:
            return None
        directory = self._kept.find(name)
        return Built(directory) if directory else None

    def build(self) -> Built:
        """Make a host of today's packages, unless it is there. Without a network the last one has to do.

        :raise XenHostError: if packages cannot be had, or are not as they should be.
        """
        with self._kept.lock():
            apt = Apt(self._cache / "apt")
            self._tell("looking for packages", 0, 0)
            try:
                apt.update()
                packages = apt.resolve()
            except XenHostError as error:
                last = self.latest()
                if last is None:
                    raise
                self._tell(f"{error.message}: taking what was built last", 0, 0)
                return last
            ours = our_part()
            name = key([ours, *(f"{package.name} {package.size}" for package in packages)])
            directory = self._kept.find(name)
            if directory is None:
                directory = self._make(name, packages, self._download(apt, packages))
                self._kept.remove_old(name)
            self._latest.mkdir(exist_ok=True)
            (self._latest / ours).write_text(name)
            return Built(directory)

    def _download(self, apt: Apt, packages: list[Package]) -> list[Path]:
        total = sum(package.size for package in packages)
        return apt.download(packages, lambda done: self._tell("downloading packages", done, total))

    def _make(self, name: str, packages: list[Package], files: list[Path]) -> Path:
        tree: cpio.Tree = {}
        total = sum(package.size for package in packages)
        done = 0
        with ThreadPoolExecutor(2) as pool:  # dpkg-deb does the work
            for package, part in zip(
                packages, pool.map(lambda path: debs.read([path], contents.wanted), files), strict=True
            ):
                tree |= part
                done += package.size
                self._tell("unpacking", done, total)
        self._tell("assembling", 0, 0)
        with self._kept.new(name) as directory:
            built = Built(directory)
            release, dom0_image = contents.kernel_of(tree, cloud=False)
            guest_release, guest_image = contents.kernel_of(tree, cloud=True)
            hypervisor = gzip.decompress(tree[f"boot/xen-{XEN}-amd64.gz"].data)
            built.hypervisor.write_bytes(hypervisor)
            built.kernel.write_bytes(kernel.vmlinux(dom0_image))
            guest_kernel = kernel.vmlinux(guest_image)
            built.guest_kernel.write_bytes(guest_kernel)
            built.guest_image.write_bytes(guest_image)
            with built.guest_ramdisk.open("wb") as output:
                cpio.write(contents.probe(tree, guest_release, image("linux").read_bytes()), output)
            overlay = {
                "init": cpio.file((OVERLAY / "init").read_bytes(), 0o755),
                "opt/agent.py": cpio.file((OVERLAY / "agent.py").read_bytes()),
                f"{contents.GUEST}/vmlinux": cpio.file(guest_kernel),
                f"{contents.GUEST}/vmlinuz": cpio.file(guest_image),
                f"{contents.GUEST}/probe.cpio": cpio.file(built.guest_ramdisk.read_bytes()),
                f"{contents.GUEST}/probe.img": cpio.file(image("disk").read_bytes()),
                f"{contents.GUEST}/probe.iso": cpio.file(image("iso").read_bytes()),
            }
            system = contents.dom0(tree, release, overlay)
            system |= code.compiled(system) | code.libraries(self._cache)
            with built.ramdisk.open("wb") as output:
                cpio.write(system, output)
            labels = [package.label for package in packages]
            (directory / "packages.json").write_bytes(msgspec.json.encode(labels))
        return self._kept.directory / name


def our_part() -> str:
    """Return a hash over our own files that decide what a host is."""
    guests = [image("linux"), image("disk"), image("iso")]
    files = digest_of([*(HERE / name for name in _DECIDING), *sorted(OVERLAY.iterdir()), *guests])
    return key([files, *code.library_versions()])
