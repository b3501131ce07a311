# SPDX-License-Identifier: LGPL-2.1-or-later
"""The conformance suite: says of any toolstack, clause by clause, whether its domain snapshots conform."""
