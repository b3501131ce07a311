# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine that a nested host runs in: QEMU's command line (pure), and what is known of this QEMU."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from .build import Built
from .cache import key
from .failure import XenHostError

BINARY = "qemu-system-x86_64"
VERSION_SECONDS = 20

MEMORY_MIB = 2048
DOM0_MIB = 1024

# SMAP and SMEP: a PV dom0 crashes under TCG with them. RDTSCP: PVH guests do. 57-bit addresses and protection
# keys are of no use to Xen 4.17 and cost emulation.
_CPU = {"tcg": "max,-smap,-smep,-pku,-la57,-rdtscp", "kvm": "host,-smap,-smep,-pku,-la57"}

XEN_ARGUMENTS = (
    "console=com1 com1=115200,8n1 loglvl=warning guest_loglvl=warning noreboot watchdog=0 "
    f"dom0_mem={DOM0_MIB}M,max:{DOM0_MIB}M dom0_max_vcpus=1 smt=1 spec-ctrl=no xpti=0"
)
DOM0_ARGUMENTS = "console=hvc0 quiet loglevel=4 mitigations=off nokaslr tsc=reliable panic=-1"

SHARE_TAG = "share"
"""Mount tag of the directory that outer host and dom0 have in common."""

CHANNELS = tuple(f"channel{number}" for number in range(12))
"""Names of the ports that are free for any use; the agent has one of its own."""


@dataclass(frozen=True, slots=True)
class Machine:
    """How QEMU is run: everything that decides whether a frozen host can be resumed.

    ``qemu`` is the first line of its ``--version``.
    """

    qemu: str
    accelerator: str
    binary: str = field(default=BINARY, compare=False)

    def key(self, built: Built) -> str:
        """Return the key of a frozen host."""
        return key([built.key, self.qemu, *self.command(built, Places(Path("/run"), Path("/share")))])

    def command(self, built: Built, places: Places, *, incoming: bool = False) -> list[str]:
        """Return the command line. A host that comes from a frozen image waits for QMP to name it."""
        run = places.run
        return [
            self.binary,
            *("-name", "xlsnap-xen", "-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"),
            *("-machine", f"pc,accel={self.accelerator},usb=off", "-cpu", _CPU[self.accelerator]),
            *("-smp", "1", "-m", str(MEMORY_MIB)),
            *("-kernel", str(built.hypervisor), "-append", XEN_ARGUMENTS),
            *("-initrd", f"{_plain(built.kernel)} {_commas(DOM0_ARGUMENTS)},{_plain(built.ramdisk)}"),
            *("-chardev", f"file,id=console,path={_commas(str(run / 'console.log'))}"),
            *("-serial", "chardev:console"),
            *("-device", "virtio-serial-pci,max_ports=31"),
            *(word for name in ("agent", *CHANNELS) for word in _port(name, run)),
            *(
                "-fsdev",
                f"local,id=share,path={_commas(str(places.share))},security_model=none,multidevs=remap",
            ),
            *("-device", f"virtio-9p-pci,fsdev=share,mount_tag={SHARE_TAG}"),
            *("-chardev", f"socket,id=monitor,path={_commas(str(run / 'monitor.sock'))},server=on,wait=off"),
            *("-mon", "chardev=monitor,mode=control"),
            *(("-incoming", "defer") if incoming else ()),
        ]


@dataclass(frozen=True, slots=True)
class Places:
    """Directories of one nested host: ``run`` for sockets and logs, ``share`` is what dom0 can mount."""

    run: Path
    share: Path


def _port(name: str, run: Path) -> list[str]:
    path = _commas(str(run / f"{name}.sock"))
    return [
        *("-chardev", f"socket,id={name},path={path},server=on,wait=off"),
        *("-device", f"virtserialport,chardev={name},name={name}"),
    ]


def _commas(text: str) -> str:
    """Double the commas: QEMU's options are separated by them."""
    return text.replace(",", ",,")


def _plain(path: Path) -> str:
    """Return a path for ``-initrd``, where a space ends it.

    :raise XenHostError: if it has one.
    """
    if " " in str(path):
        raise XenHostError(f"{path}: QEMU takes no spaces here; set XDG_CACHE_HOME to a directory without")
    return _commas(str(path))


def find_qemu() -> tuple[str, str]:
    """Return the path of QEMU and the first line of its ``--version``.

    :raise XenHostError: if there is none, or it does not run.
    """
    path = shutil.which(BINARY)
    if path is None:
        raise XenHostError(f"{BINARY} not found: apt-get install qemu-system-x86")
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=VERSION_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise XenHostError(f"{path} --version failed: {error}") from None
    return path, done.stdout.splitlines()[0]


def check_memory() -> None:
    """Refuse to start a host for which there is no memory.

    :raise XenHostError: saying how much is needed and how much there is.
    """
    available = available_mib(Path("/proc/meminfo").read_text())
    if available < MEMORY_MIB:
        raise XenHostError(
            f"a nested Xen host needs {MEMORY_MIB} MiB of memory, and {available} MiB are available: "
            f"stop other programs, or use fewer workers (-n)"
        )


def available_mib(meminfo: str) -> int:
    """Return what ``/proc/meminfo`` says of available memory."""
    for line in meminfo.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0
