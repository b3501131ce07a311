# SPDX-License-Identifier: LGPL-2.1-or-later
"""The images are what their sources say, byte for byte."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

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
    assert build.source_hash() != before


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.BuildError, match=r"needs binutils and gcc: install the packages"):
        build.build(tmp_path / "images")
    assert not (tmp_path / "images").exists()


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
    assert all(sectors[number][1:6] == b"CD001" for number in (16, 17, 18))
    assert int.from_bytes(sectors[16][80:84], "little") == len(sectors)
    catalog = sectors[int.from_bytes(sectors[17][71:75], "little")]
    words = [int.from_bytes(catalog[at : at + 2], "little") for at in range(0, 32, 2)]
    assert sum(words) & 0xFFFF == 0
    assert catalog[30:32] == b"\x55\xaa"
    boot = int.from_bytes(catalog[40:44], "little")
    assert iso[boot * 2048 :].startswith(guest.image("disk").read_bytes())
