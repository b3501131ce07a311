# SPDX-License-Identifier: LGPL-2.1-or-later
"""What can be seen of a world: by the guest, by qemu-img, in the metadata and among the files."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from fork_server import guests
from world import DISKS, DOMAIN, SECTORS, UUID, World, awake, files_below, read_memory
from xlsnap import snapshot as metadata
from xlsnap.domain import DomainRecord, RunState
from xlsnap.journal import Journal
from xlsnap.toolstack import Toolstack
from xlsnap_conformance import guest
from xlsnap_conformance.oracles import qcow2

# Files of a process that lives, or lived; locks; the journal, which must be empty.
_PASSING = re.compile(r"root/domains/[^/]+/(process-\d+/.*|lock|journal\.json)|root/(lock|next-domid)")

# The toolstack's own name for an overlay (XLS-CREATE): image, snapshot, and a number if that is taken.
_OVERLAY = re.compile(r"(?P<name>\b[a-z]+\.s\d)(?:\.(?P<number>\d+))?\.qcow2")

_LEAKS = 3
"""Exit status of `qemu-img check` for clusters that nobody uses, which is harmless."""

_VARYING = (metadata.ORDER_KEY, "creation_time")


@dataclass(frozen=True)
class Observation:
    """The state of a world; two of them are equal if no user could tell them apart."""

    run_state: str | None
    memory: str | None
    disks: tuple[str | None, ...]
    snapshots: dict[str, dict[str, Any]]
    record: dict[str, Any]
    files: tuple[str, ...]
    images: dict[str, dict[str, Any]]

    def without_guest(self) -> Observation:
        """Return the same state after the death of the guest."""
        return dataclasses.replace(self, run_state=None, memory=None)

    def without_backing(self) -> Observation:
        """Return the same state but for what images lie over."""
        images = {name: {**image, "backing": None} for name, image in self.images.items()}
        return dataclasses.replace(self, images=images)

    def of_disk(self, vdev: str) -> Any:
        """Return the part of the state that is about one disk or about none."""
        return _without_disks(dataclasses.asdict(self), set(DISKS) - {vdev})

    def differences(self, other: Observation) -> Iterator[str]:
        """Yield what this state has otherwise than the other one."""
        for field in dataclasses.fields(self):
            mine, others = getattr(self, field.name), getattr(other, field.name)
            if mine != others:
                yield f"{field.name}: {_first_difference(mine, others)}"


def _without_disks(value: Any, others: set[str]) -> Any:
    """Leave out of nested values what is about other disks only."""
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if not _only_about((key, item), others)}
        return {key: _without_disks(item, others) for key, item in kept.items()}
    if isinstance(value, list | tuple):
        return [_without_disks(item, others) for item in value if not _only_about(item, others)]
    return value


def _only_about(item: Any, others: set[str]) -> bool:
    named = set(re.findall(rf"\b({'|'.join(DISKS)})\b", json.dumps(item)))
    return bool(named) and named <= others


def _first_difference(mine: Any, others: Any) -> str:
    if isinstance(mine, dict) and isinstance(others, dict):
        for key in sorted({*mine, *others}):
            if mine.get(key) != others.get(key):
                return f"{key}: {_first_difference(mine.get(key), others.get(key))}"
    if isinstance(mine, tuple) and isinstance(others, tuple) and len(mine) != len(others):
        extra = [item for item in mine if item not in others]
        missing = [item for item in others if item not in mine]
        return f"{extra} too many, {missing} missing"
    if isinstance(mine, tuple | list) and isinstance(others, tuple | list):
        for one, other in zip(mine, others, strict=False):
            if one != other:
                return _first_difference(one, other)
    return f"{mine!r} where {others!r} was expected"


async def look(toolstack: Toolstack, world: World) -> Observation:
    """Observe a world in which nothing is interrupted; it is the same afterwards."""
    record = toolstack.resolve(DOMAIN)
    (info,) = await toolstack.domains(DOMAIN)
    if info.run_state is None:
        memory, disks = None, read_images(world, record)
    elif info.run_state is RunState.PAUSED:
        memory, disks = await awake(toolstack, lambda: ask_guest(toolstack, world))
    else:
        memory, disks = ask_guest(toolstack, world)
    found = [path for path in files_below(world.directory) if not _PASSING.fullmatch(path)]
    seen = Observation(
        run_state=info.run_state.value if info.run_state else None,
        memory=memory,
        disks=disks,
        snapshots={item.name: _lasting(item) for item in toolstack.snapshot_list(DOMAIN)},
        record=_lasting_record(record),
        files=tuple(found),
        images=inspect(sorted(world.images.iterdir())),
    )
    return _renumbered(seen)


def _renumbered(seen: Observation) -> Observation:
    """Number overlays of one name anew: a path that was free may have got one in between."""
    numbers: dict[str, set[int]] = {}
    for match in map(_OVERLAY.fullmatch, seen.images):
        if match is not None:
            numbers.setdefault(match["name"], set()).add(int(match["number"] or 1))

    def renumber(match: re.Match[str]) -> str:
        number = int(match["number"] or 1)
        known = sorted(numbers.get(match["name"], ()))
        return f"{match['name']}.{known.index(number) + 1 if number in known else 'gone'}.qcow2"

    content = json.loads(_OVERLAY.sub(renumber, json.dumps(dataclasses.asdict(seen))))
    files, disks = tuple(sorted(content.pop("files"))), tuple(content.pop("disks"))
    return Observation(**content, files=files, disks=disks)


def ask_guest(toolstack: Toolstack, world: World) -> tuple[str | None, tuple[str | None, ...]]:
    """Return the words that the running guest has in memory and in the sectors of its disks."""
    with guest.Probe(toolstack.console_path(DOMAIN)) as probe:
        words = [probe.read(DISKS[vdev], sector) for vdev in world.vdevs for sector in SECTORS]
        return read_memory(probe), tuple(words)


def _lasting(snapshot: metadata.DomainSnapshot) -> dict[str, Any]:
    """Return metadata without what differs from run to run."""
    content: dict[str, Any] = json.loads(metadata.to_json(snapshot))
    return {key: value for key, value in content.items() if key not in _VARYING}


def _lasting_record(record: DomainRecord) -> dict[str, Any]:
    content: dict[str, Any] = msgspec.to_builtins(record)
    return {key: content.get(key) for key in ("name", "config", "overlays", "current")}


def read_images(
    world: World, record: DomainRecord, sectors: tuple[int, ...] = SECTORS
) -> tuple[str | None, ...]:
    """Return the words in the sectors of the domain's present images, as the host reads them."""
    words = []
    copy = world.directory.with_name(f"{world.directory.name}.raw")
    for disk in record.config.disks:
        command = ["qemu-img", "convert", "-U", "-f", disk.format, "-O", "raw", str(disk.target), str(copy)]
        subprocess.run(command, check=True)
        content = copy.read_bytes()
        copy.unlink()
        words += [_word(content[sector * 512 :][:512]) for sector in sectors]
    return tuple(words)


