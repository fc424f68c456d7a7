"""Checks of the system around KVM: operating system, modules, devices, settings, Kata itself. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.eligibility.findings import NOT_APPLICABLE, fails, holds, missing, skip
from kata_node_agent.quantity import format_bytes

if TYPE_CHECKING:
    from typing import Any

    from kata_node_agent.eligibility.model import Finding
    from kata_node_agent.eligibility.processor import Processor
    from kata_node_agent.host.facts import NodeFacts
    from kata_node_agent.host.kernel import Module


def check_os(facts: NodeFacts, _cpu: Processor) -> Finding:
    """``os``: RHCOS, on which OpenShift sandboxed containers is supported."""
    system = facts.os
    if system is None:
        return missing("the operating system is not known: no usable os-release", {"family": None})
    evidence = {
        "family": system.family,
        "id": system.id,
        "variant_id": system.variant_id,
        "version_id": system.version_id,
        "openshift_version": system.openshift_version,
        "name": system.name,
    }
    if system.family == "rhcos":
        version = f" (OpenShift {system.openshift_version})" if system.openshift_version else ""
        return holds("Rhcos", f"{system.name}{version}", evidence)
    reason, what = {
        "rhel": ("RhelNotSupported", "a RHEL worker"),
        "scos": ("ScosNotRhcos", "CentOS Stream CoreOS"),
        "fcos": ("FcosNotRhcos", "Fedora CoreOS"),
    }.get(system.family, ("NotRhcos", ""))
    said = f"{system.name} is {what}, not RHCOS" if what else f"{system.name} is not RHCOS"
    return fails(reason, said, evidence)


def check_module_kvm(facts: NodeFacts, _cpu: Processor) -> Finding:
    """``module.kvm``: the kernel has KVM, loaded or built in."""
    if facts.modules is None:
        return missing("the kernel's modules are not known: no /sys/module")
    module = facts.modules.get("kvm")
    if module is None:
        return fails("KvmModuleMissing", "kvm is neither loaded nor built in", {"module": "kvm"})
    return _present(module)


def check_module_vendor(facts: NodeFacts, cpu: Processor) -> Finding:
    """``module.kvm-vendor``: the half of KVM that drives this processor."""
    if cpu.is_x86 is False:
        expected: tuple[str, ...] = ("kvm_hv", "kvm_pr") if facts.arch == "ppc64le" else ()
        if not expected:
            return skip(NOT_APPLICABLE, "KVM has no vendor module on this architecture")
    elif (flag := cpu.kernel_flag) is not None:
        expected = ("kvm_intel",) if flag == "vmx" else ("kvm_amd",)
    else:
        expected = ("kvm_intel", "kvm_amd")
    evidence: dict[str, Any] = {"expected": list(expected)}
    if facts.modules is None:
        return missing("the kernel's modules are not known: no /sys/module", evidence)
    for name in expected:
        if (module := facts.modules.get(name)) is not None:
            return _present(module, evidence)
    others = sorted(name for name in facts.modules if name.startswith("kvm_"))
    wanted = " or ".join(expected)
    if others:
        message = f"the kernel has {', '.join(others)} instead of {wanted}"
        return fails("KvmVendorModuleOther", message, evidence | {"found": others})
    return fails(
        "KvmVendorModuleMissing", f"{wanted} is neither loaded nor built in", evidence | {"found": []}
    )


def check_vhost_net(facts: NodeFacts, _cpu: Processor) -> Finding:
    """``vhost.net``: network of VMs without a detour through the VMM; tun is told beside it."""
    tun = (facts.devices or {}).get("tun")
    return _device(facts, "vhost-net", {"tun": tun.kind if tun is not None else None})


def check_vhost_vsock(facts: NodeFacts, _cpu: Processor) -> Finding:
    """``vhost.vsock``: the way to the agent in the guest."""
    return _device(facts, "vhost-vsock", {})


def check_overcommit_memory(facts: NodeFacts, _cpu: Processor) -> Finding:
    """``sysctl.overcommit-memory``: kubelet's expected value, 1."""
    value = (facts.sysctls or {}).get("vm.overcommit_memory")
    evidence = {"vm.overcommit_memory": value}
    if value is None:
        return missing("vm.overcommit_memory could not be read", evidence)
    if value == 1:
        return holds("OvercommitAlways", "vm.overcommit_memory is 1", evidence)
    message = f"vm.overcommit_memory is {value}: the kernel may refuse memory to a VM that fits"
    return fails("OvercommitRestricted", message, evidence)


