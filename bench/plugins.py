"""Brings up what is measured: a development kubelet with stamps, the real agent, and the bare plugin, in one short folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from bench.processes import ROOT, Child, agent_command, environment, program
from kata_node_agent.devkubelet.events import Event, Registered
from kata_node_agent.devkubelet.kubelet import DevKubelet
from kata_node_agent.devkubelet.listener import LeavingListener
from kata_node_agent.devkubelet.registration import Registration
from kata_node_agent.eligibility.profiles import PROFILES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    import grpc

    from kata_node_agent.pb import deviceplugin_pb2 as pb

TIMEOUT_SECONDS = 20.0
# After its registration the agent loads what need not be there before it.
SETTLE_SECONDS = 3.0
_TMPFS = "/dev/shm"
# The longest path below it takes 72 bytes, a Unix socket's at most 107.
_MAX_FOLDER_LENGTH = 30
# With the settings below a VM costs nothing worth mentioning: the node is full at `max_slots`, wherever this runs.
_CONFIG = """\
mode = "{mode}"
[device_plugin]
directory = "{folder}/device-plugins"
max_slots = {devices}
[kubelet]
pod_resources_socket = "{folder}/pod-resources/kubelet.sock"
[sandbox]
vm_memory = "{vm_memory}"
host_overhead = "{overhead}"
[eligibility]
profile = "upstream"
waive = [{waived}]
[nri]
socket = "{folder}/nri.sock"
[nfd]
publish = false
[events]
kernel = {events}
"""

_SETTINGS = {"mode": "enforce", "vm_memory": "1Mi", "overhead": "0"}


@contextmanager
def short_folder() -> Iterator[Path]:
    """A temporary folder whose path leaves room for a socket's name; in memory, as a node's run directory is."""
    usual = tempfile.gettempdir()
    if os.access(_TMPFS, os.W_OK):
        usual = _TMPFS
    folder = Path(tempfile.mkdtemp(prefix="kna-", dir=usual if len(usual) <= _MAX_FOLDER_LENGTH else "/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class StampedKubelet(DevKubelet):
    """A development kubelet that notes when its socket was about to appear, and when Register was called and done.

    All are `time.monotonic_ns`; 0 is not yet.
    """

    appears_ns = 0
    called_ns = 0
    done_ns = 0

    async def __aenter__(self) -> Self:
        def note(event: Event) -> None:
            if isinstance(event, Registered):
                self.done_ns = self.done_ns or time.monotonic_ns()

        _stamped[self.directory] = self
        self.log.listen(note)
        await self.start()
        return self

    def forget(self) -> None:
        """Waits for the next registration from now on."""
        self.called_ns = self.done_ns = 0

    async def registered(self, healthy: int) -> bool:
        """Waits until a plugin has registered and shows so many healthy devices; whether it did."""
        with contextlib.suppress(TimeoutError):
            await self.log.wait(lambda: self.done_ns > 0, TIMEOUT_SECONDS, "registration")
            await self.wait_for_devices(healthy, timeout_seconds=TIMEOUT_SECONDS)
            return True
        return False

    @property
    def register_ms(self) -> float:
        """From the socket's appearance to the call of Register, in milliseconds; only once it is registered."""
        assert 0 < self.appears_ns <= self.called_ns, "the stamps are not where the calls pass"
        return (self.called_ns - self.appears_ns) / 1e6

    def plugin_socket(self) -> Path:
        """Where the registered plugin serves."""
        return self.directory / self.endpoints()[-1]


# By the folder that they serve. The stamps are set where the calls pass: before the socket is bound, and first in Register.
_stamped: dict[Path, StampedKubelet] = {}
_listen, _register = LeavingListener.start, Registration.Register


async def _stamped_listen(self: LeavingListener) -> None:
    kubelet = _stamped.get(self.path.parent)
    if kubelet is not None:
        kubelet.called_ns = kubelet.done_ns = 0
        kubelet.appears_ns = time.monotonic_ns()
    await _listen(self)


async def _stamped_register(self: Registration, request: pb.RegisterRequest, context: Any) -> pb.Empty:
    kubelet = _stamped.get(self._directory)
    if kubelet is not None:
        kubelet.called_ns = kubelet.called_ns or time.monotonic_ns()
    return await _register(self, request, context)


