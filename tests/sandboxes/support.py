"""A node's /proc written by hand, in the shape that a real one had with QEMU 7.2 and virtiofsd."""

from __future__ import annotations

import math
import shutil
from typing import TYPE_CHECKING, Any

from kata_node_agent.host.root import HostRoot
from kata_node_agent.sandboxes.model import Charge, Cost, Sandbox
from kata_node_agent.sandboxes.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MIB = 1 << 20
HOST_MOUNTS = "mnt:[4026531841]"
ID = "5f1d3c6a" * 8
UID = "0e6b1c52-7d1c-4b7e-9d2f-2d2c0b7f3a11"
POD_GROUP = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice"


def qemu(sandbox_id: str = ID, memory: str = "2048M,slots=10,maxmem=32768M", *more: str) -> list[str]:
    """As Kata's Go runtime starts it."""
    return [
        *("/usr/bin/qemu-system-x86_64", "-name", f"sandbox-{sandbox_id},debug-threads=on"),
        *("-uuid", "7c6d1c9a-0000-4000-8000-000000000000", "-machine", "q35,accel=kvm,nvdimm=on"),
        *("-cpu", "host,pmu=off", "-qmp", "unix:fd=3,server=on,wait=off", "-m", memory),
        *("-device", "pci-bridge,bus=pcie.0,id=pci-bridge-0,chassis_nr=1,shpc=off,addr=2"),
        *more,
        *(
            "-kernel",
            "/usr/share/kata-containers/vmlinux.container",
            "-pidfile",
            f"/run/vc/vm/{sandbox_id}/pid",
        ),
    ]


def shared(size: str = "2048M", where: str = "/dev/shm") -> list[str]:
    """Guest RAM that virtiofsd shares."""
    backend = f"memory-backend-file,id=dimm1,size={size},mem-path={where},share=on"
    return ["-object", backend, "-numa", "node,memdev=dimm1"]


def virtiofsd(sandbox_id: str = ID) -> list[str]:
    return [
        *("/usr/libexec/virtiofsd", "--syslog", f"--socket-path=/run/vc/vm/{sandbox_id}/vhost-fs.sock"),
        *("--cache=auto", f"--shared-dir=/run/kata-containers/shared/sandboxes/{sandbox_id}/shared"),
    ]


def shim(sandbox_id: str = ID) -> list[str]:
    return [
        "/usr/bin/containerd-shim-kata-v2",
        "-namespace",
        "k8s.io",
        "-address",
        "/run/c.sock",
        "-id",
        sandbox_id,
    ]


def region(
    start_mib: int,
    size_mib: int,
    path: str = "",
    *,
    rss: int = 0,
    pss: int | None = None,
    swap: int = 0,
    huge: int = 0,
    inode: int = 0,
    perms: str = "rw-s",
    page: int = 4,
) -> str:
    """One mapping as smaps has it; sizes of memory in KiB."""
    start = start_mib * MIB
    head = f"{start:08x}-{start + size_mib * MIB:08x} {perms} 00000000 00:1b {inode} "
    values = [
        ("Size", size_mib * 1024),
        ("KernelPageSize", page),
        ("MMUPageSize", page),
        ("Rss", rss),
        ("Pss", rss if pss is None else pss),
        ("Pss_Dirty", 0),
        ("Shared_Clean", 0),
        ("Private_Dirty", rss),
        ("Anonymous", 0),
        ("Shared_Hugetlb", huge if "s" in perms else 0),
        ("Private_Hugetlb", 0 if "s" in perms else huge),
        ("Swap", swap),
        ("SwapPss", 0),
    ]
    lines = [head.ljust(73) + path, *(f"{name + ':':<15}{value:>9} kB" for name, value in values)]
    return "\n".join([*lines, "THPeligible:    0", "VmFlags: rd wr sh mr mw me ms sd"]) + "\n"


def rest(rss: int, pss: int | None = None) -> str:
    """All that is no RAM of a guest: heap, stacks, the program's own pages, in one mapping of 8 MiB."""
    return region(90_000, 8, "[heap]", rss=rss, pss=pss, perms="rw-p")


