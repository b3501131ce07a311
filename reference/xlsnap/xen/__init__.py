# SPDX-License-Identifier: LGPL-2.1-or-later
"""Domains of a real Xen, from dom0: life cycle and memory by `xl`, disks by the domain's own QEMU."""
