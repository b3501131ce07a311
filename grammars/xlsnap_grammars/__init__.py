# SPDX-License-Identifier: LGPL-2.1-or-later
"""Grammars of the xl configuration language, xl disk specifications and xl.snapshot.conf."""
