# SPDX-License-Identifier: LGPL-2.1-or-later
"""The pictures of the specification, made from the model, so that text and suite cannot disagree.

A picture stands in a chapter between two marks; ``python -m xlsnap_conformance.spec_pictures`` draws all of
them anew, and a test compares::

    <!-- picture: run-states -->
    …
    <!-- end of picture -->
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import trace as do
from .clauses import specification_directory
from .model import World, apply, possible
from .trace import DomainOf, Step

_PICTURE = re.compile(
    r"(?P<begin><!-- picture: (?P<name>[a-z-]+) -->\n)(?P<body>.*?)(?P<end><!-- end of picture -->)",
    re.DOTALL,
)

# --- run states ---------------------------------------------------------------------------------------------

_STATES = ("running", "paused", "shutdown", "stopped")

_EVENTS: tuple[tuple[str, Step], ...] = (
    ("pause", do.Pause()),
    ("unpause", do.Unpause()),
    ("guest powers off", do.PowerOff()),
    ("destroy", do.Destroy()),
    ("start", do.Start()),
    ("create", do.Create(name="new")),
    ("revert to one taken running", do.Revert(name="running")),
    ("revert to one taken paused", do.Revert(name="paused")),
    ("revert to a disk-only one", do.Revert(name="disks")),
    ("revert, left paused", do.Revert(name="running", paused=True)),
    ("delete", do.Delete(name="running")),
)


def _world(state: str) -> World:
    """Return a domain with three snapshots, in this run state."""
    world = World(DomainOf(on_poweroff="preserve"))
    for step in (
        do.Create(name="running"),
        do.Create(name="disks", memory="no"),
        do.Pause(),
        do.Create(name="paused"),
    ):
        world = apply(world, step).after
    return replace(world, state=state)  # type: ignore[arg-type]


def transitions() -> dict[tuple[str, str], str | None]:
    """Return (state, event) to the state after it, None where it is refused; nonsense is left out."""
    found: dict[tuple[str, str], str | None] = {}
    for state in _STATES:
        for event, step in _EVENTS:
            world = _world(state)
            if possible(world, step):
                outcome = apply(world, step)
                found[state, event] = None if outcome.refused else outcome.after.state
    return found


def run_states() -> str:
    """Draw the run states as a Mermaid diagram; what leads everywhere to the same state is said in a note."""
    edges: dict[tuple[str, str], list[str]] = {}
    everywhere: list[tuple[str, str]] = []
    table = transitions()
    for event, _ in _EVENTS:
        targets = {state: table[state, event] for state in _STATES if (state, event) in table}
        if len(targets) == len(_STATES) and len(set(targets.values())) == 1:
            everywhere.append((event, str(targets["running"])))
            continue
        for state, target in targets.items():
            if target is not None:
                edges.setdefault((state, target), []).append(event)
    lines = ["stateDiagram-v2", "    [*] --> running: start"]
    lines += [f"    {source} --> {target}: {', '.join(events)}" for (source, target), events in edges.items()]
    by_target: dict[str, list[str]] = {}
    for event, target in everywhere:
        by_target.setdefault(target, []).append(event)
    for target, events in by_target.items():
        lines += [f"    note right of {target}: from every state: {', '.join(events)}"]
    return _fence("mermaid", lines)


# --- the tree -----------------------------------------------------------------------------------------------


def _played(*steps: Step) -> World:
    world = World(DomainOf())
    for step in steps:
        outcome = apply(world, step)
        assert outcome.refused is None
        world = outcome.after
    return world


def tree(world: World) -> list[str]:
    """Draw the snapshots of a domain, and its working state, as lines of text."""
    children: dict[str | None, list[str]] = {}
    for snapshot in world.snapshots:
        children.setdefault(snapshot.parent, []).append(snapshot.name)
    children.setdefault(world.current, []).append("(working state)")

    def below(parent: str | None, indent: str) -> Iterator[str]:
        names = children.get(parent, [])
        for name in names:
            last = name == names[-1]
            yield f"{indent}{'└─' if last else '├─'} {name}"
            yield from below(name, indent + ("   " if last else "│  "))

    return list(below(None, ""))


def snapshot_tree() -> str:
    """Draw the example of chapter 1."""
    steps = (
        *(do.Create(name=name) for name in ("base", "before-update", "after-update")),
        do.Revert(name="base"),
        do.Create(name="other-try"),
    )
    return _fence("text", tree(_played(*steps)))


# --- chains of images ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chain:
    """The images of one disk whose snapshots are external: what each lies over, and where snapshots are."""

    present: str = "hda.img"
    below: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)

    def after(self, step: Step, world: World) -> Chain:
        """Return the images after a step to a domain that was as `world` says."""
        if isinstance(step, do.Create):
            return self._overlaid(self.present, {**self.places, str(step.name): self.present})
        if isinstance(step, do.Revert):
            assert world.find(step.name) is not None
            return self._overlaid(self.places[step.name], self.places)._without(self.present)
        if isinstance(step, do.Delete):
            gone = self.places[step.name]
            left = {name: image for name, image in self.places.items() if name != step.name}
            return replace(self, places=left)._merged(gone)
        return self

    def _overlaid(self, image: str, places: Mapping[str, str]) -> Chain:
        number = 1 + max((int(name[8:-6]) for name in self.below), default=0)
        overlay = f"overlay-{number}.qcow2"
        return Chain(overlay, {**self.below, overlay: image}, places)

    def _without(self, image: str) -> Chain:
        """Remove an image that nobody needs."""
        if image in (*self.below.values(), *self.places.values(), self.present):
            return self
        return replace(self, below={name: base for name, base in self.below.items() if name != image})

    def _merged(self, image: str) -> Chain:
        """Merge an image of no snapshot with the only one over it, downwards, as the reference does."""
        over = [name for name, base in self.below.items() if base == image]
        if len(over) != 1 or image in self.places.values():
            return self

        def moved(name: str) -> str:
            return image if name == over[0] else name

        return Chain(
            moved(self.present),
            {name: moved(base) for name, base in self.below.items() if name != over[0]},
            {name: moved(place) for name, place in self.places.items()},
        )

    def lines(self) -> list[str]:
        """Draw a line for each image that nothing lies over, from the first image on."""
        images = dict.fromkeys(["hda.img", *self.below.values(), *self.below])
        leaves = [image for image in images if image not in self.below.values()]
        return [" <-- ".join(self._named(image) for image in self._down(leaf)) for leaf in leaves]

    def _down(self, image: str) -> list[str]:
        return [*(self._down(self.below[image]) if image in self.below else []), image]

    def _named(self, image: str) -> str:
        names = [name for name, place in self.places.items() if place == image]
        state = f" [{', '.join(names)}]" if names else ""
        return f"{image}{state}{' (guest writes)' if image == self.present else ''}"


def chains(steps: Sequence[tuple[str, Step]]) -> str:
    """Draw the images after each step that has a title."""
    world, chain = World(DomainOf()), Chain()
    lines: list[str] = []
    width = max(len(title) for title, _ in steps) + 3
    for title, step in steps:
        chain = chain.after(step, world)
        outcome = apply(world, step)
        assert outcome.refused is None
        world = outcome.after
        if title:
            drawn = chain.lines()
            lines += [f"{title if first is drawn[0] else '':<{width}}{first}".rstrip() for first in drawn]
    return _fence("text", lines)


def _external(name: str) -> do.Create:
    return do.Create(name=name, type="external")


def create_chain() -> str:
    """Draw what external snapshots do to a chain (chapter 4)."""
    return chains(
        (
            ("before", do.List()),
            ("create S1", _external("S1")),
            ("create S2", _external("S2")),
        )
    )


def revert_chain() -> str:
    """Draw what a revert does to a chain (chapter 6)."""
    return chains(
        (
            ("", _external("S1")),
            ("create S1, S2", _external("S2")),
            ("revert to S1", do.Revert(name="S1")),
            ("create S3", _external("S3")),
            ("revert to S2", do.Revert(name="S2")),
        )
    )


def delete_chain() -> str:
    """Draw what deletes do to a chain (chapter 7)."""
    return chains(
        (
            ("", _external("S1")),
            ("", _external("S2")),
            ("", do.Revert(name="S1")),
            ("S2, S3 after S1", _external("S3")),
            ("delete S1", do.Delete(name="S1")),
            ("delete S3", do.Delete(name="S3")),
        )
    )


# --- into the text ------------------------------------------------------------------------------------------

PICTURES: Mapping[str, Callable[[], str]] = {
    "run-states": run_states,
    "snapshot-tree": snapshot_tree,
    "create-chain": create_chain,
    "revert-chain": revert_chain,
    "delete-chain": delete_chain,
}
"""All pictures by name."""


def _fence(language: str, lines: Sequence[str]) -> str:
    return "\n".join([f"```{language}", *lines, "```", ""])


def drawn(chapter: str) -> str:
    """Return a chapter with its pictures drawn anew.

    :raise KeyError: for a picture that there is not.
    """

    def draw(found: re.Match[str]) -> str:
        return f"{found['begin']}{PICTURES[found['name']]()}{found['end']}"

    return _PICTURE.sub(draw, chapter)


def main(directory: Path | None = None) -> None:
    """Draw all pictures of the specification anew."""
    for path in sorted((directory or specification_directory()).glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if (new := drawn(text)) != text:
            path.write_text(new, encoding="utf-8")
            print(path.name, file=sys.stderr)


if __name__ == "__main__":
    main()
