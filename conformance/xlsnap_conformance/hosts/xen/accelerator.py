# SPDX-License-Identifier: LGPL-2.1-or-later
"""Choose an accelerator by trying it: KVM is trusted only when a nested host has really booted under it.

A `/dev/kvm` can exist, create virtual machines, and never let a guest get anywhere.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from .failure import XenHostError
from .machine import Machine, Places
from .nested import NestedHost

if TYPE_CHECKING:
    from .store import Store

CHOICES = ("auto", "kvm", "tcg")
DEVICE = Path("/dev/kvm")

TRIAL_SECONDS = 30.0
"""Under KVM that works, a nested host answers within 10 s."""


class _Found(msgspec.Struct, frozen=True):
    """The outcome of a trial, and for which boot of this machine, and which QEMU, it holds."""

    boot: str
    qemu: str
    works: bool


async def choose(wanted: str, store: Store) -> str:
    """Return the accelerator to use: ``wanted``, or for ``auto`` KVM if it works, else TCG.

    The outcome of a trial is kept until the machine reboots or QEMU changes.

    :param store: whose host is booted; its own accelerator does not matter.
    :raise XenHostError: if KVM was demanded and does not work.
    """
    if wanted == "tcg":
        return "tcg"
    works = os.access(DEVICE, os.R_OK | os.W_OK) and await _works(store)
    if wanted == "kvm" and not works:
        raise XenHostError("KVM does not work here: a nested Xen host did not boot; use --accelerator tcg")
    return "kvm" if works else "tcg"


async def _works(store: Store) -> bool:
    file = store.cache / "accelerator.json"
    now = _Found(_boot_id(), store.machine.qemu, works=False)
    try:
        found = msgspec.json.decode(file.read_bytes(), type=_Found)
        if (found.boot, found.qemu) == (now.boot, now.qemu):
            return found.works
    except (OSError, msgspec.MsgspecError):
        pass
    store.say("trying KVM")
    works = await _boots(store)
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(now, works=works)))
    return works


async def _boots(store: Store) -> bool:
    machine = Machine(store.machine.qemu, "kvm", store.machine.binary)
    with tempfile.TemporaryDirectory(prefix="xlsnap-kvm-") as directory:
        places = Places(Path(directory), Path(directory))
        try:
            async with asyncio.timeout(TRIAL_SECONDS):
                host = await NestedHost.boot(machine, store.built(), places, store.say)
        except (XenHostError, TimeoutError):
            return False
        await host.stop()
        return True


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
