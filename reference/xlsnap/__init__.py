# SPDX-License-Identifier: LGPL-2.1-or-later
"""The reference toolstack: domain snapshots as the specification describes them, on real guests."""

__version__ = "0.1.0"
