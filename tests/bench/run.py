# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run every benchmark of this directory and print its rows: what ``make bench`` does.

Each script runs in a process of its own, one after another, so that none disturbs the figures of the next.
Exit status: 0 when every script ran, whatever it measured; 1 when one failed; 2 for an unknown name.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def scripts() -> dict[str, Path]:
    """The benchmark scripts by short name: ``grammars`` is ``bench_grammars.py``."""
    return {path.stem.removeprefix("bench_"): path for path in sorted(HERE.glob("bench_*.py"))}


def main() -> int:
    """Run the chosen scripts; return the exit status."""
    known = scripts()
    parser = argparse.ArgumentParser(description="Run the benchmarks.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)} (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all rows to FILE as JSON")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(known)}")

    tables, failed = [], []
    with tempfile.TemporaryDirectory(prefix="xlsnap-bench-") as scratch:
        for name in options.names or known:
            result = Path(scratch, f"{name}.json")
            done = subprocess.run([sys.executable, known[name], "--json", result], check=False)
            if done.returncode == 0:
                tables.append(json.loads(result.read_text()))
            else:
                failed.append(name)
            print(flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(tables, indent=2) + "\n")
    goals = [row["met"] for table in tables for row in table["rows"] if row["met"] is not None]
    print(f"{len(tables)} ran, {len(failed)} failed; {sum(goals)} of {len(goals)} goals met.")
    for name in failed:
        print(f"{known[name].name} failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
