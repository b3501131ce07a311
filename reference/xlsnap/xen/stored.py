# SPDX-License-Identifier: LGPL-2.1-or-later
"""Keep Xen's own idea of a domain's disks true after an external snapshot or a merge.

The domain goes on with another image than the one that it was created with. Three places name it besides our
record, and `xl` has a command for none of them:

- libxl's JSON, ``/var/lib/xen/userdata-d.DOMID.UUID.libxl-json``: what `xl save` puts into a save file, what
  a guest's reboot starts again, and what `xl list -l` shows;
- xenstore, ``backend/qdisk/DOMID/DEVID/params``: what `xl block-list` shows;
- ``xl.cfg`` in our own directory of the domain, for who starts the domain with `xl create` by hand.

The JSON is written as libxl does: under libxl's own lock, as a new file that is renamed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import HostError
from ..steps import DiskImage
from ..store import write_durably
from .config import with_stored_images

DIRECTORY = Path("/var/lib/xen")
"""Where libxl keeps what it knows of domains."""

XENSTORE_SECONDS = 30.0


def stored_config(domid: int, uuid: str) -> Path:
    """Return the file with libxl's JSON of a domain; libxl makes it when the domain is complete."""
    return DIRECTORY / f"userdata-d.{domid}.{uuid}.libxl-json"


def stored(domid: int, uuid: str) -> dict[str, Any] | None:
    """Return libxl's JSON of a domain, None if there is none: it is not complete, or has just ended.

    :raise HostError: if it cannot be understood.
    """
    path = stored_config(domid, uuid)
    try:
        found = json.loads(path.read_bytes().rstrip(b"\0"))  # libxl's strings keep their last byte
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise HostError(f"cannot read libxl's configuration of a domain, {path}: {error}") from error
    if not isinstance(found, dict):
        raise HostError(f"libxl's configuration of a domain, {path}, has an unknown form")
    return found


def note_images(domid: int, uuid: str, images: Mapping[str, DiskImage]) -> None:
    """Enter other images for some disks of an active domain, given by vdev.

    :raise HostError: if that is not possible.
    """
    changed = {vdev: (image.path, image.format) for vdev, image in images.items()}
    path = stored_config(domid, uuid)
    try:
        with _locked(DIRECTORY / f"userdata-d.{domid}.{uuid}.domain-userdata-lock"):
            content = json.dumps(with_stored_images(stored(domid, uuid) or {}, changed), indent=4) + "\n\0"
            write_durably(path, content.encode())
    except OSError as error:
        raise HostError(f"cannot change libxl's configuration of the domain, {path}: {error}") from error
    backend = f"/local/domain/0/backend/qdisk/{domid}"
    for device in _xenstore("list", backend).split():
        vdev = _xenstore("read", f"{backend}/{device}/dev")
        if vdev in changed:
            name, image_format = changed[vdev]
            xl_format = "aio" if image_format == "raw" else image_format
            _xenstore("write", f"{backend}/{device}/params", f"{xl_format}:{name}")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock of libxl: flock(2) on a file that may be removed and made anew by who held it before."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        fcntl.flock(fd, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                break
        os.close(fd)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(fd)


def console_tty(domid: int) -> Path | None:
    """Return the terminal of a domain's first serial port: that of an HVM guest, else the PV console."""
    for node in ("serial/0/tty", "console/tty"):
        with contextlib.suppress(HostError):
            if tty := _xenstore("read", f"/local/domain/{domid}/{node}"):
                return Path(tty)
    return None


def _xenstore(command: str, *arguments: str) -> str:
    try:
        done = subprocess.run(
            [f"xenstore-{command}", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=XENSTORE_SECONDS,
            check=True,
        )
    except FileNotFoundError:
        raise HostError(
            "xenstore-utils is not installed", hint="install the package xenstore-utils"
        ) from None
    except subprocess.CalledProcessError as error:
        words = error.stderr.decode(errors="replace").strip()
        raise HostError(f"xenstore-{command} {arguments[0]}: {words}") from error
    except subprocess.TimeoutExpired:
        raise HostError(f"xenstore-{command} did not end within {XENSTORE_SECONDS:g} s") from None
    return done.stdout.decode(errors="replace").strip()
