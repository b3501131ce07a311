# SPDX-License-Identifier: LGPL-2.1-or-later
"""Addresses of Unix sockets."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def short_address(path: Path) -> Iterator[str]:
    """Yield an address of a Unix socket that is short however long its path is (107 bytes are the limit).

    :raise OSError: if its directory cannot be opened.
    """
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
