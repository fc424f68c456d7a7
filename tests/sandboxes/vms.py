"""Real VMs in Kata's shape: QEMU, virtiofsd and Debian's cloud kernel with busybox, in control groups as Kata makes them.

Under TCG, as it runs on any machine. Everything is ended by its own pid, and every folder and group made here removed.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kata_node_agent.host.cgroup_mounts import find_cgroup_mounts
from kata_node_agent.host.root import HostRoot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MIB = 1 << 20
BOOT_SECONDS = 90.0
RUN_VC = Path("/run/vc/vm")
_QEMU = "qemu-system-x86_64"
_VIRTIOFSD = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")
# In the order in which they need each other.
_MODULES = (
    *("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci"),
    *("fuse", "virtiofs", "virtio_mem"),
)
# Each line that comes in on the console is run, and answered.
_INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t devtmpfs dev /dev; mount -t tmpfs -o size=90% tmpfs /tmp
for module in {" ".join(_MODULES)}; do [ -f /$module.ko ] && insmod /$module.ko; done
exec < /dev/ttyS0 > /dev/ttyS0 2>&1
stty -echo
mount -t virtiofs share /mnt
echo guest is up
while read -r line; do eval "$line"; echo "did: $line"; done
"""


def missing() -> str:
    """Why no VM can be started here; empty when one can."""
    if os.geteuid() != 0:
        return "root makes control groups and folders of Kata's"
    if not shutil.which(_QEMU) or not virtiofsd_path():
        return "qemu-system-x86_64 and virtiofsd are not installed"
    if kernel() is None or not Path("/bin/busybox").exists():
        return "linux-image-cloud-amd64 and busybox-static are not installed"
    return ""


def virtiofsd_path() -> str:
    return next((path for path in _VIRTIOFSD if os.access(path, os.X_OK)), "")


def kernel() -> Path | None:
    return max(Path("/boot").glob("vmlinuz-*-cloud-amd64"), default=None)


def make_initramfs(place: Path) -> None:
    """busybox and the modules, as the kernel unpacks them."""
    image = kernel()
    assert image is not None
    version = image.name.removeprefix("vmlinuz-")
    modules = {path.name: path for path in Path("/lib/modules", version).rglob("*.ko")}
    files = {f"{name}.ko": modules[f"{name}.ko"].read_bytes() for name in _MODULES if f"{name}.ko" in modules}
    files |= {"init": _INIT.encode(), "bin/busybox": Path("/bin/busybox").read_bytes()}
    with gzip.open(place, "wb", compresslevel=1) as archive:
        for number, name in enumerate(("bin", "proc", "dev", "tmp", "mnt", *files)):
            content = files.get(name)
            archive.write(_cpio(number, name, 0o40755 if content is None else 0o100755, content or b""))
        archive.write(_cpio(99, "TRAILER!!!", 0, b""))


def _cpio(number: int, name: str, mode: int, content: bytes) -> bytes:
    # Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % value for value in fields) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4)


def wait_for(holds: Callable[[], object], what: str, seconds: float = BOOT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.02)


@dataclass(eq=False)
class RunningVm:
    """A VM of these tests."""

    id: str
    pid: int
    folder: Path
    _console: socket.socket | None = None
    _qmp: Any = None

    @property
    def said(self) -> str:
        """All that the guest's console has shown."""
        with contextlib.suppress(OSError):
            return (self.folder / "console.log").read_text(errors="replace")
        return ""

    def tell(self, command: str, seconds: float = BOOT_SECONDS) -> None:
        """Has the guest run a line of shell, and waits until it has."""
        before = self.said.count(f"did: {command}")
        self.begin(command)
        wait_for(
            lambda: self.said.count(f"did: {command}") > before, f"{command}: {self.said[-500:]}", seconds
        )

    def begin(self, command: str) -> None:
        """Has the guest begin with a line of shell."""
        if self._console is None:
            self._console = socket.socket(socket.AF_UNIX)
            self._console.connect(str(self.folder / "console.sock"))
        self._console.sendall(f"{command}\n".encode())

    def ask(self, command: str) -> dict[str, Any]:
        """What QEMU answers."""
        answer = self.qmp(command)
        assert isinstance(answer, dict)
        return answer

    def qmp(self, command: str, **arguments: object) -> object:
        """What Kata's shim would say to QEMU."""
        if self._qmp is None:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(self.folder / "qmp.sock"))
            self._qmp = connection.makefile("rw")
            connection.close()
            self._qmp.readline()
            self.qmp("qmp_capabilities")
        self._qmp.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._qmp.flush()
        while "return" not in (answer := json.loads(self._qmp.readline())):
            if "error" in answer:
                raise RuntimeError(answer["error"]["desc"])
        return answer["return"]

    def hang_up(self) -> None:
        """Closes what was opened to talk to it."""
        for connection in (self._console, self._qmp):
            if connection is not None:
                connection.close()

    def hotplug(self, name: str, size: int, kind: str = "file") -> None:
        """Plugs a DIMM, as Kata does for a container's limit."""
        more: dict[str, object] = {"mem-path": "/dev/shm", "share": True} if kind == "file" else {}
        self.qmp("object-add", **{"qom-type": f"memory-backend-{kind}", "id": name, "size": size, **more})
        self.qmp("device_add", driver="pc-dimm", id=f"dimm{name}", memdev=name)


