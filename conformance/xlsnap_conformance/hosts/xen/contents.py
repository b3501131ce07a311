# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is in dom0: a choice from the packages, with all the libraries and modules that it needs (pure).

dom0 lives in an initial ramdisk, so everything here costs memory in each nested host.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Iterable

from . import cpio, elf
from .cpio import Tree
from .failure import XenHostError
from .packages import XEN

XEN_BIN = f"usr/lib/xen-{XEN}/bin"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
PYTHON = "usr/lib/python3.11"
GUEST = "usr/share/xlsnap/guest"

PROGRAMS = (
    *(f"{XEN_BIN}/{name}" for name in ("xl", "xenstored", "xenconsoled", "xenconsole", "xen-init-dom0")),
    f"{XEN_BIN}/libxl-save-helper",
    f"usr/lib/xen-{XEN}/boot/hvmloader",
    "usr/bin/xenstore",
    "usr/libexec/xen-qemu-system-i386",
    "usr/bin/qemu-img",
    "usr/bin/qemu-io",
    "usr/bin/python3.11",
    "usr/bin/bash",
    "usr/bin/busybox",
    f"{LIBRARIES}/libgcc_s.so.1",  # glibc loads it when a thread is cancelled
)

TREES = (  # whole directories
    "etc/xen/scripts/",
    "usr/share/seabios/",
    "usr/share/qemu/keymaps/",
)

FILES = (
    "etc/xen/xl.conf",
    # option ROMs of an HVM domain's QEMU: without them it boots no kernel= of a configuration
    *(f"usr/share/qemu/{name}.bin" for name in ("kvmvapic", "linuxboot", "linuxboot_dma", "multiboot")),
    *(f"usr/share/qemu/{name}.bin" for name in ("multiboot_dma", "pvh")),
)

MODULES = (  # of the kernel of dom0, in the order of loading; what they depend on comes by itself
    "xen-evtchn",
    "xen-gntdev",
    "xen-gntalloc",
    "xen-privcmd",
    "xenfs",
    "virtio_pci",
    "virtio_console",
    "9pnet_virtio",
    "9p",
    "loop",
)
GUEST_MODULES = ("xen-blkfront",)
MODULE_DIRECTORIES = (  # where those and what they depend on are
    *("drivers/xen/", "drivers/virtio/", "drivers/char/", "drivers/block/"),
    *("net/9p/", "fs/9p/", "fs/netfs/", "fs/fscache/", "fs/"),
)

STORE_TOOLS = ("list", "ls", "read", "write", "rm", "exists", "chmod", "watch")

_UNUSED_PYTHON = (  # parts of the standard library that no program in dom0 imports
    *("test", "idlelib", "lib2to3", "tkinter", "ensurepip", "turtledemo", "pydoc_data", "distutils"),
    *("venv", "curses", "dbm", "sqlite3", "wsgiref", "xmlrpc", "LICENSE.txt"),
)
_UNUSED_EXTENSIONS = ("_curses", "_curses_panel", "_dbm", "_gdbm", "_sqlite3", "_tkinter", "nis", "readline")


def wanted(path: str) -> bool:
    """Say whether a file of a package may be needed, and so must be held in memory."""
    if path.startswith("usr/lib/modules/"):
        return path.endswith(".ko") and any(f"/kernel/{part}" in path for part in MODULE_DIRECTORIES)
    return not path.startswith(("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/iso-codes"))


def dom0(packages: Tree, release: str, overlay: Tree) -> Tree:
    """Return dom0's file system.

    :param release: of the kernel whose modules it gets.
    :param overlay: our own files; they win over those of the packages.
    :raise XenHostError: if a file that is needed is in no package.
    """
    tree: Tree = {path: cpio.directory() for path in ("dev", "mnt", "proc", "run", "sys", "root", "opt")}
    tree |= {"tmp": cpio.directory(0o1777), "var/lib/xen": cpio.directory(0o700)}
    tree |= {path: cpio.link(f"usr/{path}") for path in ("bin", "sbin", "lib", "lib64")}
    tree |= {"var/run": cpio.link("/run"), "var/lock": cpio.link("/run/lock")}
    tree |= {"var/log/xen/console": cpio.directory()}
    tree |= {"dev/console": cpio.character_device(5, 1)}
    chosen = [path for path in packages if path.startswith(TREES) or _of_python(path)]
    tree |= with_libraries(packages, [*PROGRAMS, *FILES, *chosen])
    paths = module_paths(packages, release, MODULES)
    tree |= {path: packages[path] for path in paths}
    tree["etc/modules"] = cpio.file("".join(f"/{path}\n" for path in paths).encode())
    tree["etc/passwd"] = cpio.file(b"root:x:0:0:root:/root:/bin/sh\n")
    tree["etc/group"] = cpio.file(b"root:x:0:\n")
    tree["usr/bin/sh"] = cpio.link("busybox")
    tree |= {f"usr/bin/xenstore-{name}": cpio.link("xenstore") for name in STORE_TOOLS}
    tree["usr/bin/python3"] = cpio.link("python3.11")
    tree["usr/sbin/xl"] = cpio.link(f"/{XEN_BIN}/xl")
    return tree | overlay


