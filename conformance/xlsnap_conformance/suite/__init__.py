# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tests of the suite: what is asked of an implementation. `xlsnap-conformance run` starts them."""
