"""What Kata's shim does for a sandbox and its containers, with a real QEMU beside the containers that runc runs.

`KataShim.program` is what a container runtime calls in runc's place for the handler `kata`. With a sandbox it has a VM started and
waits for the guest; before a container, and when that is resized, it has memory plugged; after a sandbox it has the VM ended. The
VMs themselves are children of the test, which can so end them otherwise.
"""

from __future__ import annotations

import json
import socketserver
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.conformance.runtimes import RUNC
from tests.sandboxes.vms import MIB, Machine, RunningVm, file_memory, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping

BASE = 512 * MIB
# QEMU takes memory in pieces of this size on x86, and so does Kata.
_BLOCK = 128 * MIB
# How the runtimes say what a container is. Sources: containerd's pkg/cri/annotations, CRI-O's pkg/annotations.
_SANDBOX_ID = ("io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID")

_PROGRAM = """#!{python} -IS
import json, os, socket, subprocess, sys

words = sys.argv[1:]
verb = next((word for word in words if word in ("create", "update", "delete")), "")
if not verb:
    os.execv({runc!r}, [{runc!r}, *words])


def ask(**what):
    with socket.socket(socket.AF_UNIX) as shim:
        shim.connect({socket!r})
        shim.sendall(json.dumps({{"verb": verb, "id": words[-1], **what}}).encode() + b"\\n")
        answer = shim.makefile().readline().strip()
    if answer:
        sys.exit(answer)


if verb == "create":
    ask(bundle=words[words.index("--bundle") + 1])
    os.execv({runc!r}, [{runc!r}, *words])
given = sys.stdin.buffer.read() if verb == "update" else b""
if verb == "update":
    ask(limit=json.loads(given).get("memory", {{}}).get("limit") or 0)
done = subprocess.run([{runc!r}, *words], input=given)
if verb == "delete":
    ask()
sys.exit(done.returncode)
"""


@dataclass
class _Pod:
    """A VM with the limits of the containers in it, by their ids."""

    vm: RunningVm
    limits: dict[str, int] = field(default_factory=dict)
    plugged_bytes: int = 0


class KataShim:
    """Serves the program while it is entered.

    Attributes:
        program: to be called in runc's place.
        started: the VMs of all sandboxes that there were, by id; those that have ended, too.
        keeps: VMs go on when their sandbox is deleted, as when a shim was killed.
    """

    def __init__(self, folder: Path) -> None:
        self._machine = Machine(folder)
        self._pods: dict[str, _Pod] = {}
        self.started: dict[str, RunningVm] = {}
        self.keeps = False
        place = str(folder / "shim.sock")
        self._server = _Server(place, self)
        self.program = folder / "kata"
        self.program.write_text(_PROGRAM.format(python=sys.executable, runc=RUNC, socket=place))
        self.program.chmod(0o755)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._machine.close()

    def end(self, sandbox: str) -> None:
        """Ends a VM, as the kernel would."""
        self._machine.kill(self.started[sandbox])

    def answer(self, question: Mapping[str, Any]) -> None:
        """What the program asks for; an error is what Kata would say."""
        name = str(question["id"])
        if question["verb"] == "create":
            config = json.loads((Path(question["bundle"]) / "config.json").read_bytes())
            sandbox = next(config["annotations"][key] for key in _SANDBOX_ID if key in config["annotations"])
            if sandbox == name:
                self._boot(name)
            else:
                memory = config["linux"].get("resources", {}).get("memory", {})
                self._plug(self._pods[sandbox], name, memory.get("limit") or 0)
        elif question["verb"] == "update":
            self._plug(
                next(pod for pod in self._pods.values() if name in pod.limits), name, question["limit"]
            )
        elif self._pods.pop(name, None) is None:
            for pod in self._pods.values():
                pod.limits.pop(name, None)
        elif not self.keeps:
            self.end(name)

    def _boot(self, sandbox: str) -> None:
        vm = self._machine.start(
            file_memory(size=f"{BASE // MIB}M"),
            memory=f"{BASE // MIB}M,slots=10,maxmem=4G",
            sandbox_id=sandbox,
        )
        self.started[sandbox] = vm
        self._pods[sandbox] = _Pod(vm)
        wait_for(lambda: "guest is up" in vm.said, f"the guest: {vm.said[-500:]}")

    def _plug(self, pod: _Pod, container: str, limit: int) -> None:
        """Σ of the limits that there are now, in whole blocks; what was plugged stays."""
        pod.limits[container] = max(0, limit)
        missing = sum(pod.limits.values()) - pod.plugged_bytes
        if missing > 0:
            size = -(-missing // _BLOCK) * _BLOCK
            pod.vm.hotplug(f"mem{pod.plugged_bytes}", size)
            pod.plugged_bytes += size


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def __init__(self, place: str, shim: KataShim) -> None:
        self.shim = shim
        super().__init__(place, _Handler)


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        try:
            server.shim.answer(json.loads(self.rfile.readline()))
        except Exception as error:
            self.wfile.write(f"kata: {type(error).__name__}: {error}\n".replace("\n", " ").encode())
        self.wfile.write(b"\n")
