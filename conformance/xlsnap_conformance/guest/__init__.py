# SPDX-License-Identifier: LGPL-2.1-or-later
"""The probe guest: a bare-metal program that makes the state of a virtual machine visible.

It keeps named variables in memory, writes and reads patterned sectors on up to eight disks, and counts timer
ticks, all on request over the first serial port. See README.md for the protocol and the ways to boot it.
"""

from .client import Probe, ProbeClosed, ProbeError, ProbeTimeout
from .images import disk_number, image

__all__ = ["Probe", "ProbeClosed", "ProbeError", "ProbeTimeout", "disk_number", "image"]
