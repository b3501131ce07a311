# SPDX-License-Identifier: LGPL-2.1-or-later
"""A nested Xen host that really boots. It takes minutes the first time: only with XLSNAP_TEST_XEN=1."""

import asyncio
import os
import time
from pathlib import Path

import pytest
from xlsnap_conformance.guest import Probe
from xlsnap_conformance.hosts.xen import code, contents
from xlsnap_conformance.hosts.xen.failure import XenHostError
from xlsnap_conformance.hosts.xen.machine import Places
from xlsnap_conformance.hosts.xen.nested import NestedHost, running
from xlsnap_conformance.hosts.xen.store import open_store

pytestmark = pytest.mark.skipif(not os.environ.get("XLSNAP_TEST_XEN"), reason="boots Xen: XLSNAP_TEST_XEN=1")

GUEST = f"""\
name = "probe"
type = "pv"
memory = 96
kernel = "/{contents.GUEST}/vmlinux"
ramdisk = "/{contents.GUEST}/probe.cpio"
extra = "console=hvc0 quiet loglevel=4 mitigations=off nokaslr"
disk = ["format=raw,vdev=xvda,access=rw,backendtype=qdisk,target=DISK"]
"""

GUEST_SECONDS = 240


def silent(text: str, done: int, total: int) -> None:
    pass


async def resumed(directory: Path) -> NestedHost:
    store = await open_store("tcg", silent)
    return await store.start(Places(directory / "run", directory))


def test_a_resumed_host_runs_a_guest_on_a_disk_of_both(tmp_path: Path) -> None:
    async def work() -> None:
        host = await resumed(tmp_path)
        try:
            assert abs(int(await host.link.check(["date", "+%s"])) - time.time()) < GUEST_SECONDS
            await host.unpack(code.kit())
            assert (await host.link.check(["xlsnap", "--version"])).startswith("xlsnap ")
            await host.mount_share(str(tmp_path))
            (tmp_path / "disk").write_bytes(bytes(1 << 20))
            (tmp_path / "guest.cfg").write_text(GUEST.replace("DISK", str(tmp_path / "disk")))
            await host.link.check(["xl", "create", str(tmp_path / "guest.cfg")], seconds=GUEST_SECONDS)
            domid = (await host.link.check(["xl", "domid", "probe"])).strip()
            tty = await host.link.check(["xenstore-read", f"/local/domain/{domid}/console/tty"])
            port = await host.free_port()
            socket = tmp_path / "run" / f"{port}.sock"
            probe = await asyncio.to_thread(lambda: Probe(socket, timeout=GUEST_SECONDS))
            ended = await host.link.use(port, "connect", path=tty.strip())
            await asyncio.to_thread(_talk, probe)
            await ended  # its terminal goes with the domain
            assert b"PRB2" in (tmp_path / "disk").read_bytes()[512:1024]
            with pytest.raises(XenHostError, match="QEMU refused migrate"):
                await host.freeze(tmp_path / "image")
            assert not (tmp_path / "image").exists()
        finally:
            await host.stop()
        assert running(tmp_path / "run") is None

    asyncio.run(work())


def _talk(probe: Probe) -> None:
    with probe:
        assert probe.info() == "probe2 boot=l"
        assert probe.disks() == [2048] + [0] * 7
        assert probe.read(0, 1) is None
        probe.write(0, 1, "word")
        probe.flush()
        assert probe.read(0, 1) == "word"
        probe.power_off()
