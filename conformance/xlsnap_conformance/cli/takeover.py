# SPDX-License-Identifier: LGPL-2.1-or-later
"""A pytest plugin for the command line: keeps pytest's own terminal output out of the way.

It is loaded together with `xlsnap_conformance.plugin`, which then shows progress and results by itself.
"""

from __future__ import annotations

import pytest


def pytest_plugin_registered(plugin: object, plugin_name: str, manager: pytest.PytestPluginManager) -> None:
    """Drop pytest's reporter as soon as it is there, before others can find it."""
    if plugin_name == "terminalreporter":
        manager.unregister(plugin)
