# SPDX-License-Identifier: LGPL-2.1-or-later
"""A small file system of our own that can be filled up, and disks that fail to be written."""

from __future__ import annotations

import errno
import functools
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from world import DOMAIN, World, run
from xlsnap.domain import RunState
from xlsnap.qemu import process
from xlsnap.toolstack import Toolstack

SMALL_BYTES = 32 << 20

PRIVATE_MOUNTS = ("unshare", "--map-root-user", "--mount")
"""A command under which anybody can mount what nobody else sees."""


def mount_small(directory: Path) -> None:
    """Mount a small file system; it goes away with the last process that sees it."""
    directory.mkdir()
    options = f"size={SMALL_BYTES},mode=0700"
    command = ["mount", "-t", "tmpfs", "-o", options, "crash", str(directory)]
    subprocess.run(command, check=True, capture_output=True)


def fill(directory: Path, free: int) -> None:
    """Take all space but this many bytes, as far as whole pages allow."""
    state = os.statvfs(directory)
    with open(_filler(directory), "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, state.f_bavail * state.f_bsize - free))


def make_space(directory: Path) -> None:
    """Give the space back."""
    _filler(directory).unlink()


def _filler(directory: Path) -> Path:
    return directory / "filler"


def run_state(world: World) -> RunState | None:
    """Return the run state of the domain, without recovering anything."""

    async def ask(toolstack: Toolstack) -> RunState | None:
        (info,) = await toolstack.domains(DOMAIN)
        return info.run_state

    return run(world, ask)


def break_disk(image: str, event: str) -> None:
    """Let one access to an image fail, the first one after QEMU's block layer comes to `event` (blkdebug)."""
    module: Any = process
    whole: Callable[..., list[str]] = module.command_line

    @functools.wraps(whole)
    def broken(*args: Any, **kwargs: Any) -> list[str]:
        arguments = whole(*args, **kwargs)
        nodes = [index + 1 for index, item in enumerate(arguments) if item == "-blockdev"]
        for index in nodes:
            node = json.loads(arguments[index])
            arguments[index] = json.dumps(_broken(node, image, event))
        return arguments

    module.command_line = broken


def _broken(node: Any, image: str, event: str) -> Any:
    """Put a layer of errors over the file of the image, wherever it is in a tree of block nodes."""
    if not isinstance(node, dict):
        return node
    if node.get("driver") == "file" and os.path.basename(node.get("filename", "")) == image:
        error = {"event": event, "errno": errno.EIO, "once": True}
        return {"driver": "blkdebug", "image": node, "inject-error": [error]}
    return {key: _broken(value, image, event) for key, value in node.items()}
