# SPDX-License-Identifier: LGPL-2.1-or-later
"""Completion of domain and snapshot names. It must be quick and never complain."""

from __future__ import annotations

import contextlib

import click

from ..errors import XlsnapError
from ..layout import StateRoot
from ..store import Store


def _store(context: click.Context) -> Store:
    root = context.find_root().params.get("root")
    return Store(StateRoot.at(root) if root else StateRoot.default())


def domains(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a domain."""
    with contextlib.suppress(XlsnapError, OSError):
        return [key.name for key in _store(context).domain_keys() if key.name.startswith(incomplete)]
    return []


def snapshots(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a snapshot: of the domain if it is given already, else of all domains."""
    with contextlib.suppress(XlsnapError, OSError):
        store = _store(context)
        domain = context.params.get("domain")
        uuids = [store.find(domain)] if domain else [key.uuid for key in store.domain_keys()]
        names = {name for uuid in uuids for name in store.snapshots(uuid)}
        return sorted(name for name in names if name.startswith(incomplete))
    return []
