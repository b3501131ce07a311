# SPDX-License-Identifier: LGPL-2.1-or-later
"""The images are what their sources say, byte for byte."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from xlsnap_conformance import guest
from xlsnap_conformance.guest import build


def contents(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in build.NAMES}


def test_a_rebuild_gives_the_packaged_bytes(tmp_path: Path) -> None:
    assert build.build(tmp_path / "images")
    assert contents(tmp_path / "images") == contents(guest.image("rom").parent)


def test_place_and_directory_do_not_matter(tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "guest"
    shutil.copytree(build.HERE, copy, ignore=shutil.ignore_patterns("images", "__pycache__"))
    command = [sys.executable, "-I", str(copy / "build.py"), "--output", str(tmp_path / "out")]
    subprocess.run(command, check=True, capture_output=True, cwd="/", env={**os.environ, "TZ": "Asia/Tokyo"})
    assert contents(tmp_path / "out") == contents(guest.image("rom").parent)


def test_nothing_is_built_twice_and_changes_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build.build(tmp_path)
    assert not build.build(tmp_path)
    (tmp_path / "probe.iso").unlink()
    assert build.build(tmp_path)
    source = tmp_path / "source"
    shutil.copytree(build.SOURCE, source)
    before = build.source_hash()
    monkeypatch.setattr(build, "SOURCE", source)
    assert build.source_hash() == before
    (source / "main.c").write_text((source / "main.c").read_text() + "\n")
    changed = build.source_hash()
    assert changed != before
    (source / "main.c").rename(source / "other.c")
    assert build.source_hash() not in (before, changed)
    assert build.build(tmp_path, force=True)
    assert build.is_current(tmp_path, build.source_hash())
    assert not build.is_current(tmp_path, before)


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.BuildError, match=r"needs binutils and gcc: install the packages"):
        build.build(tmp_path / "images")
    assert not (tmp_path / "images").exists()


def test_the_command_line_says_in_one_line_what_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, "-I", str(build.HERE / "build.py"), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": str(tmp_path)})
    message = "build: the probe guest needs binutils and gcc: install the packages of these names\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)


def test_the_tools_may_be_in_different_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where each package has a prefix of its own. gcc runs `as` by itself."""
    places = []
    for tool in ("gcc", "ld", "objcopy", "as"):
        places.append(tmp_path / tool)
        places[-1].mkdir()
        (places[-1] / tool).symlink_to(Path(shutil.which(tool) or "").resolve())
    seen = []
    run = subprocess.run

    def record(command: list[str], **options: Any) -> Any:
        seen.append(options["env"]["PATH"])
        return run(command, **options)

    monkeypatch.setenv("PATH", os.pathsep.join(map(str, places)))
    monkeypatch.setattr(subprocess, "run", record)
    assert build.build(tmp_path / "images")
    assert set(seen) == {os.environ["PATH"]}
    assert contents(tmp_path / "images") == contents(guest.image("rom").parent)


def test_a_source_that_does_not_compile_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    shutil.copytree(build.SOURCE, source)
    (source / "main.c").write_text("this is not C\n")
    monkeypatch.setattr(build, "SOURCE", source)
    with pytest.raises(build.BuildError, match=r"gcc failed: .*main\.c:1:1: error") as caught:
        build.build(tmp_path / "images")
    assert "\n" not in str(caught.value)


def test_the_cd_image_is_in_form() -> None:
    iso = guest.image("iso").read_bytes()
    sectors = [iso[at : at + 2048] for at in range(0, len(iso), 2048)]
    assert len(iso) % 2048 == 0
    assert [sectors[number][0] for number in (16, 17, 18)] == [1, 0, 255]
    assert all(sectors[number][1:7] == b"CD001\1" for number in (16, 17, 18))
    assert sectors[17][7:39] == b"EL TORITO SPECIFICATION".ljust(32, b"\0")
    assert int.from_bytes(sectors[16][80:84], "little") == len(sectors)
    catalog = sectors[int.from_bytes(sectors[17][71:75], "little")]
    words = [int.from_bytes(catalog[at : at + 2], "little") for at in range(0, 32, 2)]
    assert sum(words) & 0xFFFF == 0
    assert catalog[30:32] == b"\x55\xaa"
    assert (catalog[0], catalog[32], catalog[33]) == (1, 0x88, 0)  # bootable, no emulation
    disk = guest.image("disk").read_bytes()
    assert int.from_bytes(catalog[38:40], "little") * 512 >= len(disk)
    boot = int.from_bytes(catalog[40:44], "little")
    assert iso[boot * 2048 :].startswith(disk)


def test_the_cd_holds_the_disk_image_as_a_file() -> None:
    iso = guest.image("iso").read_bytes()
    volume = iso[16 * 2048 :][:2048]
    directory, found, at = extent(iso, volume[156:190]), {}, 0
    while directory[at]:
        entry = directory[at : at + directory[at]]
        found[entry[33 : 33 + entry[32]]] = extent(iso, entry)
        at += len(entry)
    assert found == {
        b"\0": directory,
        b"\1": directory,
        b"PROBE.IMG;1": guest.image("disk").read_bytes(),
    }
    orders: tuple[tuple[int, Literal["little", "big"]], ...] = ((140, "little"), (148, "big"))
    for table, order in orders:
        where = int.from_bytes(volume[table : table + 4], order)
        assert int.from_bytes(iso[where * 2048 + 2 :][:4], order) * 2048 == iso.index(directory)


def extent(iso: bytes, entry: bytes) -> bytes:
    """Return what a directory entry stands for; numbers are in both byte orders."""
    sector, size = (int.from_bytes(entry[at : at + 4], "little") for at in (2, 10))
    assert [int.from_bytes(entry[at + 4 : at + 8], "big") for at in (2, 10)] == [sector, size]
    return iso[sector * 2048 :][:size]
