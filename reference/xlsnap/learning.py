# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a host tells of a domain that others begin, end and change too (pure).

`xl` is not ours: a domain can be begun by hand, reboot, or get and lose disks. Its images can change by our
own hand only, as long as it is not begun anew.
"""

from __future__ import annotations

import msgspec

from .domain import DomainRecord
from .host import KnownDomain


def record_of(found: KnownDomain) -> DomainRecord:
    """Return the record of a domain that nobody has told us of."""
    config = msgspec.structs.replace(found.config, uuid=found.uuid)
    return DomainRecord(
        uuid=found.uuid,
        name=config.name,
        config=config,
        domid=found.domid,
        process=found.domid,
        accelerator="xen",
    )


def learn(record: DomainRecord, found: KnownDomain) -> DomainRecord:
    """Return the record of a domain as it is now.

    With another id than before it has been begun by others, on the images that they have named. With the same
    it may have got disks or lost some.
    """
    known = {disk.vdev: disk for disk in record.config.disks} if found.domid == record.domid else {}
    disks = tuple(known.get(disk.vdev, disk) for disk in found.config.disks)
    before = {disk.vdev: (disk.target, disk.format) for disk in record.config.disks}
    config = msgspec.structs.replace(record.config, name=found.config.name)
    if {disk.vdev: (disk.target, disk.format) for disk in disks} != before:
        config = msgspec.structs.replace(config, disks=disks)
    return msgspec.structs.replace(
        record, name=found.config.name, config=config, domid=found.domid, process=found.domid
    )
