# SPDX-License-Identifier: LGPL-2.1-or-later
"""The driver that plugs the reference toolstack into the suite: the only place that imports `xlsnap`."""
