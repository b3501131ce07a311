# SPDX-License-Identifier: LGPL-2.1-or-later
"""``xlsnap snapshot-check``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from . import complete
from .settings import Settings, pass_settings
from .text import json_text, say, shown

if TYPE_CHECKING:
    from ..findings import Finding

LEFT = 3
"""Exit status when something is wrong and has not been repaired: the domain's state."""


@click.command("snapshot-check", short_help="Check the snapshots of a domain.")
@click.argument("domain", shell_complete=complete.domains)
@click.option("--repair", is_flag=True, help="Mend what can be mended without loss.")
@click.option(
    "-o", "output", type=click.Choice(["table", "json"]), default="table", help="Form of the output."
)
@pass_settings
def check(settings: Settings, domain: str, repair: bool, output: str) -> None:
    """Look for what does not belong together in the snapshots of DOMAIN, which may be stopped.

    Metadata, memory images, disk images and what they lie over are compared. Images that a running domain
    writes to are not checked from within: stop it for that. What cannot be repaired without loss is explained
    and left as it is.

    Exit status: 0 if nothing is wrong, or all was repaired; 3 if something is left. A note is nothing wrong.

    \b
    Examples:
      xlsnap snapshot-check vm
      xlsnap snapshot-check --repair vm
      xlsnap snapshot-check -o json vm
    """
    mend = repair and not settings.dry_run
    findings = settings.run(lambda toolstack: toolstack.snapshot_check(domain, repair=mend))
    say(json_text([_plain(finding) for finding in findings]) if output == "json" else _report(findings))
    if any(finding.is_left for finding in findings):
        raise click.exceptions.Exit(LEFT)


def _plain(finding: Finding) -> dict[str, Any]:
    """Return a finding with the steps that would mend it, or have done so."""
    import msgspec

    return {
        "kind": finding.kind.value,
        "what": finding.what,
        "why": finding.why,
        "note": finding.is_note,
        "repaired": finding.repaired,
        "repair": None if finding.repair is None else [msgspec.to_builtins(step) for step in finding.repair],
    }


def _report(findings: Sequence[Finding]) -> str:
    """Return one line for each finding and one that counts them."""
    lines = [
        f"{_state(finding)} {finding.kind.value}: {shown(finding.what)} ({shown(finding.why)})"
        for finding in findings
    ]
    left = [finding for finding in findings if finding.is_left]
    repaired = sum(finding.repaired for finding in findings)
    mendable = sum(finding.repair is not None for finding in left)
    counts = [
        f"{len(left)} wrong" if left else "nothing wrong" if not repaired else "nothing is left",
        *([f"{repaired} repaired"] if repaired else []),
        *([f"{mendable} can be repaired with --repair"] if mendable else []),
    ]
    return "\n".join([*lines, ", ".join(counts)])


def _state(finding: Finding) -> str:
    return "repaired" if finding.repaired else "note" if finding.is_note else "wrong"
