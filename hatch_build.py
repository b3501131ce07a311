# SPDX-License-Identifier: LGPL-2.1-or-later
"""Build hook of the packaging: makes the probe guest's images before they are packed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ProbeGuestHook(BuildHookInterface[Any]):
    """Builds the images in place, so that a wheel, an editable install and a checkout find them alike."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build what is missing or older than its sources; an sdist has the sources only."""
        if self.target_name != "wheel":
            return
        guest = _guest_build(Path(self.root))
        guest.build()
        if version == "standard":  # an editable install reads the specification where it stands
            build_data["force_include"]["spec"] = "xlsnap_conformance/spec"
        build_data["artifacts"].extend(f"/{path}" for path in _images(Path(self.root), guest))


def _images(root: Path, guest: ModuleType) -> list[str]:
    return [(guest.IMAGES / name).relative_to(root).as_posix() for name in (*guest.NAMES, guest.STAMP)]


def _guest_build(root: Path) -> ModuleType:
    """Load the guest's build module by its path: its package is not installed yet."""
    path = root / "conformance" / "xlsnap_conformance" / "guest" / "build.py"
    spec = importlib.util.spec_from_file_location("probe_guest_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
