"""A node of OpenShift with Kata pods, as a recorded tree: CRI-O, cgroups v2, kubelet's allocation, one VM or more."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.sandboxes.support import MIB, Tree, qemu, region, rest, shared, shim, virtiofsd

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

GIB = 1 << 30
CONFIGURATION = "/usr/share/kata-containers/defaults/configuration.toml"
_KUBELET = (
    "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\nsystemReserved: {memory: 3Gi}\n"
)
_GUEST = "/dev/shm/qemu_back_mem.dimm1.TAveDM (deleted)"


class KataNode(Tree):
    """32 GiB, handler ``kata`` of the Go runtime with 2 GiB of default_memory."""

    def __init__(self, folder: Path, settings: str = "") -> None:
        super().__init__(folder)
        self.write("proc/meminfo", f"MemTotal: {32 * GIB // 1024} kB\nMemAvailable: {20 * GIB // 1024} kB\n")
        self.write("proc/mounts", f"tmpfs /dev/shm tmpfs rw,size={16 * GIB} 0 0\n")
        self.write("proc/sys/kernel/arch", "x86_64\n")
        self.write("sys/devices/system/cpu/online", "0-7\n")
        self.write("etc/os-release", 'ID="rhcos"\nVERSION_ID="9.6"\nOPENSHIFT_VERSION="4.19"\n')
        self.write("etc/kubernetes/kubelet.conf", _KUBELET)
        self.write(
            "etc/crio/crio.conf.d/50-kata",
            f'[crio.runtime.runtimes.kata]\nruntime_type = "vm"\nruntime_config_path = "{CONFIGURATION}"\n',
        )
        self.write(CONFIGURATION[1:], f"[hypervisor.qemu]\ndefault_memory = 2048\n{settings}")
        self.allocations: dict[str, object] = {}

    def sandbox(
        self,
        number: int = 1,
        *,
        limit_mib: int = 6144,
        request_mib: int | None = None,
        overhead_mib: int = 350,
        plugged_mib: int | None = None,
        resident_mib: int = 300,
        vcpus: int = 1,
        quota: str = "max 100000",
        annotations: Mapping[str, str] | None = None,
    ) -> str:
        """A pod of one container with this limit, and its VM; returns the sandbox's id."""
        sandbox, uid, pid = f"{number:08x}" * 8, f"0e6b1c52-0000-4000-8000-{number:012x}", 1000 * number
        group = f"/kubepods.slice/kubepods-pod{uid.replace('-', '_')}.slice"
        plugged = limit_mib if plugged_mib is None else plugged_mib
        self.process(pid, shim(sandbox), started=90 + number, cgroup=group)
        self.memory(pid, rest(20 * 1024))
        ram = region(4096, 2048, _GUEST, rss=resident_mib * 1024, inode=17)
        if plugged:
            name = "/dev/shm/qemu_back_mem.mem0.cOn1lk (deleted)"
            ram += region(9000, plugged, name, inode=18)
        words = qemu(sandbox, "2048M,slots=10,maxmem=32768M", *shared())
        self.process(pid + 1, words, parent=pid, started=100 + number, cgroup=group)
        self.memory(pid + 1, ram + rest(30 * 1024))
        for index in range(vcpus):
            self.write(f"proc/{pid + 1}/task/{pid + 10 + index}/comm", f"CPU {index}/KVM\n")
        self.write(f"proc/{pid + 1}/task/{pid + 1}/comm", "qemu-system-x86\n")
        self.process(pid + 2, virtiofsd(sandbox), parent=pid, started=101 + number, cgroup=group)
        self.memory(pid + 2, rest(8 * 1024))
        self.write(f"sys/fs/cgroup{group}/cpu.max", f"{quota}\n")
        self.write(f"sys/fs/cgroup{group}/memory.max", f"{(limit_mib + overhead_mib) * MIB}\n")
        self.write(f"sys/fs/cgroup{group}/memory.current", f"{(resident_mib + 58) * MIB}\n")
        self.write(
            f"sys/fs/cgroup{group}/memory.stat",
            f"anon {58 * MIB}\nfile {resident_mib * MIB}\nshmem {resident_mib * MIB}\n",
        )
        self.write(f"run/vc/sbs/{sandbox}/persist.json", "{}")
        self.write(
            f"run/containers/storage/overlay-containers/{sandbox}/userdata/config.json",
            json.dumps(
                {
                    "annotations": {
                        **(annotations or {}),
                        "io.kubernetes.cri-o.RuntimeHandler": "kata",
                        "io.kubernetes.pod.namespace": "default",
                        "io.kubernetes.pod.name": f"web-{number}",
                        "io.kubernetes.pod.uid": uid,
                        "io.kubernetes.cri-o.PodLinuxResources": json.dumps(
                            {"memory_limit_in_bytes": limit_mib * MIB}
                        ),
                        "io.kubernetes.cri-o.PodLinuxOverhead": json.dumps(
                            {
                                "memory_limit_in_bytes": overhead_mib * MIB,
                                "cpu_quota": 25000,
                                "cpu_period": 100000,
                            }
                        ),
                    }
                }
            ),
        )
        resources = {"limits": {"memory": f"{limit_mib}Mi"}}
        resources["requests"] = {"memory": f"{request_mib if request_mib is not None else limit_mib}Mi"}
        self.allocations[uid] = {"ContainerResources": {"app": resources}}
        data = json.dumps({"entries": self.allocations})
        self.write("var/lib/kubelet/allocated_pods_state", json.dumps({"data": data, "checksum": 1}))
        return sandbox
