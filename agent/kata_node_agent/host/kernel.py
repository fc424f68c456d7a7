"""The running kernel: architecture, release, modules with their parameters, and the sysctls that matter.

Nothing is ever loaded. A module that is not in /sys/module may still be built in, without parameters;
that stands in modules.builtin of the running release.
"""

from __future__ import annotations

import re
from dataclasses import field
from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_node_agent.host.root import HostRoot

# kvm_pr and kvm_hv are ppc64's; the vendor modules of x86 are found by their names as well.
MODULES = ("kvm", "kvm_intel", "kvm_amd", "kvm_hv", "kvm_pr", "vhost", "vhost_net", "vhost_vsock", "tun")
PARAMETERS = ("nested", "ept", "npt", "unrestricted_guest", "vgif", "sev", "sev_es", "sev_snp", "tdx")
SYSCTLS = ("vm.overcommit_memory", "vm.panic_on_oom")
_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}")


@dataclass(frozen=True, slots=True)
class Module:
    """A module that is there: loaded, or built into the kernel."""

    name: str
    builtin: bool
    parameters: Mapping[str, str] = field(default_factory=dict)


def read_release(root: HostRoot) -> str | None:
    """The release of the running kernel; ``None`` where it cannot be read or could not name a folder."""
    text = (root.try_read_text("/proc/sys/kernel/osrelease", 4096) or "").strip()
    return text if _RELEASE.fullmatch(text) else None


def read_arch(root: HostRoot) -> str | None:
    """The kernel's architecture as uname(2) names it; kernels before 6.1 do not have the file."""
    text = (root.try_read_text("/proc/sys/kernel/arch", 4096) or "").strip()
    return text if re.fullmatch(r"[a-z0-9_]{1,32}", text) else None


def read_modules(root: HostRoot, release: str | None) -> dict[str, Module] | None:
    """Modules of interest that are there, by name; ``None`` where /sys/module is not."""
    present = root.list_names("/sys/module")
    if not present:
        return None
    builtin = _builtin_names(root, release)
    vendors = [name for name in present if name.startswith("kvm_")]
    found: dict[str, Module] = {}
    for name in dict.fromkeys((*MODULES, *vendors)):
        if name in builtin:
            found[name] = Module(name, builtin=True, parameters=_parameters(root, name))
        elif name in present:
            # What was loaded has a state; what is built in shows its parameters and nothing else.
            loaded = root.exists(f"/sys/module/{name}/initstate")
            found[name] = Module(name, builtin=not loaded, parameters=_parameters(root, name))
    return found


def read_sysctls(root: HostRoot) -> dict[str, int]:
    """The sysctls of interest that can be read and are numbers, by their dotted names."""
    found: dict[str, int] = {}
    for name in SYSCTLS:
        text = (root.try_read_text("/proc/sys/" + name.replace(".", "/"), 4096) or "").strip()
        if re.fullmatch(r"-?[0-9]{1,18}", text):
            found[name] = int(text)
    return found


def parse_builtin(text: str) -> frozenset[str]:
    """The names in a modules.builtin: ``kernel/arch/x86/kvm/kvm-intel.ko`` is ``kvm_intel``."""
    names = (line.strip().rpartition("/")[2].partition(".ko")[0] for line in text.split("\n"))
    return frozenset(name.replace("-", "_") for name in names if name)


def _builtin_names(root: HostRoot, release: str | None) -> frozenset[str]:
    if release is None:
        return frozenset()
    for folder in ("/lib/modules", "/usr/lib/modules"):
        text = root.try_read_text(f"{folder}/{release}/modules.builtin")
        if text is not None:
            return parse_builtin(text)
    return frozenset()


def _parameters(root: HostRoot, module: str) -> dict[str, str]:
    folder = f"/sys/module/{module}/parameters"
    found: dict[str, str] = {}
    for name in root.list_names(folder):
        if name in PARAMETERS and (text := root.try_read_text(f"{folder}/{name}", 4096)) is not None:
            found[name] = text.strip()[:64]
    return found
