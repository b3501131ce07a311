# SPDX-License-Identifier: LGPL-2.1-or-later
"""Driver of any `xl` that has the snapshot commands of proposal v4, in dom0 or behind ssh."""
