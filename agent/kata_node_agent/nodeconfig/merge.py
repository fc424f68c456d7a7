"""How kubelet's sources of settings become one: pure, and each value keeps where it came from.

Source: kubelet's cmd/kubelet/app/server.go (loadConfigFile, mergeKubeletConfigurations, kubeletConfigFlagPrecedence, and
run for reserved CPUs), and the Kubernetes documentation, "Kubelet Configuration Directory Merging".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass
from kata_node_agent.host.facts import parse_cpu_list
from kata_node_agent.host.machine import KUBELET_ROOT
from kata_node_agent.nodeconfig.document import MAPS, Scalar, Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DEFAULT_ORIGIN = "kubelet's defaults"


@dataclass(frozen=True, slots=True)
class Setting:
    """A value, and where it came from: a file's path, a flag with its process, or a default."""

    value: Scalar
    origin: str


# By dotted name: ``maxPods``, ``systemReserved.memory``, ``evictionHard.memory.available``.
Settings = dict[str, Setting]

# Source: Kubernetes documentation, "Node-pressure Eviction" and "Kubelet Configuration (v1beta1)".
DEFAULT_EVICTION_HARD = {
    "memory.available": "100Mi",
    "nodefs.available": "10%",
    "nodefs.inodesFree": "5%",
    "imagefs.available": "15%",
    "imagefs.inodesFree": "5%",
}
_DEFAULTS: dict[str, Value] = {
    "evictionHard": dict(DEFAULT_EVICTION_HARD),
    "mergeDefaultEvictionSettings": False,
    "enforceNodeAllocatable": ("pods",),
    "reservedSystemCPUs": "",
    "systemReservedCgroup": "",
    "kubeReservedCgroup": "",
    "kubeletCgroups": "",
    "cgroupDriver": "cgroupfs",
    "cgroupRoot": "",
    "systemCgroups": "",
    "runtimeCgroups": "",
    "rootDir": KUBELET_ROOT,
    "maxPods": 110,
    "podPidsLimit": -1,
    "cgroupsPerQOS": True,
    "topologyManagerPolicy": "none",
    "topologyManagerScope": "container",
    "memoryManagerPolicy": "None",
    "cpuManagerPolicy": "none",
    "reservedMemory": (),
}


def defaults() -> Settings:
    """What kubelet does without any setting."""
    settings: Settings = {}
    _replace(settings, _DEFAULTS, DEFAULT_ORIGIN)
    return settings


def with_file(settings: Settings, fields: Mapping[str, Value], origin: str) -> Settings:
    """``--config`` over the defaults. A map that is there replaces the default one, an empty one too."""
    merged = dict(settings)
    _replace(merged, fields, origin)
    return merged


def with_drop_ins(settings: Settings, drop_ins: Iterable[tuple[Mapping[str, Value], str]]) -> Settings:
    """The files of ``--config-dir``, in their order, over the file.

    Kubelet merges them by RFC 7386 (JSON merge patch): maps key by key, also evictionHard over its default; lists and
    all else replace. A null takes back what drop-ins before it said, and nothing else: the file's own fields have other
    names (capital letters) in the document that kubelet patches, so no patch reaches them, and the result is laid over
    them key by key.
    """
    patch: Settings = {}
    for fields, origin in drop_ins:
        for name, value in fields.items():
            if value is None:
                _drop(patch, name)
            elif isinstance(value, dict):
                for key, amount in value.items():
                    if amount is None:
                        patch.pop(f"{name}.{key}", None)
                    else:
                        patch[f"{name}.{key}"] = Setting(amount, origin)
            else:
                patch[name] = Setting(value, origin)
    return settings | patch


def with_flags(settings: Settings, flags: Mapping[str, tuple[Value, str]], pid: int) -> Settings:
    """Flags over all files: kubelet parses its command line again after it read them. A map replaces the whole map."""
    merged = dict(settings)
    for field, (value, name) in flags.items():
        _replace(merged, {field: value}, f"flag --{name} of kubelet (pid {pid})")
    return merged


def finish(settings: Settings) -> Settings:
    """What kubelet makes of the merged settings when it starts."""
    finished = dict(settings)
    merging = settings.get("mergeDefaultEvictionSettings")
    if merging is not None and merging.value is True:
        origin = f"{DEFAULT_ORIGIN}, merged (mergeDefaultEvictionSettings, {merging.origin})"
        for signal, threshold in DEFAULT_EVICTION_HARD.items():
            finished.setdefault(f"evictionHard.{signal}", Setting(threshold, origin))
    reserved = settings.get("reservedSystemCPUs")
    if reserved is not None and (cpus := parse_cpu_list(str(reserved.value))):
        # Kubelet overwrites the CPU of both reservations with the number of these CPUs.
        finished.pop("kubeReserved.cpu", None)
        origin = f"number of reservedSystemCPUs, {reserved.origin}"
        finished["systemReserved.cpu"] = Setting(str(len(cpus)), origin)
    return finished


def _drop(settings: Settings, name: str) -> None:
    for key in [key for key in settings if key == name or (name in MAPS and key.startswith(f"{name}."))]:
        del settings[key]


def _replace(settings: Settings, fields: Mapping[str, Value], origin: str) -> None:
    for name, value in fields.items():
        if value is None:
            continue
        _drop(settings, name)
        if isinstance(value, dict):
            amounts = {f"{name}.{key}": amount for key, amount in value.items() if amount is not None}
            settings |= {key: Setting(amount, origin) for key, amount in amounts.items()}
        else:
            settings[name] = Setting(value, origin)
