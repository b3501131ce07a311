# SPDX-License-Identifier: LGPL-2.1-or-later
"""The implementation under test: its driver, inside the fence, with what its domains are made of."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from . import guest
from . import protocol as p
from .driver import Driver
from .failures import HarnessError, ImplementationError
from .fence import Fence
from .model import Place
from .protocol import R
from .trace import DiskOf

QEMU_IMG_SECONDS = 60.0


class Subject:
    """A running driver that can touch nothing outside of `fence`. A context manager.

    ``templates`` are empty images, copied for each domain: cheaper than making new ones.
    """

    def __init__(self, driver: str, fence: Fence, *, limits: Mapping[str, float] | None = None) -> None:
        """Start the driver and set it up.

        :param limits: as of `Driver`.
        :raise DriverError: if it does not work.
        """
        self.fence = fence
        self.driver = Driver.start(driver, log=fence.log, limits=limits, directory=fence.path)
        self._templates: dict[tuple[str, int], Path] = {}
        self._tried: frozenset[str] = frozenset()
        try:
            self.call(p.Setup(root=str(fence.driver_root)))
        except ImplementationError as error:
            self.driver.close()
            raise HarnessError(f"the driver cannot be set up: {error}") from error
        except BaseException:
            self.driver.close()
            raise

    def __enter__(self) -> Subject:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def capabilities(self) -> frozenset[str]:
        """What the implementation claims, and what is being tried."""
        return self.driver.capabilities | self._tried

    @contextmanager
    def trying(self, capability: str) -> Iterator[None]:
        """Take a capability for claimed, to see whether it works though it is not."""
        self._tried = frozenset({capability})
        try:
            yield
        finally:
            self._tried = frozenset()

    @property
    def name(self) -> str:
        """Name and version of the implementation."""
        return f"{self.driver.hello.implementation} {self.driver.hello.version}"

    @property
    def usable(self) -> bool:
        """Whether the driver can still be asked."""
        return self.driver.broken is None

    def call(self, request: p.Request[R]) -> R:
        """Send a request to the driver if the fence allows it."""
        self.fence.check(request)
        return self.driver.call(request)

    @functools.cached_property
    def firmware(self) -> p.Firmware:
        """The probe guest in all its forms."""
        return p.Firmware(
            rom=str(guest.image("rom")), disk=str(guest.image("disk")), iso=str(guest.image("iso"))
        )

    def new_image(self, disk: DiskOf, directory: Path) -> Path:
        """Make the empty image of a disk in `directory`."""
        key = disk.format, disk.size_kib
        if key not in self._templates:
            self._templates[key] = _make_image(
                self.fence.path / f"template-{disk.size_kib}.{disk.format}", disk
            )
        path = directory / f"{disk.vdev}.{disk.format}"
        shutil.copyfile(self._templates[key], path)
        path.chmod(0o600)
        return path

    def close(self) -> None:
        """Let the driver remove what it made, and end it. Errors on the way out are of no interest."""
        try:
            self.driver.teardown()
        except (HarnessError, ImplementationError):
            pass
        finally:
            self.driver.close()


def _make_image(path: Path, disk: DiskOf) -> Path:
    _run("create", "-q", "-f", disk.format, str(path), f"{disk.size_kib}K")
    return path


def qemu_img_create(path: Path, *, size_kib: int) -> None:
    """Make an empty qcow2 image.

    :raise HarnessError: if that fails.
    """
    _make_image(path, DiskOf(vdev="", size_kib=size_kib))


def qemu_img(command: str, *arguments: str | Path) -> None:
    """Run a command of `qemu-img` on a qcow2 image of ours, the last argument, that nobody else has open.

    :raise HarnessError: if it is not installed, fails or hangs.
    """
    *options, image = arguments
    path = str(image).replace(",", ",,")
    _run(command, *map(str, options), "--image-opts", f"driver=qcow2,file.driver=file,file.filename={path}")


def qemu_zero(image: Place, start: int, length: int) -> None:
    """Discard bytes of an image of ours that nobody has open: they read as zeros then.

    :raise HarnessError: if that fails.
    """
    path = image.path.replace(",", ",,")
    options = f"driver={image.format},file.driver=file,file.filename={path}"
    _run("-c", f"write -z -u {start} {length}", "--image-opts", options, program="qemu-io")


def _run(*arguments: str, program: str = "qemu-img") -> None:
    try:
        subprocess.run(
            [program, *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=QEMU_IMG_SECONDS,
        )
    except FileNotFoundError:
        raise HarnessError(f"{program} is not installed: install qemu-utils") from None
    except subprocess.CalledProcessError as error:
        words = error.stderr.decode(errors="replace").strip()
        raise HarnessError(f"{program} {arguments[0]} failed: {words}") from error
    except subprocess.TimeoutExpired as error:
        raise HarnessError(f"{program} {arguments[0]} did not end in time") from error
