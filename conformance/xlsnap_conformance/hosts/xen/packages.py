# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian packages: what the nested host is made of, found, downloaded and verified by apt.

apt gets a state of its own with nothing installed, so that it resolves everything down to libc, and so that
neither root nor the state of this machine matters. It verifies signatures and checksums as always.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from .failure import XenHostError

XEN = "4.17"
"""Version of Xen in the release below."""

RELEASE = "bookworm"

WANTED = (
    f"xen-hypervisor-{XEN}-amd64",
    f"xen-utils-{XEN}",
    "xen-utils-common",
    "xenstore-utils",
    "qemu-system-xen",
    "qemu-utils",
    "seabios",
    "linux-image-amd64",  # dom0
    "linux-image-cloud-amd64",  # guests
    "busybox-static",
    "bash",  # libxl's hotplug scripts
    "python3",
)

UPDATE_SECONDS = 180
RESOLVE_SECONDS = 60
DOWNLOAD_SECONDS = 900

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_SOURCES = f"""\
deb [signed-by={KEYRING}] http://deb.debian.org/debian {RELEASE} main
deb [signed-by={KEYRING}] http://deb.debian.org/debian {RELEASE}-updates main
deb [signed-by={KEYRING}] http://deb.debian.org/debian-security {RELEASE}-security main
"""


@dataclass(frozen=True, slots=True)
class Package:
    """A file of the archive. ``name`` is that of the file, ``size`` is in bytes."""

    name: str
    size: int

    @property
    def label(self) -> str:
        """Package and version, as people read it."""
        name, version, *_ = unquote(self.name).removesuffix(".deb").split("_")
        return f"{name} {version}"


class Apt:
    """apt with a state of its own in ``directory``."""

    def __init__(self, directory: Path) -> None:
        """Prepare the directory.

        :raise XenHostError: if there is no apt, or nothing that verifies Debian's packages.
        """
        if shutil.which("apt-get") is None:
            raise XenHostError("no apt-get here: a Xen host is made of Debian packages; use Debian or Ubuntu")
        self.directory = directory
        for part in ("lists/partial", "cache/archives/partial", "cache/none/partial"):
            (directory / part).mkdir(parents=True, exist_ok=True)
        (directory / "status").touch()
        self._options = [
            f"-oDir::State={directory}",
            f"-oDir::State::lists={directory}/lists",
            f"-oDir::State::status={directory}/status",
            f"-oDir::Cache={directory}/cache",
            f"-oDir::Log={directory}",
            "-oAPT::Architecture=amd64",
            "-oAPT::Architectures=amd64",
            "-oAPT::Install-Recommends=false",
            "-oAcquire::Retries=3",
            "-oAcquire::http::Timeout=30",
            "-oDpkg::Use-Pty=false",
        ]
        if os.geteuid() == 0:
            self._options.append("-oAPT::Sandbox::User=root")  # the user _apt cannot write to our directory
        if not _is_release(Path("/etc/os-release")):
            if not Path(KEYRING).is_file():
                raise XenHostError(f"{KEYRING} is missing: install the package debian-archive-keyring")
            sources = directory / "sources.list"
            sources.write_text(_SOURCES)
            self._options += [f"-oDir::Etc::SourceList={sources}", "-oDir::Etc::SourceParts=/dev/null"]

    def update(self) -> None:
        """Fetch the lists of packages.

        :raise XenHostError: if that fails.
        """
        self._run("-q", "update", seconds=UPDATE_SECONDS, what="fetch the lists of packages")

    def resolve(self) -> list[Package]:
        """Return what `WANTED` and all that it depends on are today, sorted.

        :raise XenHostError: naming a package that the archive does not have.
        """
        out = self._run(
            *("-qq", "-y", "--no-install-recommends", "--print-uris", "install", *WANTED),
            seconds=RESOLVE_SECONDS,
            what="find the packages",
            # what has been downloaded is not printed: resolve as if nothing was
            extra=("-oDir::Cache::archives=none/",),
        )
        packages = parse_uris(out)
        if not packages:
            raise XenHostError(
                "apt-get found no packages: look at the sources in /etc/apt", detail=out[-2000:]
            )
        return packages

    def download(self, packages: Sequence[Package], progress: Callable[[int], None]) -> list[Path]:
        """Fetch what is not here yet; return the files. ``progress`` is told the bytes that are here.

        :raise XenHostError: if that fails.
        """
        archives = self.directory / "cache" / "archives"
        paths = [archives / package.name for package in packages]

        def report() -> None:
            partial = sum(p.stat().st_size for p in (archives / "partial").glob("*.deb"))
            progress(partial + sum(p.stat().st_size for p in paths if p.exists()))

        self._run(
            *("-q", "-y", "--no-install-recommends", "--download-only", "install", *WANTED),
            seconds=DOWNLOAD_SECONDS,
            what="download the packages",
            meanwhile=report,
        )
        report()
        for path in paths:
            if not path.is_file():
                raise XenHostError(f"apt-get did not fetch {path.name}: the lists have changed; run it again")
        return paths

    def _run(
        self,
        *arguments: str,
        seconds: float,
        what: str,
        meanwhile: Callable[[], None] = lambda: None,
        extra: Sequence[str] = (),
    ) -> str:
        command = ["apt-get", *self._options, *extra, *arguments]
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
        environment |= {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
        log = self.directory / "apt.log"
        with log.open("w+") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
            )
            try:
                left = seconds
                while True:
                    try:
                        status = process.wait(timeout=min(0.5, left))
                        break
                    except subprocess.TimeoutExpired:
                        left -= 0.5
                        meanwhile()
                        if left <= 0:
                            raise XenHostError(f"apt-get could not {what} within {seconds:g} s") from None
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        text = log.read_text(errors="replace")
        if status != 0:
            raise XenHostError(f"apt-get could not {what}: {_complaint(text)}", detail=_tail(text))
        return text


def parse_uris(text: str) -> list[Package]:
    """Return the packages of apt's ``--print-uris``: each line has URI, file name, size and checksum."""
    packages = []
    for line in text.splitlines():
        if not line.startswith("'"):
            continue
        words = shlex.split(line)
        packages.append(Package(name=words[1], size=int(words[2])))
    return sorted(packages, key=lambda package: package.name)


def _complaint(log: str) -> str:
    errors = [line[2:].strip() for line in log.splitlines() if line.startswith("E:")]
    return errors[0] if errors else "its last lines are"


def _tail(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()]
    return "\n".join(lines[-8:])


def _is_release(os_release: Path) -> bool:
    try:
        return f"VERSION_CODENAME={RELEASE}" in os_release.read_text().splitlines()
    except OSError:
        return False
