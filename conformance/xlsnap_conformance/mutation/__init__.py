# SPDX-License-Identifier: LGPL-2.1-or-later
"""Judge the suite: run it against each mutant until it notices.

`choice` says which mutants, and in which order their tests; `worker` is a process that judges one mutant
after the other in a single pytest session; `crew` keeps several of those busy; `matrix` is what came of it,
as data, and `page` shows that.
"""
