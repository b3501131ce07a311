# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is written into the initial ramdisk, and what is chosen for it."""

import io
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from xlsnap_conformance.hosts.xen import code, contents, cpio, debs, elf, kernel
from xlsnap_conformance.hosts.xen.failure import XenHostError

TREE = {
    "init": cpio.file(b"#!/bin/sh\n", 0o755),
    "bin": cpio.link("usr/bin"),
    "etc/a/deep": cpio.file(b"12345"),
    "dev/console": cpio.character_device(5, 1),
    "tmp": cpio.directory(0o1777),
}


def archive(tree: cpio.Tree) -> bytes:
    output = io.BytesIO()
    cpio.write(tree, output)
    return output.getvalue()


def members(data: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """Read an archive as the kernel does."""
    found: dict[str, tuple[int, bytes, tuple[int, int]]] = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name = data[at + 110 : at + 110 + fields[11] - 1].decode()
        start = (at + 110 + fields[11] + 3) & ~3
        if name == "TRAILER!!!":
            return found
        assert (fields[2], fields[3]) == (0, 0), "it belongs to root"
        found[name] = fields[1], data[start : start + fields[6]], (fields[9], fields[10])
        at = (start + fields[6] + 3) & ~3


def test_an_archive_has_what_the_tree_has_and_the_directories_above() -> None:
    found = members(archive(TREE))
    assert list(found) == ["bin", "dev", "dev/console", "etc", "etc/a", "etc/a/deep", "init", "tmp"]
    assert found["init"] == (stat.S_IFREG | 0o755, b"#!/bin/sh\n", (0, 0))
    assert found["bin"] == (stat.S_IFLNK | 0o777, b"usr/bin", (0, 0))
    assert found["dev/console"] == (stat.S_IFCHR | 0o600, b"", (5, 1))
    assert found["etc/a"][0] == stat.S_IFDIR | 0o755
    assert found["tmp"][0] == stat.S_IFDIR | 0o1777


@pytest.mark.skipif(shutil.which("cpio") is None, reason="needs cpio")
def test_cpio_reads_it_the_same_way() -> None:
    def listed(*options: str) -> list[str]:
        command = ["cpio", "-i", "-t", "--quiet", "-n", *options]
        done = subprocess.run(command, input=archive(TREE), capture_output=True, check=True)
        return done.stdout.decode().splitlines()

    assert listed() == list(members(archive(TREE)))
    lines = [line.split() for line in listed("-v")]
    assert {(line[2], line[3]) for line in lines} == {("0", "0")}
    assert [line[0] for line in lines if line[-1] == "dev/console"] == ["crw-------"]


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a//b", "a/./b", ""])
def test_a_path_cannot_leave_the_archive(path: str) -> None:
    with pytest.raises(ValueError, match="not a path of an archive"):
        archive({path: cpio.file(b"")})


def test_the_same_tree_gives_the_same_bytes() -> None:
    assert archive(TREE) == archive(dict(reversed(TREE.items())))


def test_needs_are_those_that_binutils_sees() -> None:
    program = Path(sys.executable).resolve()
    done = subprocess.run(["objdump", "-p", str(program)], capture_output=True, text=True, check=True)
    words = [line.split() for line in done.stdout.splitlines() if line.split()]
    assert list(elf.needs(program.read_bytes()).libraries) == [w[1] for w in words if w[0] == "NEEDED"]


def test_what_is_no_elf_file_needs_nothing() -> None:
    assert elf.needs(b"#!/bin/sh\n") == elf.Needs()


def library(*needed: str) -> bytes:
    """Make an ELF file that has nothing but a dynamic section."""
    names = b"\0" + b"\0".join(name.encode() for name in needed) + b"\0"
    tags = [(1, names.index(name.encode() + b"\0")) for name in needed] + [(5, 0x1000), (0, 0)]
    dynamic = b"".join(struct.pack("<qQ", *tag) for tag in tags)
    at = 64 + 2 * 56
    header = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    )
    load = struct.pack("<IIQQQQQQ", 1, 5, at, 0x1000, 0, len(names), len(names), 1)
    section = struct.pack("<IIQQQQQQ", 2, 4, at + len(names), 0, 0, len(dynamic), len(dynamic), 1)
    return header + load + section + names + dynamic


