# SPDX-License-Identifier: LGPL-2.1-or-later
"""Build the probe guest's images from source, the same bytes wherever it is done with the same tools.

Standard library only, and no import of the package: the packaging runs it before anything is installed.
``python -m xlsnap_conformance.guest.build [--output DIR]`` builds by hand.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "source"
IMAGES = HERE / "images"
NAMES = ("probe.rom", "probe.img", "probe.iso", "probe.linux")
STAMP = "sources.sha256"

SHARED = ("machine.c", "pattern.c", "protocol.c", "reply.c", "variables.c")
"""Sources of the probe that it has in common with itself on Linux."""

TOOLS = {"gcc": "gcc", "ld": "binutils", "objcopy": "binutils"}

CFLAGS = (
    *("-m32", "-march=i386", "-std=gnu11", "-Os", "-ffreestanding", "-nostdlib", "-fno-builtin"),
    *("-fno-pic", "-fno-pie", "-fno-stack-protector", "-fno-asynchronous-unwind-tables"),
    *("-mgeneral-regs-only", "-fno-tree-loop-distribute-patterns", "-Wall", "-Wextra", "-Werror"),
)

ROM_BYTES = 65536
ROM_STUB_OFFSET = 0xFF00
BOOT_SECTOR_BYTES = 512

CD_SECTOR = 2048


class BuildError(Exception):
    """The images cannot be built; the message is one line."""


def build(output: Path = IMAGES, *, force: bool = False) -> bool:
    """Make the images in `output`, unless they are there and made from the present sources.

    Returns whether anything was built.

    :raise BuildError: if a tool is missing or fails.
    """
    stamp = source_hash()
    if not force and is_current(output, stamp):
        return False
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if missing:
        raise BuildError(
            f"the probe guest needs {' and '.join(missing)}: install the packages of these names"
        )
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="probe-") as directory:
        disk, stub = _compile(Path(directory))
        program = _compile_for_linux(Path(directory))
    contents = {
        "probe.img": disk,
        "probe.rom": make_rom(disk[BOOT_SECTOR_BYTES:], stub),
        "probe.iso": make_iso(disk),
        "probe.linux": program,
        STAMP: (stamp + "\n").encode(),
    }
    for name, content in contents.items():
        temporary = output / f".{name}.new"
        temporary.write_bytes(content)
        temporary.replace(output / name)
    return True


def source_hash() -> str:
    """Return a hash over all that decides the images, the tools apart."""
    digest = hashlib.sha256()
    for path in [*sorted(path for path in SOURCE.rglob("*") if path.is_file()), Path(__file__)]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def is_current(output: Path, stamp: str) -> bool:
    """Say whether all images are there and made from sources with this hash."""
    try:
        found = (output / STAMP).read_text().strip()
    except OSError:
        return False
    return found == stamp and all((output / name).is_file() for name in NAMES)


def _compile(directory: Path) -> tuple[bytes, bytes]:
    """Return the disk image and the ROM's stub."""
    objects = _objects(directory, [SOURCE / "start.S", *sorted(SOURCE.glob("*.c"))])
    program = directory / "probe.elf"
    script = str(SOURCE / "link.ld")
    _run(
        "ld",
        "--no-warn-rwx-segments",
        "--build-id=none",
        "-m",
        "elf_i386",
        "-T",
        script,
        *objects,
        "-o",
        str(program),
    )
    disk, stub = directory / "disk", directory / "stub"
    _run("objcopy", "-O", "binary", "-j", ".boot", "-j", ".payload", str(program), str(disk))
    _run("objcopy", "-O", "binary", "-j", ".rom", str(program), str(stub))
    return disk.read_bytes(), stub.read_bytes()


def _compile_for_linux(directory: Path) -> bytes:
    """Return the probe as a program of 32-bit Linux that needs no libraries: the first process of a guest."""
    sources = [SOURCE / name for name in SHARED] + sorted((SOURCE / "linux").glob("*.c"))
    (directory / "linux").mkdir()
    objects = _objects(directory / "linux", sources)
    program = directory / "probe.linux"
    _run(
        "ld",
        "--build-id=none",
        "-m",
        "elf_i386",
        "-static",
        "-s",
        "-z",
        "noexecstack",
        *objects,
        "-o",
        str(program),
    )
    return program.read_bytes()


def _objects(directory: Path, sources: list[Path]) -> list[str]:
    objects = []
    for source in sources:
        target = directory / f"{source.stem}.o"
        _run("gcc", *CFLAGS, f"-ffile-prefix-map={SOURCE}=.", "-c", str(source), "-o", str(target))
        objects.append(str(target))
    return objects


def _run(*command: str) -> None:
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise BuildError(f"{command[0]} failed: {lines[0]}")


