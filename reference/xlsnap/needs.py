# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the snapshots of a domain need, read from all their metadata at once.

Decisions about images need a little of every snapshot; a full reading of each would cost several times as
much, which counts where a domain has hundreds.
"""

from __future__ import annotations

import os

import msgspec

from .chain import Need
from .errors import HostError
from .layout import DomainPaths, name_of_metadata
from .plan.observed import SnapshotNeeds
from .snapshot import PARENT_KEY


class _Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a metadata file that counts here."""

    name: str
    disks: tuple[Need, ...] = ()
    parent: str | None = msgspec.field(name=PARENT_KEY, default=None)


def read_needs(paths: DomainPaths) -> tuple[dict[str, SnapshotNeeds], tuple[str, ...]]:
    """Return the needs of the domain's snapshots by name, and the names of those that cannot be understood.

    :raise HostError: if the directory cannot be read.
    """
    decoder = msgspec.json.Decoder(_Metadata)
    needs, unreadable = {}, []
    directory = os.fspath(paths.snapshots)
    try:
        entries = sorted(os.listdir(directory))
    except FileNotFoundError:
        return {}, ()
    except OSError as error:
        raise HostError(f"cannot read {directory}: {error.strerror}") from error
    for entry in entries:
        name = name_of_metadata(entry)
        if name is None:
            continue
        try:
            with open(os.path.join(directory, entry), "rb") as file:
                metadata = decoder.decode(file.read())
        except FileNotFoundError:
            continue  # somebody removed it meanwhile
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            unreadable.append(name)
        else:
            if metadata.name == name:
                needs[name] = SnapshotNeeds(metadata.parent, metadata.disks)
            else:
                unreadable.append(name)
    return needs, tuple(unreadable)
