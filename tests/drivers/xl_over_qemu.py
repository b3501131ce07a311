# SPDX-License-Identifier: LGPL-2.1-or-later
"""An `xl` without Xen: the reference on QEMU, with the lists in the form of xl 4.17.

It lets the driver of `xl` be tried on any machine. ``XLSNAP_ROOT`` says where its domains are.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence

from xlsnap import cli
from xlsnap.domain import DomainInfo, DomainRecord
from xlsnap.layout import StateRoot
from xlsnap.toolstack import Toolstack

OPTIONS = ["--host", "qemu", "--accelerator", "tcg"]


async def active() -> list[tuple[DomainInfo, DomainRecord]]:
    async with Toolstack(StateRoot.default(), kind="qemu") as toolstack:
        return [(info, toolstack.resolve(info.uuid)) for info in await toolstack.domains()]


def row(info: DomainInfo) -> str:
    """As `xl list -v` prints it."""
    letters = info.run_state.letters if info.run_state else "------"
    return (
        f"{info.name:<40} {info.domid:>5} {info.memory_mib:>5} {info.vcpus:>5}     {letters}  "
        f"{info.cpu_seconds:>8.1f} {info.uuid}        -                -"
    )


def entry(info: DomainInfo, record: DomainRecord) -> dict[str, object]:
    """As `xl list -l` prints it, shortened."""
    disks = [
        {"pdev_path": disk.target, "vdev": disk.vdev, "backend": "qdisk", "format": disk.format}
        for disk in record.config.disks
    ]
    identity = {"type": "hvm", "name": info.name, "uuid": info.uuid}
    return {"domid": info.domid, "config": {"c_info": identity, "b_info": {}, "disks": disks}}


def run(arguments: Sequence[str]) -> int:
    match arguments:
        case ["info", "xen_version"]:
            print("4.17.7")
        case ["list", "-v"]:
            dom0 = "Domain-0                                     0  1536     1     r-----      28.0"
            print("Name                                        ID   Mem VCPUs\tState\tTime(s)   UUID")
            print(f"{dom0} 00000000-0000-0000-0000-000000000000        -                -")
            for info, _ in asyncio.run(active()):
                print(row(info))
        case ["list", "-l", name]:
            found = [entry(info, record) for info, record in asyncio.run(active()) if info.name == name]
            print(json.dumps(found, indent=4))
        case _:
            return cli.run([*OPTIONS, *arguments])
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