LeavingListener.start = _stamped_listen  # type: ignore[method-assign]
Registration.Register = _stamped_register  # type: ignore[method-assign]


@asynccontextmanager
async def kubelet_in(folder: Path) -> AsyncIterator[StampedKubelet]:
    """A running development kubelet in its own folder."""
    folder.mkdir(exist_ok=True)
    async with StampedKubelet(folder / "device-plugins") as kubelet:
        yield kubelet


def agent(
    folder: Path,
    devices: int,
    *,
    everything: bool = False,
    more: str = "",
    start: Sequence[str] = (),
    **settings: str,
) -> Child:
    """Starts `kata-node-agent run` for the kubelet in a folder; its plugin path alone, or everything that a node gets.

    Where the node cannot run VMs (no /dev/kvm for us), all checks are made as ever, but the devices are healthy. `settings`
    are others than `_SETTINGS`, `more` is added to the configuration,
    `start` is how another command than this environment's is started.
    """
    config = folder / "config.toml"
    waived = ", ".join(f'"{name}"' for name in sorted(PROFILES["upstream"]))
    places = {"folder": folder, "devices": devices, "waived": waived, "events": str(everything).lower()}
    config.write_text(_CONFIG.format(**places, **(_SETTINGS | settings)) + more)
    folders = ("--run-dir", folder / "run", "--state-dir", folder / "state")
    command = [*(start or agent_command()), "run", "--config", *map(str, (config, *folders))]
    return Child(command, folder / "agent.log")


def bare(folder: Path, devices: int, poll_seconds: float = 0.0) -> Child:
    """Starts the bare plugin for the kubelet in a folder."""
    command = program("plugin", folder / "device-plugins", devices, poll_seconds)
    return Child(command, folder / "bare.log")


class Pair:
    """The agent and the bare plugin, each with a kubelet of its own, to be measured in turn.

    Attributes:
        kubelets: of the agent, of the bare plugin.
    """

    def __init__(self, kubelets: tuple[StampedKubelet, StampedKubelet], folders: tuple[Path, Path]) -> None:
        self.kubelets = kubelets
        self._folders = folders

    @asynccontextmanager
    async def running(
        self, devices: int, poll_seconds: float = 0.0, *, everything: bool = False
    ) -> AsyncIterator[tuple[Child, Child]]:
        """Both processes, registered.

        Raises:
            RuntimeError: one of them does not register; with what it said.
        """
        for kubelet in self.kubelets:
            kubelet.forget()
        children = (
            agent(self._folders[0], devices, everything=everything),
            bare(self._folders[1], devices, poll_seconds),
        )
        try:
            for kubelet, child in zip(self.kubelets, children, strict=True):
                if not await kubelet.registered(devices):
                    raise RuntimeError(f"not registered:\n{child.last_words()}")
            if everything:
                await asyncio.sleep(SETTLE_SECONDS)
            yield children
        finally:
            await asyncio.gather(*(child.stop() for child in children))


@asynccontextmanager
async def pair(folder: Path) -> AsyncIterator[Pair]:
    """Two kubelets without plugins yet."""
    ours, theirs = folder / "a", folder / "b"
    async with kubelet_in(ours) as first, kubelet_in(theirs) as second:
        yield Pair((first, second), (ours, theirs))


async def warm_up(cache: Path, folder: Path) -> None:
    """Runs everything once, so that nothing measured later is read from disk or compiled for the first time.

    Python's bytecode goes to a cache of the run. An installation has it beside the sources; in a checkout it may not
    be there, and may not be written, and then every start would compile the agent anew.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(cache)
    async with pair(folder) as plugins, plugins.running(1):
        pass
    for command in (agent_command("check"), [sys.executable, "-c", "pass"]):
        subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, check=False)


def allocate_call(channel: grpc.aio.Channel) -> Any:
    """The call Allocate over a channel."""
    from kata_node_agent.pb import deviceplugin_pb2_grpc

    glue: Any = deviceplugin_pb2_grpc  # generated, without types
    return glue.DevicePluginStub(channel).Allocate


def request_for(index: int) -> pb.AllocateRequest:
    """What kubelet sends for a container that wants one device."""
    from kata_node_agent.pb import deviceplugin_pb2

    part = deviceplugin_pb2.ContainerAllocateRequest(devices_ids=[f"kata-{index:06d}"])
    return deviceplugin_pb2.AllocateRequest(container_requests=[part])
