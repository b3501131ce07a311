# SPDX-License-Identifier: LGPL-2.1-or-later
"""How fast the grammars are, beside libxlu's C parsers, and whether the time grows with the size alone.

The baseline is measured inside a C program that calls libxlu (tests/grammars/oracle), if that can be built.
The last rows compare with our own time for half the size: 2.00 is linear.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "grammars" / "oracle"))

from libxlu_oracle import Oracle, OracleMissingError, build
from rows import Row, best_of, main
from xlsnap_grammars import ConfigError, parse_config, parse_disk, parse_snapshot_config

SNAPSHOT = b"""\
# taken before the upgrade
name = "internal snapshot 20140710"
description = "before the upgrade"
memory = "yes"
type = "internal"
disk = [ 'vdev=hda,target=null',
         'vdev=hdc,target=null',
       ]
"""
DISK = "format=qcow2,vdev=hda,access=rw,target=/var/lib/xen/images/guest.qcow2"
SIZES = (5_000, 10_000, 20_000)


def settings(count: int) -> bytes:
    """A file of that many settings, some 55 bytes each."""
    return b"".join(b'setting_%06d = "the value of setting number %06d"\n' % (i, i) for i in range(count))


def one_list(count: int) -> bytes:
    """One list of that many strings."""
    return (
        b"a = [\n" + b"".join(b'    "the string number %06d of a list",\n' % i for i in range(count)) + b"]\n"
    )


def broken(count: int) -> bytes:
    """A file of that many settings, each with an error."""
    return b"".join(b"setting_%06d = (the value of setting number %06d)\n" % (i, i) for i in range(count))


def reject(text: bytes) -> None:
    """Parse a file that has errors."""
    try:
        parse_config(text)
    except ConfigError:
        return
    raise AssertionError("accepted")


def first_parse() -> None:
    """Start Python, import the package and parse one file."""
    code = "import sys, xlsnap_grammars; xlsnap_grammars.parse_snapshot_config(sys.stdin.buffer.read())"
    subprocess.run([sys.executable, "-c", code], input=SNAPSHOT, check=True)


def measure() -> Iterator[Row]:
    """Measure everything."""
    with tempfile.TemporaryDirectory(prefix="xlsnap-bench-") as scratch:
        try:
            oracle = Oracle(build(Path(scratch)))
        except OracleMissingError as missing:
            print(f"no baseline: {missing}", file=sys.stderr)
            yield from rows(None)
            return
        try:
            yield from rows(oracle)
        finally:
            oracle.close()


def rows(oracle: Oracle | None) -> Iterator[Row]:
    """The rows; those of libxlu only with an oracle."""

    def theirs(kind: str, text: bytes) -> float | None:
        return oracle.seconds(kind, text) if oracle else None

    parse_snapshot_config(SNAPSHOT)
    yield Row(
        "xl.snapshot.conf of 8 lines",
        best_of(lambda: parse_config(SNAPSHOT), number=200),
        theirs("config", SNAPSHOT),
        goal="<= 0.5 ms",
    )
    yield Row(
        "the same, with its disks read",
        best_of(lambda: parse_snapshot_config(SNAPSHOT), number=200),
        goal="<= 0.5 ms",
    )
    yield Row(
        "disk specification", best_of(lambda: parse_disk(DISK), number=200), theirs("disk", DISK.encode())
    )
    big = settings(SIZES[-1])
    yield Row(
        f"{SIZES[-1]:,} settings ({len(big) / 1e6:.2f} MB)",
        best_of(lambda: parse_config(big)),
        theirs("config", big),
        goal="<= 2 s",
    )
    items = one_list(SIZES[-1])
    yield Row(
        f"a list of {SIZES[-1]:,} strings ({len(items) / 1e6:.2f} MB)",
        best_of(lambda: parse_config(items)),
        theirs("config", items),
        goal="<= 2 s",
    )
    wrong = broken(SIZES[-1])
    yield Row(
        f"{SIZES[-1]:,} settings, all wrong",
        best_of(lambda: reject(wrong), repeats=2),
        theirs("config", wrong),
    )
    start = best_of(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True))
    yield Row("start Python and parse one file (÷ start Python)", best_of(first_parse), start)
    times = {size: best_of(partial(parse_config, settings(size))) for size in SIZES}
    for half, size in pairwise(SIZES):
        yield Row(f"{size:,} settings (÷ {half:,} settings)", times[size], times[half], goal="<= 2.5 x")


if __name__ == "__main__":
    main("Grammars", measure)
