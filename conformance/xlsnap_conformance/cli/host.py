# SPDX-License-Identifier: LGPL-2.1-or-later
"""``xlsnap-conformance host``: make, start and use a nested Xen host, or a libvirtd."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .host_libvirt import libvirt
from .progress import Progress

if TYPE_CHECKING:
    from ..hosts.xen.machine import Places
    from ..hosts.xen.store import Store

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,19}")

_EPILOG = """\b
Examples:
  xlsnap-conformance host xen start                    build it if need be, and start it
  xlsnap-conformance host xen run xl info
  xlsnap-conformance host xen shell
  xlsnap-conformance host xen stop
"""


@click.group("host", short_help="Make and use a nested Xen host, or a libvirtd.")
def command() -> None:
    """Hosts that the kit makes by itself."""


command.add_command(libvirt)


@command.group("xen", epilog=_EPILOG)
def xen() -> None:
    """A Xen host inside QEMU, made of Debian packages. It needs no Xen, no KVM and no root."""


def _check_name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise click.BadParameter("1 to 20 of the characters a-z, 0-9 and -")
    return value


name_option = click.option(
    "--name", default="main", show_default=True, callback=_check_name, help="Which host, if you run several."
)
accelerator_option = click.option(
    "--accelerator",
    type=click.Choice(["auto", "kvm", "tcg"]),
    default="auto",
    show_default=True,
    envvar="XLSNAP_ACCELERATOR",
    help="auto takes KVM only if a nested host has really booted under it.",
)


def _store(accelerator: str, progress: Progress) -> Store:
    from ..hosts.xen.store import open_store

    return asyncio.run(open_store(accelerator, progress))


def _places(name: str, share: Path | None = None) -> Places:
    from ..hosts.xen.cache import default_directory
    from ..hosts.xen.machine import Places

    run = default_directory() / "run" / name
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    shared = share or run / "share"
    shared.mkdir(mode=0o700, exist_ok=True)
    return Places(run, shared)


@xen.command()
def build() -> None:
    """Download Debian's packages and make a host of them, unless that was done."""
    with Progress() as progress:
        built = _store("tcg", progress).builder.build()
    click.echo(built.directory)


@xen.command()
@name_option
@accelerator_option
@click.option(
    "--output",
    type=click.Path(exists=False, path_type=Path),
    metavar="FILE",
    help="Freeze the running host, with its domains, to this file, and end it. No share may be mounted.",
)
def freeze(name: str, accelerator: str, output: Path | None) -> None:
    """Boot a host and freeze it to the cache, from which others start in a second or two."""
    if output is not None:
        asyncio.run(_freeze(name, output))
        click.echo(f"{output}  {output.stat().st_size >> 20} MiB")
        return
    with Progress() as progress:
        store = _store(accelerator, progress)
        image = asyncio.run(store.freeze(store.built(), _places("freeze")))
    click.echo(f"{image}  {image.stat().st_size >> 20} MiB")


async def _freeze(name: str, output: Path) -> None:
    from ..hosts.xen.failure import XenHostError
    from ..hosts.xen.nested import NestedHost

    if output.exists():
        raise XenHostError(f"{output} exists already")
    host = await NestedHost.attach(_places(name))
    await host.freeze(output)


@xen.command()
@name_option
@accelerator_option
@click.option("--boot", is_flag=True, help="Boot it, rather than resume a frozen one.")
@click.option(
    "--image",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Resume what 'freeze --output' has written, by this build of the kit and this QEMU.",
)
@click.option(
    "--share",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    metavar="DIR",
    help="Mount this directory in dom0, at the same path.",
)
def start(name: str, accelerator: str, boot: bool, image: Path | None, share: Path | None) -> None:
    """Start a host in the background."""
    from ..hosts.xen import code
    from ..hosts.xen.failure import XenHostError
    from ..hosts.xen.nested import running

    places = _places(name, share)
    if running(places.run) is not None:
        raise XenHostError(f"the nested Xen host '{name}' runs already: 'host xen stop' ends it")

    async def work(store: Store) -> int:
        host = await store.start(places, boot=boot, image=image)
        try:
            await host.unpack(code.kit())
            if share is not None:
                await host.mount_share(str(share))
            await host.link.close()
        except BaseException:
            await host.stop()
            raise
        return host.pid

    with Progress() as progress:
        pid = asyncio.run(work(_store(accelerator, progress)))
    click.echo(f"nested Xen host '{name}' runs (process {pid}); console: {places.run / 'console.log'}")


@xen.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@name_option
@click.option("--seconds", default=600.0, show_default=True, help="Time limit of the command.")
@click.argument("argv", nargs=-1, required=True, metavar="COMMAND...")
def run(name: str, seconds: float, argv: tuple[str, ...]) -> int:
    """Run a command in dom0, with its output and its exit status."""
    import sys

    from ..hosts.xen.nested import NestedHost

    async def work() -> int:
        host = await NestedHost.attach(_places(name))
        try:
            done = await host.link.run(argv, seconds=seconds)
        finally:
            await host.link.close()
        for stream, text in ((sys.stdout, done.out), (sys.stderr, done.err)):
            stream.flush()
            stream.buffer.write(text.encode(errors="surrogateescape"))
            stream.flush()
        return done.status if done.status >= 0 else 128 - done.status

    return asyncio.run(work())


@xen.command()
@name_option
def shell(name: str) -> int:
    """Open a shell in dom0."""
    from ..hosts.xen.nested import NestedHost
    from ..hosts.xen.terminal import interactive

    async def work() -> int:
        host = await NestedHost.attach(_places(name))
        try:
            return await interactive(host, ["bash", "-i"])
        finally:
            await host.link.close()

    return asyncio.run(work())


@xen.command()
@name_option
def stop(name: str) -> None:
    """End a host at once."""
    from ..hosts.xen.nested import end, running

    pid = running(_places(name).run)
    if pid is None:
        click.echo(f"no nested Xen host '{name}' runs")
        return
    asyncio.run(end(pid))
    click.echo(f"nested Xen host '{name}' ended")


@xen.command()
@name_option
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def logs(name: str, directory: Path) -> None:
    """Copy what hypervisor, dom0, xl and guests have written to DIRECTORY."""
    from ..hosts.xen.logs import keep
    from ..hosts.xen.nested import NestedHost

    async def work() -> None:
        host = await NestedHost.attach(_places(name))
        try:
            await keep(host, directory)
        finally:
            await host.link.close()

    asyncio.run(work())
    click.echo(directory)


@xen.command()
def status() -> None:
    """Say what is in the cache, and which hosts run."""
    from ..hosts.xen.cache import default_directory
    from ..hosts.xen.nested import running

    cache = default_directory()
    for kind in ("built", "frozen"):
        found = [path for path in (cache / kind).glob("[!.]*") if path.is_dir()]
        size = sum(file.stat().st_size for path in found for file in path.iterdir())
        click.echo(f"{kind + ':':<8} {len(found)} ({size >> 20} MiB)")
    runs = {path.name: running(path) for path in sorted((cache / "run").glob("*"))}
    active = {name: pid for name, pid in runs.items() if pid is not None}
    for name, pid in active.items():
        click.echo(f"running: {name} (process {pid}), console {cache / 'run' / name / 'console.log'}")
    if not active:
        click.echo("running: none")
