"""What a pod's annotations change of its handler's settings, where the handler permits it. Pure.

Source: Kata Containers 4.1.0, src/runtime/pkg/oci/utils.go (addAnnotations), src/libs/kata-types/src/annotations. The Go
runtime refuses a sandbox with an annotation of the hypervisor's that is not permitted, runtime-rs passes it over.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kata_node_agent.capacity.hotplug import MIB, Fault
from kata_node_agent.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kata_node_agent.capacity.hotplug import Kind, VmSettings

HYPERVISOR = "io.katacontainers.config.hypervisor."
CGROUP_ONLY = "io.katacontainers.config.runtime.sandbox_cgroup_only"
# Injected by OpenShift's operator, for the Go runtime, and in no upstream source: whoever injects it also permits it.
MEMORY_OVERHEAD = f"{HYPERVISOR}memory_overhead"
_MIN_MIB: Mapping[Kind, int] = {"go": 256, "runtime-rs": 64}
_MAX_NUMBER = (1 << 32) - 1
_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_MAX_VALUE_LENGTH = 40


def with_annotations(
    settings: VmSettings, annotations: Mapping[str, str]
) -> tuple[VmSettings, tuple[Fault, ...]]:
    """The settings of one pod's VM, and what its annotations break. What is not permitted changes nothing."""
    faults = tuple(_refused(settings, annotations))
    changes: dict[str, Any] = {}
    for key, value in annotations.items():
        if key == CGROUP_ONLY and (only := _flag(value)) is not None:
            changes["cgroup_only"] = only
        if key == MEMORY_OVERHEAD and settings.kind == "go" and (number := _number(value)) is not None:
            changes["memory_overhead_bytes"] = number * MIB
        name = key.removeprefix(HYPERVISOR)
        if name == key or not is_permitted(settings.enable_annotations, name):
            continue
        if name == "default_memory":
            mib = _memory_mib(settings, value)
            if mib is None or mib < _MIN_MIB[settings.kind]:
                faults = (*faults, _unusable(settings.kind, key, value))
            else:
                changes["default_memory_bytes"] = mib * MIB
        elif name == "memory_slots" and (number := _number(value)):
            changes["slots"] = number
        elif name == "enable_virtio_mem" and (flag := _flag(value)) is not None:
            changes["virtio_mem"] = flag
        elif name == "enable_hugepages" and (flag := _flag(value)) is not None:
            if flag:
                changes["memory_in"] = "hugepages"
            elif settings.memory_in == "hugepages":
                changes["memory_in"] = "shm"
        elif name == "default_vcpus" and (number := _number(value)):
            changes["default_vcpu_millis"] = number * 1000
        elif name == "default_max_vcpus" and (number := _number(value)):
            changes["max_vcpus"] = number
    return replace(settings, **changes), faults


def is_permitted(patterns: tuple[str, ...], name: str) -> bool:
    """Whether one of the patterns is found in the annotation's name, anywhere in it, as the runtimes search."""
    for pattern in patterns:
        try:
            if re.search(pattern, name):
                return True
        except (re.error, OverflowError, RecursionError):
            continue
    return False


def _refused(settings: VmSettings, annotations: Mapping[str, str]) -> Iterator[Fault]:
    for key in annotations:
        name = key.removeprefix(HYPERVISOR)
        if name == key or key == MEMORY_OVERHEAD or is_permitted(settings.enable_annotations, name):
            continue
        refused = settings.kind == "go"
        yield Fault(
            "AnnotationNotEnabled",
            f"annotation {printable(key, 200)} is not in enable_annotations: "
            + ("the sandbox is not created" if refused else "it is passed over"),
            "add its name to enable_annotations in Kata's configuration, or remove the annotation",
            fatal=refused,
        )


def _unusable(kind: Kind, key: str, value: str) -> Fault:
    return Fault(
        "AnnotationUnusable",
        f"annotation {key} cannot be {printable(value, 40)!r}: the sandbox is not created",
        f"write a whole number of MiB, {_MIN_MIB[kind]} or more",
    )


def _memory_mib(settings: VmSettings, value: str) -> int | None:
    if (number := _number(value)) is not None:
        return number
    # runtime-rs also takes a unit: 4Gi, 4GiB, 4G; decimal ones are taken as binary, which errs to the larger side.
    match = re.fullmatch(r"\s*([0-9]{1,12})\s*([kmg])i?b?\s*", value[:_MAX_VALUE_LENGTH], re.IGNORECASE)
    if settings.kind != "runtime-rs" or match is None:
        return None
    return int(match[1]) * _UNITS[match[2].lower()] // MIB


def _number(value: str) -> int | None:
    if len(value) <= _MAX_VALUE_LENGTH and value.isascii() and value.isdigit() and int(value) <= _MAX_NUMBER:
        return int(value)
    return None


def _flag(value: str) -> bool | None:
    return True if value in _TRUE else False if value in _FALSE else None
