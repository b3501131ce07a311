# SPDX-License-Identifier: LGPL-2.1-or-later
"""The ELF kernel inside a bzImage: unpacked here once, and not at each boot under emulation.

Source: the kernel's Documentation/arch/x86/boot.rst, fields ``setup_sects``, ``payload_offset`` and
``payload_length``.
"""

from __future__ import annotations

import ctypes
import lzma
import struct
import zlib

from . import elf
from .failure import XenHostError

_SETUP_SECTS, _HEADER, _PAYLOAD = 0x1F1, 0x202, 0x248
_SECTOR = 512

_LZ4_LEGACY = b"\x02\x21\x4c\x18"
_LZ4_BLOCK = 8 << 20  # bytes of a block of the legacy frame, unpacked


def vmlinux(image: bytes) -> bytes:
    """Return the kernel that a bzImage holds.

    :raise XenHostError: if it is none, or is packed in a way that we do not know.
    """
    if image[_HEADER : _HEADER + 4] != b"HdrS":
        raise XenHostError("the package's kernel is not a bzImage")
    sectors = image[_SETUP_SECTS] or 4
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    start = (sectors + 1) * _SECTOR + offset
    unpacked = _unpacked(image[start : start + length])
    if not unpacked.startswith(elf.MAGIC):
        raise XenHostError("the package's kernel holds no ELF file")
    return unpacked


def _unpacked(payload: bytes) -> bytes:
    if payload.startswith(b"\xfd7zXZ\0"):  # the last four bytes are the size, which is no part of the stream
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(wbits=31).decompress(payload)
    if payload.startswith(_LZ4_LEGACY):
        return _unpacked_lz4(payload)
    raise XenHostError(f"the package's kernel is packed in an unknown way ({payload[:4].hex()})")


def _unpacked_lz4(payload: bytes) -> bytes:
    """Unpack a legacy frame: blocks, each after its size; the last four bytes are the size of the whole.

    Source: LZ4 Frame Format Description, "Legacy frame". apt itself needs liblz4, so it is there.
    """
    try:
        decompress = ctypes.CDLL("liblz4.so.1").LZ4_decompress_safe
    except (OSError, AttributeError):
        raise XenHostError("liblz4.so.1 not found: apt-get install liblz4-1") from None
    at, end = len(_LZ4_LEGACY), len(payload) - 4
    output = ctypes.create_string_buffer(_LZ4_BLOCK)
    blocks = []
    while at < end:
        (size,) = struct.unpack_from("<I", payload, at)
        length = decompress(payload[at + 4 : at + 4 + size], output, size, _LZ4_BLOCK)
        if length < 0:
            raise XenHostError("the package's kernel is damaged")
        blocks.append(output.raw[:length])
        at += 4 + size
    return b"".join(blocks)
