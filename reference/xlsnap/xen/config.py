# SPDX-License-Identifier: LGPL-2.1-or-later
"""A domain's configuration in Xen's two forms: xl.cfg, and the JSON that libxl keeps (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xlsnap_grammars import DiskSpec

from ..domain import DomainConfig
from ..errors import InputError

_ESCAPED = str.maketrans(
    {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\a": "\\a", "\b": "\\b", "\f": "\\f"}
)

DEFAULT_TYPE = "pv"
"""What xl takes without ``type`` and ``builder``."""


def xl_cfg(config: DomainConfig) -> str:
    """Return the configuration as the text of an xl.cfg.

    :raise InputError: if a value cannot be written there: no escape stands for a NUL.
    """
    return "".join(f"{key} = {_value(value)}\n" for key, value in _settings(config))


def _settings(config: DomainConfig) -> Iterator[tuple[str, Any]]:
    known: dict[str, Any] = {
        "name": config.name,
        "uuid": config.uuid,
        "memory": str(config.memory_mib),
        "vcpus": str(config.vcpus),
        "kernel": config.kernel,
        "ramdisk": config.ramdisk,
        "extra": config.extra or None,
        "bios_path_override": config.bios,
        "boot": config.boot,
        "on_poweroff": config.on_poweroff,
        "on_reboot": config.on_reboot,
        "on_crash": config.on_crash,
        "disk": [disk_text(disk) for disk in config.disks],
    }
    if domain_type(config) == "hvm":
        known |= {"serial": config.serial, "acpi": "1" if config.acpi else "0"}
    yield from ((key, value) for key, value in known.items() if value is not None)
    yield from ((key, value) for key, value in config.more.items() if key not in known)


def domain_type(config: DomainConfig) -> str:
    """Return ``pv``, ``pvh`` or ``hvm``."""
    old = "hvm" if config.more.get("builder") == "hvm" else DEFAULT_TYPE
    return str(config.more.get("type", old))


def _value(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[ {', '.join(map(_value, value))} ]"
    if "\0" in value:
        raise InputError(f"a setting contains a NUL, which no xl.cfg can: {value!r}")
    return f'"{value.translate(_ESCAPED)}"'


def disk_text(disk: DiskSpec) -> str:
    """Return a disk in the syntax of xl-disk-configuration(5). The target comes last: it may have commas."""
    words = [
        f"format={disk.format}",
        f"vdev={disk.vdev}",
        f"access={'rw' if disk.readwrite else 'ro'}",
        *(["devtype=cdrom"] if disk.is_cdrom else []),
        *([f"backendtype={disk.backend}"] if disk.backend != "unknown" else []),
        *([f"backend={disk.backend_domname}"] if disk.backend_domname else []),
        *([f"script={disk.script}"] if disk.script else []),
        *(["direct-io-safe"] if disk.direct_io_safe else []),
        *([] if disk.discard is None else ["discard" if disk.discard else "no-discard"]),
        *([f"specification={disk.specification}"] if disk.specification != "unknown" else []),
        *([f"target={disk.target}"] if disk.target else []),
    ]
    return ",".join(words)


# --- libxl's JSON -----------------------------------------------------------------------------------------


def config_from_json(stored: Mapping[str, Any]) -> DomainConfig:
    """Return the configuration in libxl's JSON (``libxl_domain_config``), which leaves defaults out.

    What xlsnap does not know of it is lost: a domain that was not begun by xlsnap can be begun again by it
    with memory, processors, kernel, disks and network interfaces, and `warnings` tell of the rest.
    """
    create, build = stored.get("c_info", {}), stored.get("b_info", {})
    more: dict[str, Any] = {"type": create.get("type", DEFAULT_TYPE)}
    if interfaces := stored.get("nics"):
        more["vif"] = [_interface(nic) for nic in interfaces]
    firmware = build.get("type.hvm", {}).get("system_firmware")
    return DomainConfig(
        name=create.get("name", ""),
        uuid=create.get("uuid"),
        memory_mib=-(-build.get("target_memkb", 0) // 1024),
        vcpus=build.get("max_vcpus", 1),
        kernel=build.get("kernel"),
        ramdisk=build.get("ramdisk"),
        extra=build.get("cmdline", ""),
        bios=firmware,
        boot=build.get("type.hvm", {}).get("boot"),
        disks=tuple(_disk(disk) for disk in stored.get("disks", ())),
        on_poweroff=_action(stored, "on_poweroff", "destroy"),
        on_reboot=_action(stored, "on_reboot", "restart"),
        on_crash=_action(stored, "on_crash", "destroy"),
        more=more,
        warnings=tuple(f"{key}: not known to xlsnap" for key in sorted(_UNKNOWN & stored.keys())),
    )


_UNKNOWN = frozenset(
    {"pcidevs", "rdms", "dtdevs", "vfbs", "vkbs", "vtpms", "p9s", "pvcallsifs", "vdispls", "vsnds"}
    | {"channels", "usbctrls", "usbdevs"}
)


def _action(stored: Mapping[str, Any], key: str, default: str) -> str:
    return str(stored.get(key, default)).replace("_", "-")


def _disk(raw: Mapping[str, Any]) -> DiskSpec:
    return DiskSpec(
        target=raw.get("pdev_path"),
        format=raw.get("format", "raw"),
        vdev=raw.get("vdev"),
        readwrite=bool(raw.get("readwrite", 0)),
        removable=bool(raw.get("removable", 0)),
        is_cdrom=bool(raw.get("is_cdrom", 0)),
        backend=raw.get("backend", "unknown"),
        script=raw.get("script"),
        direct_io_safe=raw.get("direct_io_safe") in (True, "True"),
        discard={"True": True, "False": False}.get(raw.get("discard_enable", "")),
        specification=raw.get("specification", "unknown"),
    )


def _interface(raw: Mapping[str, Any]) -> str:
    names = {"mac": "mac", "bridge": "bridge", "ip": "ip", "script": "script", "model": "model"}
    return ",".join(f"{name}={raw[key]}" for key, name in names.items() if raw.get(key))


def with_stored_images(stored: Mapping[str, Any], images: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """Return libxl's JSON with other images (path and format) for some disks, given by vdev."""
    disks = [
        {**disk, "pdev_path": images[disk["vdev"]][0], "format": images[disk["vdev"]][1]}
        if disk.get("vdev") in images
        else disk
        for disk in stored.get("disks", ())
    ]
    return {**stored, "disks": disks}