def make_rom(payload: bytes, stub: bytes) -> bytes:
    """Return a 64 KiB firmware image: the payload at its beginning, the stub at its end."""
    if len(payload) > ROM_STUB_OFFSET or len(stub) != ROM_BYTES - ROM_STUB_OFFSET:
        raise BuildError("payload or stub do not fit into the ROM")
    return payload.ljust(ROM_STUB_OFFSET, b"\xff") + stub


# Where things are in the ISO image, in sectors of 2048 bytes. ECMA-119 8; El Torito 1.0, 2.
VOLUME, BOOT_RECORD, TERMINATOR, CATALOG, ROOT, L_TABLE, M_TABLE, PAYLOAD = range(16, 24)


def make_iso(disk: bytes) -> bytes:
    """Return an ISO 9660 image that boots `disk` by El Torito without emulation, and holds it as a file."""
    sectors = {
        VOLUME: _volume_descriptor(PAYLOAD + -(-len(disk) // CD_SECTOR)),
        BOOT_RECORD: b"\0CD001\x01"
        + b"EL TORITO SPECIFICATION".ljust(64, b"\0")
        + CATALOG.to_bytes(4, "little"),
        TERMINATOR: b"\xffCD001\x01",
        CATALOG: _boot_catalog(len(disk)),
        ROOT: b"".join(
            (
                _directory_entry(ROOT, CD_SECTOR, b"\0", flags=2),
                _directory_entry(ROOT, CD_SECTOR, b"\1", flags=2),
                _directory_entry(PAYLOAD, len(disk), b"PROBE.IMG;1", flags=0),
            )
        ),
        L_TABLE: _path_table("little"),
        M_TABLE: _path_table("big"),
    }
    image = bytes(VOLUME * CD_SECTOR)
    image += b"".join(sectors[number].ljust(CD_SECTOR, b"\0") for number in sorted(sectors))
    return image + disk.ljust(-(-len(disk) // CD_SECTOR) * CD_SECTOR, b"\0")


def _both(value: int, size: int) -> bytes:
    """Encode a number in both byte orders, as ISO 9660 does."""
    return value.to_bytes(size, "little") + value.to_bytes(size, "big")


def _directory_entry(sector: int, size: int, name: bytes, *, flags: int) -> bytes:
    date = bytes([100, 1, 1, 0, 0, 0, 0])  # a fixed one: the image must be the same at any time
    body = b"\0" + _both(sector, 4) + _both(size, 4) + date + bytes([flags, 0, 0]) + _both(1, 2)
    body += bytes([len(name)]) + name
    body += b"\0" * (1 - len(body) % 2)
    return bytes([len(body) + 1]) + body


def _path_table(order: Literal["little", "big"]) -> bytes:
    return bytes([1, 0]) + ROOT.to_bytes(4, order) + (1).to_bytes(2, order) + b"\0\0"


def _volume_descriptor(sectors: int) -> bytes:
    volume = bytearray(CD_SECTOR)
    volume[0:7] = b"\x01CD001\x01"
    volume[8:40] = b" " * 32
    volume[40:72] = b"PROBE".ljust(32)
    volume[80:88] = _both(sectors, 4)
    volume[120:132] = _both(1, 2) + _both(1, 2) + _both(CD_SECTOR, 2)
    volume[132:140] = _both(len(_path_table("little")), 4)
    volume[140:144] = L_TABLE.to_bytes(4, "little")
    volume[148:152] = M_TABLE.to_bytes(4, "big")
    root = _directory_entry(ROOT, CD_SECTOR, b"\0", flags=2)
    volume[156 : 156 + len(root)] = root
    volume[190:813] = b" " * (813 - 190)
    volume[813:881] = (b"0" * 16 + b"\0") * 4
    volume[881] = 1
    return bytes(volume)


def _boot_catalog(disk_bytes: int) -> bytes:
    validation = bytearray(32)
    validation[0] = 1
    validation[30:32] = b"\x55\xaa"
    total = sum(int.from_bytes(validation[at : at + 2], "little") for at in range(0, 32, 2))
    validation[28:30] = (-total & 0xFFFF).to_bytes(2, "little")
    default = bytearray(32)
    default[0] = 0x88  # bootable, no emulation
    default[6:8] = (-(-disk_bytes // 512)).to_bytes(2, "little")
    default[8:12] = PAYLOAD.to_bytes(4, "little")
    return bytes(validation + default)


def main() -> None:
    """Build the images from the command line."""
    parser = argparse.ArgumentParser(description="Build the probe guest's images.")
    parser.add_argument("--output", type=Path, default=IMAGES, help="directory of the images")
    options = parser.parse_args()
    try:
        build(options.output, force=True)
    except BuildError as error:
        sys.exit(f"build: {error}")
    for name in NAMES:
        path = options.output / name
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.stat().st_size:6}  {path}")


if __name__ == "__main__":
    main()
