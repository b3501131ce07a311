# SPDX-License-Identifier: LGPL-2.1-or-later
"""Driver of libvirt's QEMU driver, through `virsh`. `daemon` runs a libvirtd of our own to judge."""
