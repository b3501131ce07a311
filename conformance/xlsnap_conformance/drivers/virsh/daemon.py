# SPDX-License-Identifier: LGPL-2.1-or-later
"""A libvirtd of our own, in a private directory: start it, find it, stop it.

It is libvirt's *session* daemon, whose configuration, state, cache and sockets are all below the XDG
directories, which are set to ours. A daemon of root's would take the system's directories whatever it is
told; so when we are root it runs in a user namespace in which it is not. A libvirtd of the system is never
spoken to, and never ended: the one that we end is known by its process id and start time.

::

    <directory>/lock              held while starting and stopping
    <directory>/daemon.json       process id and start time
    <directory>/libvirtd.log
    <directory>/config/ cache/ data/ run/      XDG_CONFIG_HOME, …
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import filelock
import msgspec
import psutil

from ...failures import HarnessError

START_SECONDS = 120.0
"""How long the first connection may take: libvirt asks each QEMU on the machine what it can do."""

STOP_SECONDS = 20.0

DIRECTORY_VARIABLE = "XLSNAP_LIBVIRT_DIR"
"""Environment variable that chooses the directory."""

_SOCKET = "run/libvirt/libvirt-sock"
_ADDRESS_BYTES = 107  # the longest path of a Unix socket

_NEEDED = {  # program: Debian package
    "libvirtd": "libvirt-daemon libvirt-daemon-driver-qemu",
    "virsh": "libvirt-clients",
    "qemu-system-x86_64": "qemu-system-x86",
}

_QEMU_CONF = """\
stdio_handler = "file"
security_driver = "none"
"""

_LIBVIRTD_CONF = 'log_level = 3\nlog_outputs = "3:stderr"\n'


class DaemonError(HarnessError):
    """There is no daemon of ours, or it cannot be started or stopped."""


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """The process that we have started; the time is what tells it from a later one of the same id."""

    pid: int
    started: float


@dataclass(frozen=True, slots=True)
class Daemon:
    """A private libvirtd and its directory."""

    directory: Path

    @classmethod
    def default(cls) -> Daemon:
        """Return that in ``$XLSNAP_LIBVIRT_DIR``, else in a directory of the user's."""
        chosen = os.environ.get(DIRECTORY_VARIABLE)
        return cls(Path(chosen) if chosen else Path(tempfile.gettempdir()) / f"xlsnap-libvirt-{os.getuid()}")

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.directory / _SOCKET

    @property
    def uri(self) -> str:
        """The connection to the running daemon.

        :raise DaemonError: if it does not run.
        """
        if self.process() is None:
            raise DaemonError(
                "no libvirtd of the kit runs: start one with 'xlsnap-conformance host libvirt start',"
                " or name a connection of your own with --connect"
            )
        return self._uri

    @property
    def _uri(self) -> str:
        return f"qemu:///session?socket={quote(str(self.socket))}"

    def process(self) -> psutil.Process | None:
        """Return the process of the daemon, None if it does not run."""
        with contextlib.suppress(OSError, msgspec.MsgspecError, psutil.Error):
            record = msgspec.json.decode((self.directory / "daemon.json").read_bytes(), type=_Record)
            process = psutil.Process(record.pid)
            if process.create_time() == record.started and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None

    def start(self) -> str:
        """Start the daemon, unless it runs; wait until it answers; return the connection.

        :raise DaemonError: if something is not installed, or it does not come up.
        """
        missing = {package for program, package in _NEEDED.items() if shutil.which(program) is None}
        if missing:
            raise DaemonError(f"libvirt is not installed: apt-get install {' '.join(sorted(missing))}")
        if len(os.fsencode(self.socket)) > _ADDRESS_BYTES:
            raise DaemonError(f"{self.socket}: too long for a socket; set {DIRECTORY_VARIABLE}")
        self._own_directory()
        with filelock.FileLock(self.directory / "lock", timeout=START_SECONDS, mode=0o600):
            if self.process() is None:
                self._spawn()
            self._wait()
        return self._uri

    def _own_directory(self) -> None:
        """Make the directory; one of somebody else's is refused: the name can be guessed."""
        with contextlib.suppress(FileExistsError):
            self.directory.mkdir(mode=0o700, parents=True)
        status = self.directory.lstat()
        if status.st_uid != os.getuid() or status.st_mode & 0o077 or self.directory.is_symlink():
            raise DaemonError(f"{self.directory} is not a directory of ours alone; set {DIRECTORY_VARIABLE}")

    def _spawn(self) -> None:
        for name in ("config/libvirt", "cache", "data", "run"):
            (self.directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.directory / "config/libvirt/qemu.conf").write_text(_QEMU_CONF)
        configuration = self.directory / "config/libvirt/libvirtd.conf"
        configuration.write_text(_LIBVIRTD_CONF)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("LIBVIRT_")}
        environment |= {
            "HOME": str(self.directory),
            "XDG_CONFIG_HOME": str(self.directory / "config"),
            "XDG_CACHE_HOME": str(self.directory / "cache"),
            "XDG_DATA_HOME": str(self.directory / "data"),
            "XDG_RUNTIME_DIR": str(self.directory / "run"),
        }
        with (self.directory / "libvirtd.log").open("ab") as log:
            process = subprocess.Popen(
                [*_not_as_root(), "libvirtd", "--config", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=self.directory,
                start_new_session=True,
            )
        record = _Record(pid=process.pid, started=psutil.Process(process.pid).create_time())
        (self.directory / "daemon.json").write_bytes(msgspec.json.encode(record))

    def _wait(self) -> None:
        """Connect; the first connection is the slow one."""
        end = time.monotonic() + START_SECONDS
        while not self.socket.is_socket():
            if self.process() is None or time.monotonic() > end:
                raise DaemonError(f"libvirtd did not start: {self._last_error()}")
            time.sleep(0.05)
        try:
            subprocess.run(
                ["virsh", "--connect", self._uri, "version"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=max(1.0, end - time.monotonic()),
                check=True,
            )
        except subprocess.TimeoutExpired:
            raise DaemonError(f"libvirtd did not answer within {START_SECONDS:g} s") from None
        except subprocess.CalledProcessError as error:
            said = " ".join(error.stderr.decode(errors="replace").split())
            raise DaemonError(f"libvirtd does not answer: {said}") from None

    def _last_error(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self.directory / "libvirtd.log").read_text(errors="replace").splitlines()
            return lines[-1] if lines else "it says nothing"
        return "it says nothing"

    def stop(self) -> bool:
        """End the daemon and the domains that it has left running, and remove its directory.

        :return: whether it ran.
        :raise DaemonError: if a process does not end.
        """
        if not self.directory.exists():
            return False
        self._own_directory()
        with filelock.FileLock(self.directory / "lock", timeout=STOP_SECONDS, mode=0o600):
            process = self.process()
            left = [process] if process else []
            left += [each for each in psutil.process_iter() if self._is_domain(each)]
            for each in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.terminate()
            _, alive = psutil.wait_procs(left, timeout=STOP_SECONDS)
            for each in alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            _, alive = psutil.wait_procs(alive, timeout=STOP_SECONDS)
            if alive:
                raise DaemonError(f"process {alive[0].pid} does not end")
        shutil.rmtree(self.directory)
        return process is not None

    def _is_domain(self, process: psutil.Process) -> bool:
        """Say whether a process is a QEMU of this daemon: it names a file in our directory."""
        with contextlib.suppress(psutil.Error):
            needle = f"{self.directory}{os.sep}config/libvirt/qemu/"
            ours = process.uids().real == os.getuid()
            return ours and any(needle in word for word in process.cmdline())
        return False


def _not_as_root() -> list[str]:
    """Return what runs a command without its knowing that it is root's; nothing when it is not."""
    if os.geteuid() != 0:
        return []
    return ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"]
