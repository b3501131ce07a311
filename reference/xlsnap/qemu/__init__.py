# SPDX-License-Identifier: LGPL-2.1-or-later
"""The QEMU host: each domain is a QEMU process of its own, driven over QMP."""

from .host import QemuHost

__all__ = ["QemuHost"]