def check_panic_on_oom(facts: NodeFacts, _cpu: Processor) -> Finding:
    """``sysctl.panic-on-oom``: kubelet's expected value, 0."""
    value = (facts.sysctls or {}).get("vm.panic_on_oom")
    evidence = {"vm.panic_on_oom": value}
    if value is None:
        return missing("vm.panic_on_oom could not be read", evidence)
    if value == 0:
        return holds("PanicOnOomOff", "vm.panic_on_oom is 0", evidence)
    message = f"vm.panic_on_oom is {value}: when memory runs out the node panics"
    return fails("PanicOnOomOn", message, evidence)


def check_shm_ceiling(facts: NodeFacts, _cpu: Processor) -> Finding:
    """``shm.ceiling``: /dev/shm holds as much guest memory as kubelet may hand out.

    Where kubelet's settings are not known to whoever gathered the facts, all memory beyond huge pages counts.
    """
    shared = facts.shared_memory
    if facts.allocatable_bytes is not None:
        ceiling, name = facts.allocatable_bytes, "the allocatable memory"
    elif facts.memory is not None:
        ceiling, name = max(0, facts.memory.total_bytes - facts.memory.hugepages_bytes), "the node's memory"
    else:
        return missing("the node's memory is not known")
    evidence = {"shm_bytes": shared.total_bytes if shared is not None else None, "memory_bytes": ceiling}
    if shared is None:
        return missing("the size of /dev/shm is not known", evidence)
    if shared.total_bytes >= ceiling:
        message = f"{name} ({format_bytes(ceiling)}) fits in /dev/shm ({format_bytes(shared.total_bytes)})"
        return holds("SharedMemoryHoldsAll", message, evidence)
    message = f"VMs with virtio-fs get at most {format_bytes(shared.total_bytes)} (/dev/shm) of {format_bytes(ceiling)}"
    return fails("SharedMemoryBelowMemory", message, evidence)


def check_kata_runtime(facts: NodeFacts, _cpu: Processor) -> Finding:
    """``kata.runtime``: Kata is here and a handler leads to it. Never required: it comes after the label."""
    kata = facts.kata
    if kata is None:
        return missing("whether Kata is installed is not known")
    evidence: dict[str, Any] = {
        "binaries": list(kata.binaries),
        "configurations": list(kata.configurations),
        "handlers": [
            {"name": handler.name, "runtime": handler.runtime, "config_path": handler.config_path}
            for handler in kata.handlers
        ],
        "unreadable": list(kata.unreadable),
    }
    if not kata.binaries:
        return fails("KataNotInstalled", "no containerd-shim-kata-v2 was found", evidence)
    if not kata.configurations:
        return fails("KataConfigurationMissing", "Kata is there, its configuration.toml is not", evidence)
    if not kata.handlers:
        cannot = f" ({', '.join(kata.unreadable)} could not be read)" if kata.unreadable else ""
        message = f"no handler of CRI-O or containerd leads to Kata{cannot}"
        return fails("KataHandlerMissing", message, evidence)
    names = ", ".join(f"{handler.name} ({handler.runtime})" for handler in kata.handlers)
    return holds("KataFound", f"handlers: {names}", evidence)


def _present(module: Module, evidence: dict[str, Any] | None = None) -> Finding:
    evidence = (evidence or {}) | {
        "module": module.name,
        "builtin": module.builtin,
        "parameters": dict(sorted(module.parameters.items())),
    }
    if module.builtin:
        return holds("ModuleBuiltIn", f"{module.name} is built into the kernel", evidence)
    return holds("ModuleLoaded", f"{module.name} is loaded", evidence)


def _device(facts: NodeFacts, name: str, evidence: dict[str, Any]) -> Finding:
    node = (facts.devices or {}).get(name)
    evidence = {"path": f"/dev/{name}", "type": node.kind if node is not None else None} | evidence
    if node is None or node.kind == "unknown":
        return missing(f"whether there is a /dev/{name} is not known", evidence)
    if node.kind == "char":
        return holds("DevicePresent", f"{node.path} is there", evidence)
    if node.kind == "absent":
        return fails("DeviceMissing", f"there is no {node.path}", evidence)
    return fails("DeviceNotCharacter", f"{node.path} is no character device", evidence)