def _word(sector: bytes) -> str | None:
    """Return the word in a patterned sector (guest/README.md)."""
    return sector[12:48].rstrip(b"\0").decode("ascii", "replace") if any(sector) else None


def inspect(images: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Return what images hold, by name: their internal snapshots, and what they lie over.

    Read from their headers, which takes no process for each; `damage` asks qemu-img.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in images:
        try:
            image = qcow2.read(path)
        except qcow2.ImageError as error:
            found[path.name] = {"unreadable": str(error)}
        else:
            found[path.name] = {
                "tags": sorted(tag.name for tag in image.tags),
                "backing": image.backing_file,
                "backing format": image.backing_format,
            }
    return found


async def damage(world: World, *, leaks: bool) -> list[str]:
    """Return what `qemu-img check` finds wrong with the images, which nobody uses; leaks only if asked."""
    found = []
    images = sorted(world.images.iterdir())
    results = await asyncio.gather(*(qemu_img("check", "-f", "qcow2", str(image)) for image in images))
    for image, (status, output) in zip(images, results, strict=True):
        if status not in (0, _LEAKS) or (status == _LEAKS and leaks):
            found.append(f"{image.name}: {output.strip()}")
    return found


async def qemu_img(*arguments: str) -> tuple[int, str]:
    """Run `qemu-img`; return its exit status and what it says."""
    process = await asyncio.create_subprocess_exec(
        "qemu-img", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


def remains(world: World) -> Iterator[str]:
    """Yield what an operation that is over must not leave: a journal, processes that are nobody's."""
    if Journal(world.root.domain(UUID).journal).interrupted() is not None:
        yield "the journal still tells of an interrupted operation"
    if len(guests()) > 1:
        yield f"{len(guests())} QEMU processes where there should be one"
