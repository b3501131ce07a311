# SPDX-License-Identifier: LGPL-2.1-or-later
"""Choose an accelerator by trying it: KVM is trusted only when a guest has really run under it.

A `/dev/kvm` can exist, create virtual machines, and never let a guest get anywhere. The trial is a guest of
a few instructions that enters protected mode, sleeps through timer interrupts, and ends QEMU.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec

from ..errors import HostError, InputError
from ..store import write_durably
from .process import BINARY, brief, find_binary

CHOICES = ("auto", "kvm", "tcg")
TRIAL_SECONDS = 3.0

_ROM_BYTES = 65536
_EXIT_VALUE = 0x2A
_SUCCESS = _EXIT_VALUE << 1 | 1  # what isa-debug-exit makes of it

# At f000:0000: enter 32-bit protected mode, wire the local APIC and the interrupt controller as no firmware
# has done it, set the timer to about 1 kHz, count 20 ticks in EBX with HLT in between, and leave through the
# debug port. Interrupts in protected mode are where a half-working KVM fails (seen: at IRET).
_CODE = bytes.fromhex(
    "fa 2e660f011630000f20c00c010f22c0 66ea3c000f000800"  # cli; lgdt; cr0.pe = 1; jump to 32-bit code
    "0000000000000000 ffff0000009acf00 ffff00000092cf00"  # descriptors: null, flat code, flat data
    "170018000f00 070100100000"  # limit and base of the descriptor table; of the interrupt table at 0x1000
    "66b81000 8ed8 8ec0 8ed0 bc00800000"  # flat segments; esp = 0x8000
    "c70500110000a8000800 c70504110000008e0f00"  # gate 0x20: tick
    "0f011d36000f00"  # lidt
    "c705f000e0feff010000 c7055003e0fe00070000"  # local APIC on; LINT0 = ExtINT
    "b011e620 b020e621 b004e621 b001e621 b0fee621"  # interrupt controller: base 0x20, IRQ 0 only
    "b034e643 b0a9e640 b004e640"  # timer: 1193 counts
    "31db fb"  # ebx = 0; sti
    "f4 83fb14 72fa"  # wait: hlt; cmp ebx, 20; jb wait
    "b02a e6f4 f4"  # exit value to the debug port; hlt
    "43 b020e620 cf"  # tick: inc ebx; end of interrupt; iret
)
_RESET = bytes.fromhex("ea 0000 00f0")  # at the reset vector: jmp f000:0000


def trial_rom() -> bytes:
    """Return the trial guest as a 64 KiB firmware image."""
    rom = bytearray(b"\xff" * _ROM_BYTES)
    rom[: len(_CODE)] = _CODE
    rom[_ROM_BYTES - 16 : _ROM_BYTES - 16 + len(_RESET)] = _RESET
    return bytes(rom)


async def works(accelerator: str, *, seconds: float = TRIAL_SECONDS) -> bool:
    """Boot the trial guest under the accelerator; say whether it reached its end within `seconds`."""
    binary = find_binary()
    with tempfile.TemporaryDirectory(prefix="xlsnap-trial-") as directory:
        rom = Path(directory, "trial.rom")
        rom.write_bytes(trial_rom())
        command = (
            binary,
            *("-nodefaults", "-no-user-config", "-display", "none", "-m", "1"),
            *("-machine", f"pc,accel={accelerator}", "-bios", str(rom)),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=1"),
        )
        try:
            async with brief(*command, seconds=seconds) as (process, _):
                pass
        except TimeoutError:
            return False
        return process.returncode == _SUCCESS


class _Found(msgspec.Struct, frozen=True):
    """The outcome of a trial, and for which machine and QEMU it holds."""

    boot_id: str
    qemu: str
    accelerator: str


async def choose(wanted: str, cache: Path) -> str:
    """Return the accelerator to use: `wanted`, or for ``auto`` KVM if it works, else TCG.

    The outcome of a trial is kept in `cache` until the machine reboots or QEMU changes.

    :raise InputError: for an unknown choice.
    :raise HostError: if KVM was demanded and does not work.
    """
    if wanted not in CHOICES:
        raise InputError(f"unknown accelerator {wanted!r}", hint=f"one of {', '.join(CHOICES)}")
    if wanted == "tcg":
        return "tcg"
    binary = find_binary(BINARY)
    stat = os.stat(binary)
    machine = _Found(_boot_id(), f"{binary} {stat.st_mtime_ns} {stat.st_size}", "")
    accelerator = _remembered(cache, machine)
    if accelerator is None:
        usable = os.access("/dev/kvm", os.R_OK | os.W_OK) and await works("kvm")
        accelerator = "kvm" if usable else "tcg"
        write_durably(cache, msgspec.json.encode(msgspec.structs.replace(machine, accelerator=accelerator)))
    if wanted == "kvm" and accelerator != "kvm":
        raise HostError("KVM does not work here: a trial guest did not run", hint="use --accelerator tcg")
    return accelerator


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _remembered(cache: Path, machine: _Found) -> str | None:
    try:
        found = msgspec.json.decode(cache.read_bytes(), type=_Found)
    except (OSError, msgspec.MsgspecError):
        return None
    return found.accelerator if (found.boot_id, found.qemu) == (machine.boot_id, machine.qemu) else None
