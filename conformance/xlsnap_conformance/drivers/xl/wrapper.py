# SPDX-License-Identifier: LGPL-2.1-or-later
"""An `xl` with the snapshot commands, made of two: ``python -m xlsnap_conformance.drivers.xl.wrapper``.

Snapshot commands go to `xlsnap`, all others to the real `xl`, each in place of this process. It stands for an
`xl` that has them itself, to try the driver with::

    --driver "xl --xl 'python3 -m xlsnap_conformance.drivers.xl.wrapper'"

The environment chooses other programs: ``XLSNAP_WRAPPED_SNAPSHOTS``, ``XLSNAP_WRAPPED_XL``.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence

SNAPSHOT_COMMANDS = frozenset({"snapshot-create", "snapshot-list", "snapshot-revert", "snapshot-delete"})


def command_line(arguments: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return what carries a command out (pure).

    >>> command_line(["-N", "snapshot-create", "web"], {})
    ['xlsnap', '-N', 'snapshot-create', 'web']
    >>> command_line(["pause", "snapshot-list"], {"XLSNAP_WRAPPED_XL": "/usr/sbin/xl"})
    ['/usr/sbin/xl', 'pause', 'snapshot-list']
    """
    command = next((word for word in arguments if not word.startswith("-")), None)
    ours = command in SNAPSHOT_COMMANDS
    variable, program = ("XLSNAP_WRAPPED_SNAPSHOTS", "xlsnap") if ours else ("XLSNAP_WRAPPED_XL", "xl")
    return [*shlex.split(environment.get(variable, program)), *arguments]


def main() -> None:
    """Become the command."""
    words = command_line(sys.argv[1:], os.environ)
    try:
        os.execvp(words[0], words)
    except OSError as error:
        sys.exit(f"xl: cannot run {words[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
