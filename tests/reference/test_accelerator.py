# SPDX-License-Identifier: LGPL-2.1-or-later
"""The choice of an accelerator: KVM is believed only after a guest has run."""

import asyncio
import os
import time
from pathlib import Path

import pytest
from xlsnap.errors import HostError, InputError
from xlsnap.qemu import accelerator


def test_the_trial_guest_runs_under_tcg() -> None:
    assert asyncio.run(accelerator.works("tcg", seconds=20))


def test_a_guest_that_gets_nowhere_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rom = bytearray(accelerator.trial_rom())
    rom[0:2] = b"\xeb\xfe"  # jump to itself
    monkeypatch.setattr(accelerator, "trial_rom", lambda: bytes(rom))
    start = time.monotonic()
    assert not asyncio.run(accelerator.works("tcg", seconds=0.5))
    assert time.monotonic() - start < 60


def test_without_interrupts_the_trial_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a half-working KVM does: it runs the first instructions and no more."""
    code = accelerator.trial_rom()
    deaf = code.replace(bytes.fromhex("31dbfb"), bytes.fromhex("31db90"))  # sti becomes nop
    assert deaf != code
    monkeypatch.setattr(accelerator, "trial_rom", lambda: deaf)
    assert not asyncio.run(accelerator.works("tcg", seconds=0.5))


def test_an_accelerator_that_qemu_lacks_does_not_work() -> None:
    assert not asyncio.run(accelerator.works("nonsense", seconds=20))


@pytest.mark.parametrize(("kvm_works", "chosen"), [(True, "kvm"), (False, "tcg")])
def test_auto_takes_kvm_if_it_works_and_remembers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kvm_works: bool, chosen: str
) -> None:
    trials = []

    async def trial(name: str) -> bool:
        trials.append(name)
        return kvm_works

    monkeypatch.setattr(accelerator, "works", trial)
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    cache = tmp_path / "accelerator.json"
    for _ in range(2):
        assert asyncio.run(accelerator.choose("auto", cache)) == chosen
    assert trials == ["kvm"]
    assert cache.stat().st_mode & 0o777 == 0o600
    cache.write_text("{}")
    assert asyncio.run(accelerator.choose("auto", cache)) == chosen
    assert trials == ["kvm", "kvm"]


def test_kvm_on_demand_is_refused_where_it_does_not_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def trial(name: str) -> bool:
        return False

    monkeypatch.setattr(accelerator, "works", trial)
    with pytest.raises(HostError, match="KVM does not work here"):
        asyncio.run(accelerator.choose("kvm", tmp_path / "cache"))
    with pytest.raises(InputError, match="unknown accelerator"):
        asyncio.run(accelerator.choose("xen", tmp_path / "cache"))
