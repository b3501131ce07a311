# SPDX-License-Identifier: LGPL-2.1-or-later
"""The life cycle of Xen domains by way of `xl`.

A domain is found by its uuid: its id changes whenever it is begun.

A revert needs no successor here: two domains of one uuid would have the same disks open. What can be known
beforehand is checked instead, which is the whole form of the memory image; then the domain ends, and `xl`
restores it from the image.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from ..chain import chain, present_images
from ..domain import DomainConfig, DomainRecord, RunState
from ..errors import DomainStateError, HostError, HostTimeoutError, QemuDiedError, SnapshotDamagedError
from ..host import KnownDomain, Started
from ..layout import DomainPaths, StateRoot, make_private_directory
from ..qemu.monitor import Monitor
from ..qemu.process import ProcessPaths
from ..store import write_durably
from . import xl
from .config import config_from_json, xl_cfg
from .in_use import users
from .listing import Row, parse_rows
from .stored import console_tty, stored, stored_config
from .stream import read_config

END_SECONDS = 60.0
"""How long a domain that was destroyed, and its QEMU, may take to be gone."""

_POLL_SECONDS = 0.05

SEEN_SECONDS = 0.5
"""How long what `xl list` has shown is taken for the present."""

ACCELERATOR = "xen"
"""What the records of Xen's domains have in place of QEMU's accelerator."""


class DomainQemu(ProcessPaths, frozen=True):
    """The QEMU of a Xen domain, which libxl runs; ``directory`` is ours."""

    name: str

    @property
    def log(self) -> Path:
        """Where libxl lets it write its standard error. The name is not ours: it must not lead elsewhere."""
        return Path("/var/log/xen", f"qemu-dm-{self.name}.log".replace("/", "_"))


class XenDomains:
    """Runs domains with `xl`: the part of the host that is about life cycle."""

    def __init__(self, root: StateRoot) -> None:
        self._root = root
        self._monitors: dict[str, Monitor] = {}
        self._seen: tuple[float, list[Row]] | None = None

    # --- state ------------------------------------------------------------------------------------------

    def domains(self) -> Sequence[KnownDomain]:
        """Return all domains of this Xen but dom0 that are complete, with what libxl keeps of them."""
        found = ((row, stored(row.domid, row.uuid)) for row in self._all_rows())
        return [
            KnownDomain(
                uuid=row.uuid,
                domid=row.domid,
                config=config_from_json(config | {"c_info": config.get("c_info", {}) | _identity(row)}),
            )
            for row, config in found
            if config is not None
        ]

    def _all_rows(self) -> list[Row]:
        """Return what `xl list` shows. It takes a while, so that what it said a moment ago does as well.

        What we change ourselves is forgotten at once.
        """
        if self._seen is None or time.monotonic() - self._seen[0] > SEEN_SECONDS:
            rows = parse_rows(xl.look("list", "-v"))
            self._seen = (time.monotonic(), rows)
        return self._seen[1]

    def look_again(self) -> None:
        """Forget what `xl list` has shown."""
        self._seen = None

    def _rows(self, record: DomainRecord) -> list[Row]:
        """Return all rows of a domain: an interrupted operation can have left one that is half made."""
        return [row for row in self._all_rows() if row.uuid == record.uuid]

    def _row(self, record: DomainRecord) -> Row | None:
        """Return the row of an active domain that is complete."""
        rows = (row for row in self._rows(record) if stored_config(row.domid, row.uuid).exists())
        return next(rows, None)

    def _active_row(self, record: DomainRecord) -> Row:
        row = self._row(record)
        if row is None:
            raise QemuDiedError("the domain has ended")
        return row

    def is_active(self, record: DomainRecord) -> bool:
        """Say whether Xen has the domain."""
        return self._row(record) is not None

    async def attach(self, record: DomainRecord, *, interrupted: bool = True) -> RunState | None:
        """Wait for an `xl` of an interrupted operation, and return the run state."""
        await xl.wait_for_left_behind(self._note(record))
        self.look_again()
        return await self.run_state(record)

    async def run_state(self, record: DomainRecord) -> RunState | None:
        """Ask `xl list`."""
        row = self._row(record)
        return None if row is None else row.run_state

    def cpu_seconds(self, record: DomainRecord) -> float:
        """Ask `xl list`."""
        row = self._row(record)
        return 0.0 if row is None else row.cpu_seconds

    def console(self, record: DomainRecord) -> Path:
        """Return the terminal of the first serial port (HVM) or of the PV console.

        :raise HostError: if xenstore knows none.
        """
        tty = console_tty(self._active_row(record).domid)
        if tty is None:
            raise HostError(f"domain {record.name!r} has no console")
        return tty

    # --- life cycle -------------------------------------------------------------------------------------

    async def pause(self, record: DomainRecord) -> None:
        """`xl pause`, once: Xen counts how often a domain is paused."""
        row = self._active_row(record)
        if row.run_state is not RunState.PAUSED:
            await self._change(record, "pause", str(row.domid))

    async def resume(self, record: DomainRecord) -> None:
        """`xl unpause`; a domain that runs is left alone."""
        row = self._active_row(record)
        if row.run_state is RunState.PAUSED:
            await self._change(record, "unpause", str(row.domid))

    async def start(self, record: DomainRecord, config: DomainConfig, *, paused: bool) -> Started:
        """`xl create` with a configuration file of ours, which stays for who starts the domain by hand.

        :raise HostError: with xl's own words if it does not come up; xl removes what it has made.
        """
        path = self.write_config(record, config)
        await self._change(record, "create", "-q", *(["-p"] if paused else []), str(path))
        return self._begun(record)

    async def stop(self, record: DomainRecord) -> None:
        """`xl destroy`; then wait until its QEMU, which writes its caches out, has let go of the images."""
        for row in self._rows(record):
            with contextlib.suppress(xl.XlError):  # it may have ended by itself just now
                await self._change(record, "destroy", str(row.domid))
        await self.release(record)
        images = [
            image.path for first in present_images(record.config).values() for image in chain(record, first)
        ]
        limit = time.monotonic() + END_SECONDS
        while self._rows(record) or users(images):
            self.look_again()
            if time.monotonic() > limit:
                raise HostTimeoutError(
                    f"domain {record.name!r} is not gone {END_SECONDS:g} s after xl destroy"
                )
            await asyncio.sleep(_POLL_SECONDS)

    # --- successor --------------------------------------------------------------------------------------

    async def load_successor(self, record: DomainRecord, config: DomainConfig, memory_image: str) -> None:
        """Make sure that the memory image is whole; nothing is started before the domain has ended.

        :raise SnapshotDamagedError: if it is not.
        """
        stored = await asyncio.to_thread(read_config, memory_image)
        size = stored.get("b_info", {}).get("max_memkb")
        if not isinstance(size, int):
            raise SnapshotDamagedError(f"memory image {memory_image} does not say how large the domain is")

    def has_successor(self, record: DomainRecord) -> bool:
        """No: see `load_successor`."""
        return False

    async def discard_successor(self, record: DomainRecord) -> None:
        """Destroy what an `xl` that was killed has left half made."""
        complete = self._row(record)
        for row in self._rows(record):
            if row != complete:
                await self._change(record, "destroy", str(row.domid))

    async def promote_successor(
        self, record: DomainRecord, config: DomainConfig, memory_image: str, *, paused: bool
    ) -> Started:
        """`xl restore` with a configuration of ours: that in the save file names the images of its time."""
        await self.discard_successor(record)
        path = self.write_config(record, config)
        await self._change(record, "restore", *(["-p"] if paused else []), str(path), memory_image)
        return self._begun(record)

    def _begun(self, record: DomainRecord) -> Started:
        row = self._row(record)
        if row is None:
            raise HostError("the domain has ended again at once", hint="its console log tells more")
        return Started(process=row.domid, accelerator=ACCELERATOR, domid=row.domid)

    # --- files and processes ----------------------------------------------------------------------------

    def write_config(self, record: DomainRecord, config: DomainConfig) -> Path:
        """Write the domain's xl.cfg into our directory; return its path."""
        directory = self._paths(record).directory
        make_private_directory(directory)
        path = directory / "xl.cfg"
        write_durably(path, xl_cfg(config).encode("utf-8", "surrogateescape"))
        return path

    def _paths(self, record: DomainRecord) -> DomainPaths:
        return self._root.domain(record.uuid)

    def _note(self, record: DomainRecord) -> Path:
        return self._paths(record).directory / "xl.pid"

    async def _change(self, record: DomainRecord, *arguments: str) -> None:
        try:
            await xl.change(*arguments, note=self._note(record))
        finally:
            self.look_again()

    async def _monitor(self, record: DomainRecord) -> Monitor:
        """Return the connection to the domain's QEMU, by the monitor that libxl keeps for libxenstat.

        :raise DomainStateError: if the domain has no QEMU.
        """
        monitor = self._monitors.get(record.uuid)
        if monitor is None:
            row = self._active_row(record)
            path = Path(f"/run/xen/qmp-libxenstat-{row.domid}")
            if not path.exists():
                raise DomainStateError(
                    f"domain {record.name!r} has no QEMU: none of its disks has the backend qdisk",
                    hint="give its disks backendtype=qdisk",
                )
            qemu = DomainQemu(self._paths(record).directory, record.name)
            monitor = await Monitor.connect(qemu, path)
            self._monitors[record.uuid] = monitor
        return monitor

    async def release(self, record: DomainRecord) -> None:
        """Close the connection to the domain's QEMU: it takes one client at a time."""
        monitor = self._monitors.pop(record.uuid, None)
        if monitor is not None:
            await monitor.close()

    async def close(self) -> None:
        """Close all connections."""
        for monitor in self._monitors.values():
            await monitor.close()
        self._monitors.clear()


def _identity(row: Row) -> dict[str, str]:
    return {"name": row.name, "uuid": row.uuid}
