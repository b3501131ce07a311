# SPDX-License-Identifier: LGPL-2.1-or-later
"""What has changed in the checkout, as git tells it: it decides which mutants the quick choice takes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ..failures import HarnessError

GIT_SECONDS = 30.0


def changed_files(root: Path, since: str | None) -> tuple[set[str], str]:
    """Return the absolute paths of what differs from a revision, and the id of the present commit.

    :param since: the revision; None for the last commit and what is not committed. Then a directory that git
        knows nothing of has no changes.
    :raise HarnessError: if git does not know the revision.
    """
    head = _git(root, "rev-parse", "--verify", "-q", "HEAD")
    if head is None:
        if since is not None:
            raise HarnessError(f"{root} is no git checkout: it has no revision {since!r}")
        return set(), ""
    if since is None:
        # The first commit, or that of a shallow clone, has nothing before it.
        base = _git(root, "rev-parse", "--verify", "-q", "HEAD~1") or head
    else:
        base = _git(root, "rev-parse", "--verify", "-q", f"{since}^{{commit}}") or ""
        if not base:
            raise HarnessError(f"git knows no revision {since!r}")
    named = _git(root, "diff", "--name-only", "-z", base.strip(), "--") or ""
    return {str(root / name) for name in named.split("\0") if name}, head.strip()


def _git(root: Path, *arguments: str) -> str | None:
    """Return what a git command prints; None if it fails, or if there is no git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
