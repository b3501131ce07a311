# SPDX-License-Identifier: LGPL-2.1-or-later
"""The real libxlu as an oracle: builds and drives ``libxlu_oracle.c``, and compares our parsers with it."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xlsnap_grammars import ConfigError, DiskSpec, parse_config, parse_disk

SOURCE = Path(__file__).with_name("libxlu_oracle.c")
LIBRARIES = ("-lxlutil", "-lxenlight", "-lxentoollog")
PACKAGES = "gcc libxen-dev libxenmisc4.17"

ABORT = "signal 6"
JAM = "exit 2"

_KEY = re.compile(rb"[a-z][._0-9a-z]*")


class OracleMissingError(Exception):
    """The oracle cannot be built here; the message says what to install."""


def build(directory: Path) -> Path:
    """Compile the oracle into `directory` and return its path.

    :raises OracleMissingError: if there is no C compiler or no libxlu to link with.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise OracleMissingError(f"no C compiler: apt install {PACKAGES}")
    headers = subprocess.run(
        [compiler, "-fsyntax-only", "-x", "c", "-"],
        input="#include <libxlutil.h>\n",
        text=True,
        capture_output=True,
    )
    if headers.returncode != 0:
        raise OracleMissingError(f"no libxlutil.h: apt install {PACKAGES}")
    program = directory / "libxlu-oracle"
    subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-o", program, SOURCE, *LIBRARIES], check=True)
    return program


@dataclass(frozen=True, slots=True)
class Verdict:
    """What libxlu says: the value if it accepts a text, how it ends if it takes the process with it."""

    accepted: bool
    value: Any = None
    report: str = ""
    died: str | None = None

    @property
    def lines(self) -> list[int]:
        """The lines of the errors that libxlu reports (deviation line-of-a-line-end put right)."""
        reports = re.findall(r"^config:(\d+):.*?(unexpected NEWLINE|$)", self.report, re.MULTILINE)
        return [int(line) + bool(line_end) for line, line_end in reports]


class Oracle:
    """A running oracle."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def config(self, text: bytes, keys: Sequence[bytes] | None = None) -> Verdict:
        """Parse a configuration file; asks for every key that could be in it, unless told which."""
        if keys is None:
            keys = sorted(set(_KEY.findall(text)))
        verdict = self._ask("config", text, *keys)
        if verdict.accepted:
            pairs = ((bytes.fromhex(key).decode(), _text(value)) for key, value in verdict.value.items())
            return Verdict(True, {key: value for key, value in pairs if value is not None}, verdict.report)
        return verdict

    def disk(self, spec: bytes) -> Verdict:
        """Parse a disk specification."""
        verdict = self._ask("disk", spec)
        if verdict.accepted:
            return Verdict(
                True, {field: _text(value) for field, value in verdict.value.items()}, verdict.report
            )
        return verdict

    def seconds(self, kind: str, text: bytes, runs: int = 5) -> float:
        """The best time of parsing `text` as `kind` ("config" or "disk"), measured inside the oracle."""
        return float(self._exchange([f"time-{kind}", text.hex(), str(runs)])["seconds"])

    def _ask(self, kind: str, *texts: bytes) -> Verdict:
        reply = self._exchange([kind, *(text.hex() for text in texts)])
        if "died" in reply:
            return Verdict(False, died=reply["died"])
        report = bytes.fromhex(reply["report"]).decode("utf-8", "surrogateescape")
        return Verdict(reply["accepted"], reply.get("values", reply.get("disk")), report)

    def _exchange(self, request: list[str]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the oracle ended with status {self._process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise RuntimeError(f"the oracle: {reply['error']}")
        return reply


def _text(value: Any) -> Any:
    """Undo the hexadecimal writing of texts."""
    if isinstance(value, str):
        return bytes.fromhex(value).decode("utf-8", "surrogateescape")
    return [_text(item) for item in value] if isinstance(value, list) else value


def our_config(text: bytes) -> dict[str, Any] | None:
    """What our parser makes of a file; None if it rejects it."""
    try:
        return parse_config(text)
    except ConfigError:
        return None


def our_disk(spec: str) -> DiskSpec | None:
    """What our parser makes of a disk specification; None if it rejects it."""
    try:
        return parse_disk(spec)
    except ConfigError:
        return None


def as_libxlu(disk: DiskSpec) -> dict[str, Any]:
    """The fields of a disk as libxlu would have them (deviation format-left-out)."""
    fields = asdict(disk)
    return fields | {"format": "raw" if disk.format == "unknown" else disk.format}


def config_difference(oracle: Oracle, text: bytes) -> str | None:
    """How our parser and libxlu disagree about a file, deviations aside; None if they agree."""
    ours, theirs = our_config(text), oracle.config(text)
    agreed = ours == theirs.value if theirs.accepted else ours is None
    if agreed and theirs.died in (None, ABORT if b"\0" in text else None):  # nul-in-string
        return None
    if theirs.accepted and ours is None and (_is_last_byte(text, theirs) or _is_nesting(text)):
        return None
    return f"{text!r}: ours {ours!r}, libxlu {theirs!r}"


def disk_difference(oracle: Oracle, spec: str) -> str | None:
    """How our parser and libxlu disagree about a disk, deviations aside; None if they agree."""
    ours, theirs = our_disk(spec), oracle.disk(spec.encode("utf-8", "surrogateescape"))
    agreed = (ours is not None) == theirs.accepted
    agreed &= theirs.died in (None, JAM if "=\n" in spec else None)  # line-end-after-equals-sign
    if agreed and (ours is None or as_libxlu(ours) == theirs.value):
        return None
    if theirs.accepted and ours is None and spec.endswith("="):  # last-equals-sign
        shorter = our_disk(spec[:-1])
        if shorter is not None and as_libxlu(shorter) == theirs.value:
            return None
    return f"{spec!r}: ours {ours!r}, libxlu {theirs!r}"


def _is_last_byte(text: bytes, theirs: Verdict) -> bool:
    """Whether the deviation last-byte explains why we reject a file."""
    return (
        re.match(rb"[^a-z0-9,\[\]=;\n \t]", text[-1:]) is not None and our_config(text[:-1]) == theirs.value
    )


def _is_nesting(text: bytes) -> bool:
    """Whether the deviation nesting explains why we reject a file."""
    try:
        parse_config(text)
    except ConfigError as error:
        return ["nested more than" in diagnostic.message for diagnostic in error.diagnostics] == [True]
    return False
