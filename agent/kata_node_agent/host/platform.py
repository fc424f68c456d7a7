"""Where the node runs, as firmware and kernel tell: DMI, /sys/hypervisor, s390x's sysinfo, the device tree.

Serial numbers, UUIDs and asset tags name one machine and are not read; of the chassis tag only the
constants by which some clouds mark all their machines are kept.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass

if TYPE_CHECKING:
    from kata_node_agent.host.root import HostRoot

DMI = "/sys/class/dmi/id"
# The same for every machine of that cloud.
CLOUD_TAGS = {
    "7783-7084-3265-9085-8269-3286-77": "Microsoft Azure",
    "OracleCloud.com": "Oracle Cloud",
    "IBM Cloud": "IBM Cloud",
}
_CONTROL_PROGRAM = re.compile(r"^VM00 Control Program:(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Platform:
    """``None`` where the node does not say.

    ``control_program`` is what runs below us on s390x (``z/VM 7.2.0``, ``KVM/Linux``), empty when that is
    the machine's own partitioning. ``tree_hypervisor`` is the device tree's (``linux,kvm``), empty when
    there is a device tree without one.
    """

    sys_vendor: str | None = None
    product_name: str | None = None
    bios_vendor: str | None = None
    cloud_tag: str | None = None
    hypervisor_type: str | None = None
    control_program: str | None = None
    tree_hypervisor: str | None = None


def read_platform(root: HostRoot) -> Platform:
    """What the node says of where it runs."""
    tag = _line(root, f"{DMI}/chassis_asset_tag")
    return Platform(
        sys_vendor=_line(root, f"{DMI}/sys_vendor"),
        product_name=_line(root, f"{DMI}/product_name"),
        bios_vendor=_line(root, f"{DMI}/bios_vendor"),
        cloud_tag=CLOUD_TAGS.get(tag) if tag is not None else None,
        hypervisor_type=_line(root, "/sys/hypervisor/type"),
        control_program=_control_program(root),
        tree_hypervisor=_tree_hypervisor(root),
    )


def parse_control_program(text: str) -> str:
    """The hypervisor right below this s390x system; empty in a logical partition."""
    match = _CONTROL_PROGRAM.search(text)
    return " ".join(match[1].split())[:64] if match else ""


def _control_program(root: HostRoot) -> str | None:
    text = root.try_read_text("/proc/sysinfo", 1 << 16)
    # x86 has no such file; s390x writes who made the machine first.
    return parse_control_program(text) if text is not None and "Manufacturer:" in text else None


def _tree_hypervisor(root: HostRoot) -> str | None:
    if not root.exists("/proc/device-tree"):
        return None
    text = root.try_read_text("/proc/device-tree/hypervisor/compatible", 4096)
    return (text or "").partition("\0")[0].strip()[:64]


def _line(root: HostRoot, path: str) -> str | None:
    text = root.try_read_text(path, 4096)
    return " ".join(text.split())[:128] if text is not None else None