def probe(packages: Tree, release: str, program: bytes) -> Tree:
    """Return the file system of a probe guest: our program, and the one module that its kernel lacks."""
    paths = module_paths(packages, release, GUEST_MODULES)
    tree: Tree = {"init": cpio.file(program, 0o755), "dev/console": cpio.character_device(5, 1)}
    tree |= {"sys": cpio.directory(), "proc": cpio.directory()}
    return tree | {posixpath.basename(path): packages[path] for path in paths}


def _of_python(path: str) -> bool:
    if not path.startswith(f"{PYTHON}/"):
        return False
    first, _, rest = path.removeprefix(f"{PYTHON}/").partition("/")
    if first == "lib-dynload":
        return rest.split(".")[0] not in _UNUSED_EXTENSIONS
    return first not in _UNUSED_PYTHON and "/__pycache__/" not in path


def with_libraries(packages: Tree, paths: Iterable[str]) -> Tree:
    """Return files with the shared libraries that they need, and those that these need.

    :raise XenHostError: if one is in no package.
    """
    chosen: Tree = {}
    queue = list(paths)
    while queue:
        path = queue.pop()
        if path in chosen:
            continue
        entry = packages.get(path)
        if entry is None:
            raise XenHostError(
                f"no package has /{path}: Debian's packages have changed in a way we do not know"
            )
        chosen[path] = entry
        if stat.S_ISLNK(entry.mode):
            queue.append(_followed(path, entry.data.decode()))
        elif entry.data.startswith(elf.MAGIC):
            queue += _libraries(packages, path, entry.data)
    return chosen


def _libraries(packages: Tree, path: str, data: bytes) -> list[str]:
    needs = elf.needs(data)
    origin = f"/{posixpath.dirname(path)}"
    own = [directory.replace("$ORIGIN", origin).strip("/") for directory in needs.directories]
    found = []
    for name in needs.libraries:
        places = [f"{directory}/{name}" for directory in (*own, LIBRARIES, "usr/lib", "usr/lib64")]
        place = next((posixpath.normpath(p) for p in places if posixpath.normpath(p) in packages), None)
        if place is None:
            raise XenHostError(f"no package has {name}, which /{path} needs: Debian's packages have changed")
        found.append(place)
    return [*found, *_interpreter(packages)] if found else []


def _interpreter(packages: Tree) -> list[str]:
    """Return the dynamic loader; its path is written into each program."""
    loader = "usr/lib64/ld-linux-x86-64.so.2"
    return [loader] if loader in packages else []


def _followed(path: str, target: str) -> str:
    """Return where a symbolic link at ``path`` leads to, below a merged ``usr/``."""
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(path), target)).lstrip("/")
    return f"usr/{joined}" if joined.startswith(("lib/", "lib64/", "bin/", "sbin/")) else joined


def module_paths(packages: Tree, release: str, names: Iterable[str]) -> list[str]:
    """Return the modules of a kernel, each after those that it depends on.

    :raise XenHostError: if the packages do not have one.
    """
    prefix = f"usr/lib/modules/{release}/"
    by_name = {
        _module_name(posixpath.basename(path).removesuffix(".ko")): path
        for path in packages
        if path.startswith(prefix) and path.endswith(".ko")
    }
    ordered: list[str] = []

    def add(name: str) -> None:
        path = by_name.get(_module_name(name))
        if path is None:
            raise XenHostError(f"kernel {release} has no module {name}: Debian's packages have changed")
        if path in ordered:
            return
        for needed in elf.module_needs(packages[path].data):
            add(needed)
        ordered.append(path)

    for name in names:
        add(name)
    return ordered


def _module_name(name: str) -> str:
    return name.replace("-", "_")


def kernel_of(packages: Tree, *, cloud: bool) -> tuple[str, bytes]:
    """Return the release of a kernel, which is the name of its directory of modules, and its bzImage.

    :param cloud: the flavour for guests, rather than the one that can be dom0.
    :raise XenHostError: if no package has it.
    """
    for path, entry in packages.items():
        if path.startswith("boot/vmlinuz-") and ("-cloud-" in path) == cloud:
            return path.removeprefix("boot/vmlinuz-"), entry.data
    raise XenHostError(f"no package has a kernel {'for guests' if cloud else 'for dom0'}")
