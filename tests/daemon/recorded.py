"""A node with Kata pods, written by hand, on which a real agent runs: the page's tests and pictures need one that looks the
same on every machine. Eligibility is the machine's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.daemon.support import Node
from tests.report.kata_node import GIB, KataNode
from tests.sandboxes.support import MIB

if TYPE_CHECKING:
    from pathlib import Path

_CONFIG = """
[eligibility]
profile = "upstream"
[metrics]
tcp_address = "{address}"
[accounting]
rise_seconds = 0
"""
# MiB that a pod's containers are limited to, that the guest has touched, and of podFixed: that of the first does not cover the
# VM's default_memory.
_VMS = ((6144, 420, 350), (2048, 1800, 2300), (1024, 900, 2300), (2048, 3100, 2300))
_OTHERS = (3 * GIB, 2 * GIB, 512 * MIB)


class RecordedNode(Node):
    """32 GiB, three pods without a VM, and some with one."""

    def __init__(self, folder: Path, address: str, vms: int = len(_VMS)) -> None:
        super().__init__(folder, kvm=True)
        for name in ("proc", "sys"):
            (self.root / name).unlink()
        self.config.write_text(_CONFIG.format(address=address))
        self.tree = KataNode(self.root)
        write = self.tree.write
        write("proc/mounts", f"tmpfs /dev/shm tmpfs rw,size={30 * GIB} 0 0\n")
        write("proc/sys/vm/overcommit_memory", "0\n")
        write("proc/sys/vm/panic_on_oom", "0\n")
        for module in ("kvm", "kvm_intel", "kvm_amd", "vhost", "vhost_net", "vhost_vsock"):
            write(f"sys/module/{module}/initstate", "live\n")
        for place, requested in enumerate(_OTHERS):
            uid = f"9c6b1c52-0000-4000-8000-{place:012}"
            self.tree.allocations[uid] = {
                "ContainerResources": {"app": {"requests": {"memory": f"{requested // MIB}Mi"}}}
            }
            group = (
                f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid.replace('-', '_')}.slice"
            )
            write(f"sys/fs/cgroup/{group}/memory.current", f"{requested // 2}\n")
            write(f"sys/fs/cgroup/{group}/memory.stat", f"anon {requested // 3}\nfile {requested // 8}\n")
        for number in range(1, vms + 1):
            limit, resident, overhead = _VMS[(number - 1) % len(_VMS)]
            self.tree.sandbox(number, limit_mib=limit, resident_mib=resident, overhead_mib=overhead)