class Tree:
    """A host root with a /proc, and what else of the host a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = HostRoot(folder)
        self.write("proc/sys/kernel/ostype", "Linux\n")
        self.process(1, ["/usr/lib/systemd/systemd"], started=1)
        self.write("sys/fs/cgroup/cgroup.controllers", "cpu memory\n")

    def watcher(self, clock: Clock | None = None, cost_seconds: float = math.inf) -> Watcher:
        return Watcher(self.root, clock=clock or Clock(), cost_seconds=cost_seconds)

    def write(self, path: str, content: str | bytes) -> None:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)

    def process(
        self,
        pid: int,
        words: Sequence[str],
        *,
        smaps: str = "",
        started: int = 100,
        parent: int = 1,
        user: int = 0,
        inside: str = "",
        mounts: str = HOST_MOUNTS,
        cgroup: str = "/system.slice/crio.service",
        name: str = "",
        virtual: int = 1 << 30,
        resident_pages: int = 0,
        faults: int = 0,
        page_tables: int = 0,
        unshared: int | None = None,
    ) -> None:
        """Writes, or writes anew, what the kernel says of a process. `inside` is its number in its own PID namespace.

        `unshared` is what of it is resident and no shared memory, in KiB; old kernels do not say that.
        """
        base = f"proc/{pid}"
        (self.folder / base / "ns").mkdir(parents=True, exist_ok=True)
        self.write(f"{base}/cmdline", b"".join(word.encode() + b"\0" for word in words))
        program = name or words[0].rpartition("/")[2][:15]
        fields = [
            "S",
            parent,
            pid,
            pid,
            0,
            -1,
            4194560,
            faults,
            0,
            0,
            0,
            5,
            5,
            0,
            0,
            20,
            0,
            3,
            0,
            started,
            virtual,
        ]
        fields += [resident_pages, 18446744073709551615, 1, 1, 140_000 + started]
        self.write(f"{base}/stat", f"{pid} ({program}) {' '.join(map(str, fields))}\n")
        self.write(f"{base}/statm", f"{virtual // 4096} {resident_pages} 0 0 0 0 0\n")
        numbers = f"{pid}\t{inside}" if inside else f"{pid}"
        rss = "" if unshared is None else f"RssAnon:\t{unshared} kB\nRssFile:\t0 kB\n"
        self.write(
            f"{base}/status",
            f"Name:\t{program}\nUid:\t{user}\t{user}\t{user}\t{user}\nNSpid:\t{numbers}\n{rss}VmPTE:\t{page_tables} kB\nThreads:\t3\n",
        )
        link = self.folder / base / "ns/mnt"
        link.unlink(missing_ok=True)
        link.symlink_to(mounts)
        self.write(f"{base}/cgroup", f"0::{cgroup}\n")
        self.memory(pid, smaps)

    def memory(self, pid: int, smaps: str) -> None:
        """Writes smaps, and the same as maps and smaps_rollup."""
        heads = [line for line in smaps.splitlines() if "-" in line.split(" ")[0]]
        self.write(f"proc/{pid}/smaps", smaps)
        self.write(f"proc/{pid}/maps", "".join(f"{line}\n" for line in heads))
        sums = {
            name: sum(int(line.split()[1]) for line in smaps.splitlines() if line.startswith(f"{name}:"))
            for name in ("Rss", "Pss")
        }
        roll = "".join(f"{name}: {value} kB\n" for name, value in sums.items())
        self.write(
            f"proc/{pid}/smaps_rollup", f"5566d8810000-7ffe027e4000 ---p 00000000 00:00 0   [rollup]\n{roll}"
        )

    def end(self, pid: int) -> None:
        shutil.rmtree(self.folder / f"proc/{pid}")


class Clock:
    """Seconds that pass when a test says so, or by so many at each look at it."""

    def __init__(self, step: float = 0.0) -> None:
        self.now = 1000.0
        self._step = step

    def __call__(self) -> float:
        self.now += self._step
        return self.now


COST = Cost(300 * MIB, 30 * MIB, 8 * MIB, 20 * MIB, 2 * MIB, 0, 480 * MIB)
CHARGE = Charge(
    "/pods/x", 700 * MIB, 1000 * MIB, 300 * MIB, None, ("/kata_overhead/a",), 5 * MIB, "345 MiB more"
)


def sandbox(**differs: Any) -> Sandbox:
    """A VM of 3 GiB, of which 360 MiB are resident, 60 of these beside the guest's."""
    facts: dict[str, Any] = {
        "id": "a",
        "pod_uid": "u",
        "pod": "shop/web-0",
        "handler": "kata",
        "vmm": "qemu",
        "pid": 501,
        "started": 100,
        "base_bytes": 2048 * MIB,
        "hotplugged_bytes": 1024 * MIB,
        "max_bytes": None,
        "memory_location": "shm",
        "cost": COST,
        "charge": CHARGE,
        "cgroup": "/pods/x",
    }
    return Sandbox(**facts | differs)
