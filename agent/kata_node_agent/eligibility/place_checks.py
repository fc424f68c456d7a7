"""Where are we: on bare metal, in a VM, on which cloud. Pure; each architecture is asked its own way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.eligibility.findings import fails, holds, missing

if TYPE_CHECKING:
    from typing import Any

    from kata_node_agent.eligibility.model import Finding
    from kata_node_agent.eligibility.processor import Processor
    from kata_node_agent.host.facts import NodeFacts
    from kata_node_agent.host.platform import Platform

# CPUID leaf 0x40000000, as it comes with its spaces.
_SIGNATURES = {
    "KVMKVMKVM": "KVM",
    "Linux KVM Hv": "KVM",
    "Microsoft Hv": "Hyper-V",
    "VMwareVMware": "VMware",
    "XenVMMXenVMM": "Xen",
    "TCGTCGTCGTCG": "QEMU without KVM",
    "bhyve bhyve ": "bhyve",
    "prl hyperv  ": "Parallels",
    " lrpepyh  vr": "Parallels",
    "VBoxVBoxVBox": "VirtualBox",
    "ACRNACRNACRN": "ACRN",
    "SRESRESRESRE": "a partitioning hypervisor",
    "EVMMEVMMEVMM": "Intel's trusted hypervisor",
}
# (vendor starts with, product contains) of firmware that only VMs have.
_VIRTUAL = (
    ("QEMU", ""),
    ("Bochs", ""),
    ("VMware", ""),
    ("innotek", ""),
    ("Parallels", ""),
    ("Xen", ""),
    ("KubeVirt", ""),
    ("OpenStack Foundation", ""),
    ("Nutanix", "AHV"),
    ("DigitalOcean", ""),
    ("Red Hat", "KVM"),
    ("Red Hat", "RHEV"),
    ("Red Hat", "OpenStack"),
    ("RDO", "OpenStack"),
    ("oVirt", ""),
    ("Microsoft Corporation", "Virtual Machine"),
)
_CLOUDS = (
    ("Amazon EC2", "Amazon EC2"),
    ("Google", "Google Cloud"),
    ("Alibaba Cloud", "Alibaba Cloud"),
    ("Tencent Cloud", "Tencent Cloud"),
    ("HUAWEICLOUD", "Huawei Cloud"),
    ("OVHcloud", "OVHcloud"),
    ("Scaleway", "Scaleway"),
    ("Hetzner", "Hetzner"),
)


def check_bare_metal(facts: NodeFacts, cpu: Processor) -> Finding:
    """``cpu.bare-metal``: no hypervisor below us, and bare metal of a kind that is supported."""
    platform = facts.platform
    system = " ".join(part for part in (_of(platform, "sys_vendor"), _of(platform, "product_name")) if part)
    evidence: dict[str, Any] = {
        "hypervisor_bit": cpu.hypervisor,
        "signature": cpu.signature,
        "system": system or None,
        "hypervisor": _of(platform, "hypervisor_type"),
    }
    if cpu.is_x86 is False and facts.arch == "s390x":
        return _on_s390x(platform, evidence)
    if cpu.is_x86 is False and facts.arch == "ppc64le":
        return _on_ppc64le(facts, evidence)
    if below := _hypervisor(cpu, platform):
        return fails("NestedVirtualization", f"this is a VM of {below}", evidence)
    cloud = _cloud(platform)
    if cloud == "Amazon EC2":
        product = _of(platform, "product_name") or ""
        if _is_metal(product):
            return holds("BareMetal", f"{product}, bare metal of Amazon EC2", evidence)
        if product:
            return fails("NestedVirtualization", f"{product} is a VM type of Amazon EC2", evidence)
    # Other processors have no hypervisor bit; there the firmware's name has to do.
    bare = cpu.hypervisor is False or (cpu.is_x86 is False and bool(system))
    if not bare:
        return missing("whether a hypervisor is below is not known", evidence)
    if cloud is not None:
        return fails("UnsupportedCloudBareMetal", f"bare metal of {cloud} is not supported", evidence)
    return holds("BareMetal", f"no hypervisor is seen{f' on {system}' if system else ''}", evidence)


def _hypervisor(cpu: Processor, platform: Platform | None) -> str:
    """The hypervisor below, by its name; empty where none is seen."""
    vendor, product = _of(platform, "sys_vendor") or "", _of(platform, "product_name") or ""
    virtual = any(vendor.startswith(start) and part in product for start, part in _VIRTUAL)
    if cpu.hypervisor:
        if cpu.signature:
            return _SIGNATURES.get(cpu.signature) or repr(cpu.signature)
        # A recorded tree has no signature; the firmware's name or the cloud's is the next best.
        return f"{vendor} {product}".strip() if virtual else _cloud(platform) or "an unnamed hypervisor"
    if kind := _of(platform, "hypervisor_type"):
        return kind.capitalize()
    if kind := _of(platform, "tree_hypervisor"):
        return kind
    # A hypervisor can be told to hide its bit; its firmware mostly stays.
    return f"{vendor} {product}".strip() if virtual else ""


def _cloud(platform: Platform | None) -> str | None:
    vendor = _of(platform, "sys_vendor") or ""
    return _of(platform, "cloud_tag") or next(
        (name for start, name in _CLOUDS if vendor.startswith(start)), None
    )


def _is_metal(product: str) -> bool:
    """``m5.metal``, ``c7i.metal-24xl``."""
    size = product.partition(".")[2]
    return size == "metal" or size.startswith("metal-")


def _on_s390x(platform: Platform | None, evidence: dict[str, Any]) -> Finding:
    program = _of(platform, "control_program")
    evidence = evidence | {"hypervisor": program or None}
    if program is None:
        return missing("whether a hypervisor is below is not known: no /proc/sysinfo", evidence)
    if program:
        return fails("NestedVirtualization", f"this is a VM of {program}", evidence)
    return holds("BareMetal", "a logical partition without a hypervisor", evidence)


def _on_ppc64le(facts: NodeFacts, evidence: dict[str, Any]) -> Finding:
    kind = facts.cpuinfo.platform if facts.cpuinfo is not None else None
    evidence = evidence | {"platform": kind}
    if below := _of(facts.platform, "tree_hypervisor"):
        return fails("NestedVirtualization", f"this is a VM of {below}", evidence | {"hypervisor": below})
    if kind is None:
        return missing("the platform is not known", evidence)
    if "powernv" in kind.lower():
        return holds("BareMetal", "PowerNV, no hypervisor below", evidence)
    return fails("LogicalPartition", f"{kind} is a partition of PowerVM, not bare metal", evidence)


def _of(platform: Platform | None, name: str) -> str | None:
    value = getattr(platform, name, None)
    return value if isinstance(value, str) else None
