# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hosts that the kit makes itself, for toolstacks that need more than a QEMU process: a nested Xen host."""
