# SPDX-License-Identifier: LGPL-2.1-or-later
"""Driver that runs another driver in the dom0 of a nested Xen host of its own."""
