# SPDX-License-Identifier: LGPL-2.1-or-later
"""What saving the memory of a running guest needs of the machine: userfaultfd(2), and space on the disk.

QEMU protects the guest's memory against writing, and saves each page before its first change.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import struct
from pathlib import Path

_SYSCALLS = {"x86_64": 323, "aarch64": 282, "riscv64": 282}
_SYSCTL = Path("/proc/sys/vm/unprivileged_userfaultfd")

# From linux/userfaultfd.h.
_API = struct.Struct("QQQ")  # api, features, ioctls
_REGISTER = struct.Struct("QQQQ")  # start, length, mode, ioctls
_UFFDIO_API = 0xC018AA3F
_UFFDIO_REGISTER = 0xC020AA00
_UFFD_API = 0xAA
_FEATURE_PAGEFAULT_FLAG_WP = 1
_REGISTER_MODE_WP = 2
_WRITEPROTECT = 1 << 6  # among the ioctls of a registered range


_FALLOC_FL_KEEP_SIZE = 1
_STREAM_OVERHEAD = 16 << 20  # bytes for firmware and devices, and, a few a page, for addresses


_MS_AN_IMAGE = 0.6
_MS_A_MEBIBYTE = 1.4
_MS_AT_LEAST = 3.0
"""What QEMU 7.2 takes, measured where the benchmarks are: for each image that it opens again after the memory
was saved, for each mebibyte of memory that is protected page by page, and for protecting any."""


def is_quicker(images: int, memory_mib: int) -> bool:
    """Say whether memory is written sooner while the guest runs, because of the images of its disks."""
    return images * _MS_AN_IMAGE > _MS_AT_LEAST + memory_mib * _MS_A_MEBIBYTE


def live_problem() -> str | None:
    """Say what this machine lacks for saving the memory of a running domain, or None. It takes microseconds.

    What the machine does not say by itself is left to QEMU, which says so when it is told to save.
    """
    number = _SYSCALLS.get(platform.machine())
    if number is None:
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(number, os.O_CLOEXEC | os.O_NONBLOCK)
    if fd < 0:
        return _refusal(ctypes.get_errno())
    try:
        return _write_protection_problem(fd)
    except OSError as error:
        return f"write protection with userfaultfd failed: {error.strerror}"
    finally:
        os.close(fd)


def _refusal(number: int) -> str:
    if number == errno.EPERM:
        return f"userfaultfd is for root only, unless {_SYSCTL} is 1"
    if number == errno.ENOSYS:
        return "this kernel has no userfaultfd"
    return f"userfaultfd failed: {os.strerror(number)}"


def _write_protection_problem(fd: int) -> str | None:
    _, features, _ = _API.unpack(fcntl.ioctl(fd, _UFFDIO_API, _API.pack(_UFFD_API, 0, 0)))
    if not features & _FEATURE_PAGEFAULT_FLAG_WP:
        return "this kernel's userfaultfd has no write protection (Linux 5.7 has it)"
    with mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as page:
        cell = ctypes.c_char.from_buffer(page)
        wanted = _REGISTER.pack(ctypes.addressof(cell), mmap.PAGESIZE, _REGISTER_MODE_WP, 0)
        try:
            ioctls = _REGISTER.unpack(fcntl.ioctl(fd, _UFFDIO_REGISTER, wanted))[3]
        finally:
            del cell
    return None if ioctls & _WRITEPROTECT else "this kernel cannot write-protect memory with userfaultfd"


def reserve(fd: int, offset: int, memory_bytes: int) -> None:
    """Make sure that there is space for a memory image, from `offset` on, before the guest runs again.

    QEMU 7.2 stops serving write-protected pages when a write to the image fails, and can then wait for ever
    for a lock whose holder waits for such a page: the guest hangs, and so does the monitor.

    :raise OSError: if there is not enough space.
    """
    length = memory_bytes + memory_bytes // 256 + _STREAM_OVERHEAD
    libc = ctypes.CDLL(None, use_errno=True)
    limits = ctypes.c_int64(offset), ctypes.c_int64(length)
    if libc.fallocate64(fd, _FALLOC_FL_KEEP_SIZE, *limits) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EOPNOTSUPP:
        space = os.fstatvfs(fd)
        number = 0 if space.f_bavail * space.f_frsize >= length else errno.ENOSPC
    if number:
        raise OSError(number, os.strerror(number))
