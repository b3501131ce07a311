# SPDX-License-Identifier: LGPL-2.1-or-later
"""A driver that is a TOML file of commands, ``--driver profile:FILE.toml``: see docs/drivers.md.

`commands` is the format, `templates` fills in what depends on the request, `transport` runs a command here or
elsewhere, `output` reads what it prints, `console` makes a socket of a command, `driver` puts them together.
"""