@dataclass
class Machine:
    """Starts VMs, and ends all of them."""

    folder: Path
    _children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _vms: list[RunningVm] = field(default_factory=list)
    _made: list[Path] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        make_initramfs(self.folder / "initramfs")
        # A process's number is that of another one in another namespace.
        self.top = f"kna-test-{os.getpid()}-{secrets.token_hex(3)}-kubepods"

    def start(
        self,
        backend: Sequence[str] = (),
        *,
        memory: str = "512M,slots=10,maxmem=4G",
        share: Path | None = None,
        group: str = "",
        more: Sequence[str] = (),
        sandbox_id: str = "",
    ) -> RunningVm:
        """Starts QEMU and, for a share, virtiofsd. Returns before the guest is up."""
        number = next(self._numbers)
        sandbox_id = sandbox_id or f"{os.getpid():08x}{number:08x}" * 4
        folder = self.folder / str(number)
        folder.mkdir()
        files: list[str] = []
        if share is not None:
            place = self.own_folder(RUN_VC / sandbox_id) / "vhost-fs.sock"
            command = [
                virtiofsd_path(),
                f"--socket-path={place}",
                "-o",
                f"source={share}",
                "-o",
                "cache=auto",
            ]
            self._run(command, folder / "virtiofsd.log", group)
            wait_for(place.exists, f"virtiofsd: {(folder / 'virtiofsd.log').read_text()}", 20)
            files = ["-chardev", f"socket,id=fs,path={place}"]
            files += ["-device", "vhost-user-fs-pci,chardev=fs,tag=share,queue-size=1024"]
        console = (
            f"socket,id=console,path={folder}/console.sock,server=on,wait=off,logfile={folder}/console.log"
        )
        command = [
            *(_QEMU, "-name", f"sandbox-{sandbox_id},debug-threads=on", "-machine", "q35,accel=tcg"),
            *("-cpu", "max", "-m", memory, *backend, "-nodefaults", "-display", "none", "-no-user-config"),
            *(
                "-qmp",
                f"unix:{folder}/qmp.sock,server=on,wait=off",
                "-chardev",
                console,
                "-serial",
                "chardev:console",
            ),
            *files,
            *("-kernel", str(kernel()), "-initrd", str(self.folder / "initramfs"), *more),
            *("-append", "console=ttyS0 quiet memhp_default_state=online panic=-1"),
        ]
        child = self._run(command, folder / "qemu.log", group)
        vm = RunningVm(sandbox_id, child.pid, folder)
        self._vms.append(vm)
        return vm

    def group(self, path: str, limit: int | None = None) -> str:
        """Makes a control group below one of ours, with all above it; returns its path below the hierarchy."""
        mounts = find_cgroup_mounts(HostRoot())
        name = f"/{self.top}/{path}"
        parts = name.strip("/").split("/")
        for end in range(1, len(parts) + 1):
            place = Path(mounts.memory, *parts[:end])
            if mounts.hierarchy == "v2":
                (place.parent / "cgroup.subtree_control").write_text("+memory")
            if not place.exists():
                place.mkdir()
                self._made.append(place)
        if limit is not None:
            file = "memory.max" if mounts.hierarchy == "v2" else "memory.limit_in_bytes"
            Path(mounts.memory, *parts, file).write_text(str(limit))
        return name

    def link(self, place: Path, target: Path) -> None:
        """A link, as Kata makes it when a sandbox takes a VM of its factory."""
        place.symlink_to(target)
        self._made.append(place)

    def begin_shim(self, words: Sequence[str]) -> int:
        """A process that has a shim's command line, and does nothing."""
        # A shell that waits for commands; behind -- it takes any words.
        child = subprocess.Popen(
            [words[0], "-s", "--", *words[1:]], executable="/bin/sh", stdin=subprocess.PIPE
        )
        self._children.append(child)
        return child.pid

    def kill(self, vm: RunningVm) -> None:
        """As the kernel would."""
        child = next(child for child in self._children if child.pid == vm.pid)
        child.kill()
        child.wait()

    def wait(self, vm: RunningVm) -> int:
        """How it ended, once it has."""
        return next(child for child in self._children if child.pid == vm.pid).wait(20)

    def close(self) -> None:
        """Ends all that was started, and removes all that was made."""
        for vm in self._vms:
            vm.hang_up()
        for child in self._children:
            child.kill()
        for child in self._children:
            if child.stdin is not None:
                child.stdin.close()
            child.wait()
        for place in reversed(self._made):
            if place.is_relative_to("/sys"):
                _remove_group(place)
            elif place.is_symlink():
                place.unlink()
            else:
                shutil.rmtree(place, ignore_errors=True)

    def own_folder(self, path: Path) -> Path:
        """A folder of the host, and those above it that are not there."""
        for place in (*reversed(path.parents), path):
            if not place.exists():
                place.mkdir()
                self._made.append(place)
        return path

    def _run(self, command: Sequence[str], log: Path, group: str) -> subprocess.Popen[bytes]:
        if group:
            procs = Path(find_cgroup_mounts(HostRoot()).memory + group, "cgroup.procs")
            command = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(procs), *command]
        with log.open("wb") as output:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self._children.append(child)
        return child


def _remove_group(place: Path) -> None:
    # A child of virtiofsd ends a moment after its parent, and a process that was killed leaves its group later.
    def gone() -> bool:
        with contextlib.suppress(OSError):
            place.rmdir()
        return not place.exists()

    wait_for(gone, f"{place} is not removed", 10)


def file_memory(path: str = "/dev/shm", size: str = "512M") -> list[str]:
    return [
        *("-object", f"memory-backend-file,id=dimm1,size={size},mem-path={path},share=on"),
        *("-numa", "node,memdev=dimm1"),
    ]


def memfd_memory(size: str = "512M") -> list[str]:
    return ["-object", f"memory-backend-memfd,id=dimm1,size={size},share=on", "-numa", "node,memdev=dimm1"]