def test_libraries_come_with_those_that_they_need_and_the_links_to_them() -> None:
    where = contents.LIBRARIES
    packages = {
        "usr/bin/a": cpio.file(library("libone.so.1")),
        f"{where}/libone.so.1": cpio.link("libone.so.1.2"),
        f"{where}/libone.so.1.2": cpio.file(library("libtwo.so")),
        f"{where}/libtwo.so": cpio.file(library()),
        f"{where}/libthree.so": cpio.file(library()),
        "usr/lib64/ld-linux-x86-64.so.2": cpio.link("/lib/x86_64-linux-gnu/ld.so"),
        f"{where}/ld.so": cpio.file(library()),
    }
    assert set(contents.with_libraries(packages, ["usr/bin/a"])) == set(packages) - {f"{where}/libthree.so"}


def test_a_library_that_no_package_has_is_told_with_who_needs_it() -> None:
    packages = {"usr/bin/a": cpio.file(library("libone.so.1"))}
    with pytest.raises(XenHostError, match=r"no package has libone\.so\.1, which /usr/bin/a needs"):
        contents.with_libraries(packages, ["usr/bin/a"])
    with pytest.raises(XenHostError, match="no package has /usr/bin/b"):
        contents.with_libraries(packages, ["usr/bin/b"])


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("usr/lib/modules/6.1/kernel/fs/9p/9p.ko", True),
        ("usr/lib/modules/6.1/kernel/sound/snd.ko", False),
        ("usr/share/doc/xen/README", False),
        ("usr/bin/qemu-img", True),
    ],
)
def test_only_what_may_be_needed_is_kept_of_a_package(path: str, kept: bool) -> None:
    assert contents.wanted(path) is kept


def test_a_package_is_read_with_its_links_below_a_merged_usr(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        "Package: a\nVersion: 1\nArchitecture: all\nMaintainer: nobody <a@b>\nDescription: a\n"
    )
    (root / "bin").mkdir()
    (root / "bin" / "tool").write_bytes(b"tool")
    (root / "bin" / "tool").chmod(0o755)
    (root / "bin" / "other").hardlink_to(root / "bin" / "tool")
    (root / "bin" / "link").symlink_to("tool")
    command = ["dpkg-deb", "--build", "--root-owner-group", str(root), str(tmp_path / "a.deb")]
    subprocess.run(command, check=True, capture_output=True)
    tool = cpio.file(b"tool", 0o755)
    assert debs.read([tmp_path / "a.deb"], lambda path: path.startswith("usr/")) == {
        "usr/bin/tool": tool,
        "usr/bin/other": tool,
        "usr/bin/link": cpio.link("tool"),
    }


def test_a_damaged_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.deb").write_bytes(b"!<arch>\nnothing")
    with pytest.raises(XenHostError, match=r"bad\.deb cannot be read: .*; remove it and build again"):
        debs.read([tmp_path / "bad.deb"], lambda path: True)


def test_what_is_no_kernel_is_refused() -> None:
    with pytest.raises(XenHostError, match="not a bzImage"):
        kernel.vmlinux(bytes(4096))


def test_python_takes_the_compiled_form_without_a_look_at_the_source(tmp_path: Path) -> None:
    if sys.version_info[:2] != code.VERSION:
        assert code.compiled({"a.py": cpio.file(b"a = 1\n")}) == {}
        return
    tree = {"pkg/a.py": cpio.file(b"answer = 42\n"), "pkg/bad.py": cpio.file(b"{% template %}")}
    (name, entry), *rest = code.compiled(tree).items()
    assert (name, rest) == ("pkg/__pycache__/a.cpython-311.pyc", [])
    (tmp_path / "pkg" / "__pycache__").mkdir(parents=True)
    (tmp_path / "pkg" / "a.py").write_bytes(b"answer = 43\n")
    (tmp_path / name).write_bytes(entry.data)
    command = [sys.executable, "-c", "import pkg.a; print(pkg.a.answer)"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "42\n"


def test_the_kit_is_packed_with_its_commands() -> None:
    with tarfile.open(fileobj=io.BytesIO(code.kit())) as archive:
        names = archive.getnames()
    for wanted in (
        "xlsnap/toolstack.py",
        "xlsnap_grammars/config.lark",
        "xlsnap_conformance/guest/images/probe.linux",
    ):
        assert f"{code.PACKAGES}/{wanted}" in names
    assert f"{code.COMMANDS}/xlsnap" in names
    assert not [name for name in names if name.startswith("/") or ".." in name]
