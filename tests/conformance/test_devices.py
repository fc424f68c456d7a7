"""Devices that come and go under pods that run, and what kubelet asks of us: refusals, reconciliation, probes."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import pytest

from kata_node_agent.errors import HostError
from kata_node_agent.kubelet.podresources import allocatable_devices, held_devices
from kata_node_agent.pb import agent_pb2, agent_pb2_grpc, deviceplugin_pb2, deviceplugin_pb2_grpc
from tests.conformance.images import BUSYBOX
from tests.conformance.support import RESOURCE, RealNode, wait_until
from tests.devkubelet.support import TinyPlugin

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Coroutine, Iterator

pytestmark = [pytest.mark.kubelet, pytest.mark.containerd, pytest.mark.kvm]

Answer = TypeVar("Answer")

# Kubelet's gRPC probes go to the pod's address: with this name of the node it is on loopback.
HOST = "127.0.0.1"


class LoopbackNode(RealNode):
    """A real node whose pods have an address on loopback, with more questions to its kubelet."""

    def show_kvm(self) -> None:
        """The device is back, as the agent sees it."""
        self.kvm.symlink_to("/dev/kvm")

    def _spawn(self, name: str, command: list[Any], *, join: bool = False) -> subprocess.Popen[bytes]:
        more = [f"--hostname-override={HOST}"] if name == "kubelet" else []
        return super()._spawn(name, [*command, *more], join=join)

    def pods(self) -> dict[str, dict[str, Any]]:
        return {name.removesuffix(f"-{HOST}"): status for name, status in super().pods().items()}

    @property
    def pod_resources(self) -> Path:
        """Kubelet's socket for them."""
        return self.folder / "root/pod-resources/kubelet.sock"

    def allocatable(self) -> frozenset[str]:
        """The ids that kubelet would allocate."""
        return self._ask(allocatable_devices(self.pod_resources, RESOURCE))

    def held(self) -> set[int]:
        """The numbers of the devices that kubelet names for pods."""
        return set(self._ask(held_devices(self.pod_resources, RESOURCE)))

    def _ask(self, call: Coroutine[Any, Any, Answer]) -> Answer:
        try:
            return asyncio.run(call)
        except HostError as error:
            raise OSError(str(error)) from error

    def add_probed_pod(self, name: str, service: str) -> None:
        """A static pod that kubelet restarts when a health service of the agent's does not serve."""
        probe = {
            "grpc": {"port": self.health_port, "service": service},
            "periodSeconds": 1,
            "failureThreshold": 2,
        }
        container = {
            "name": "main",
            "image": BUSYBOX,
            "imagePullPolicy": "Never",
            "livenessProbe": probe,
        }
        self.put_pod(name, container)

    def restarts(self, name: str) -> int:
        """How often the pod's container has been started again."""
        states = self.pods()[name].get("containerStatuses", [])
        return int(states[0]["restartCount"]) if states else 0

    def health_of_devices(self, name: str) -> dict[str, str]:
        """What the pod's own status says of its devices."""
        (container,) = self.pods()[name]["containerStatuses"]
        return {
            entry["resourceID"]: entry["health"]
            for part in container.get("allocatedResourcesStatus", [])
            for entry in part["resources"]
        }


@pytest.fixture(scope="module")
def node() -> Iterator[LoopbackNode]:
    programs = Path(os.environ["CONFORMANCE_BIN"])
    with tempfile.TemporaryDirectory(prefix="kna-") as folder, LoopbackNode(Path(folder), programs) as real:
        real.start_kubelet()
        real.start_agent()
        try:
            wait_until(real.registered, "the agent is registered")
            wait_until(lambda: len(real.allocatable()) > 3, "kubelet has the devices")
            real.add_pod("stays")
            wait_until(lambda: real.running("stays"), "a pod runs")
            yield real
        except BaseException:
            print(real.log("kubelet"), real.log("agent"))
            raise


@pytest.fixture(autouse=True)
def _the_pod_stays(node: LoopbackNode) -> Iterator[None]:
    """Whatever happens to devices, the pod that holds one goes on in the same container with the same device."""
    before = node.running("stays"), node.held()
    assert before[0]
    yield
    assert (node.running("stays"), node.held()) == before
    assert node.restarts("stays") == 0


@contextmanager
def no_kvm(node: LoopbackNode) -> Iterator[None]:
    """The node is not eligible, and kubelet has been told; then it is again."""
    node.kvm.unlink()
    wait_until(lambda: node.status()["verdict"] == "ineligible", "the agent has noticed")
    wait_until(
        lambda: len(node.allocatable()) == node.status()["slots"]["in_use"],
        "only devices in use are healthy at kubelet",
    )
    try:
        yield
    finally:
        node.show_kvm()
    wait_until(lambda: len(node.allocatable()) > 3, "all devices are healthy at kubelet")


def registered_after(node: LoopbackNode, before: int) -> bool:
    """Whether there is another registration than so many before."""
    return int(node.status()["kubelet"]["registrations"]) > before


def failed(node: LoopbackNode, name: str) -> str:
    """Why a pod has failed."""
    wait_until(lambda: node.pods().get(name, {}).get("phase") == "Failed", f"pod {name} fails")
    status = node.pods()[name]
    node.remove_pod(name)
    return f"{status['reason']}: {status['message']}"


def test_devices_turn_unhealthy_and_back_and_the_one_in_use_stays_healthy(node: LoopbackNode) -> None:
    (held,) = node.held()
    before = node.allocatable()
    with no_kvm(node):
        assert node.allocatable() == {f"kata-{held:06d}"}
        assert node.health_of_devices("stays") == {f"kata-{held:06d}": "Healthy"}
        node.add_pod("too-late")
        assert RESOURCE in failed(node, "too-late")
    assert node.allocatable() == before
    assert node.health_of_devices("stays") == {f"kata-{held:06d}": "Healthy"}


def test_our_refusal_in_allocate_reaches_the_pods_status_word_for_word(node: LoopbackNode) -> None:
    """Kubelet asks for devices that we call unhealthy only if another plugin has called them healthy, and has left."""
    devices = tuple(sorted(node.allocatable()))
    said = ""
    with no_kvm(node):
        # The agent may see that plugin, and register again, before kubelet asks.
        for attempt in range(4):

            async def rival() -> None:
                async with TinyPlugin(node.plugins, "rival.sock", device_ids=devices):
                    async with asyncio.timeout(10):
                        while len(await allocatable_devices(node.pod_resources, RESOURCE)) == 1:
                            await asyncio.sleep(0.05)

            asyncio.run(rival())
            node.add_pod(f"refused-{attempt}")
            said = failed(node, f"refused-{attempt}")
            if "no room" in said:
                break
        wait_until(lambda: len(node.allocatable()) == 1, "kubelet has our list again", seconds=100)
    assert said.startswith("UnexpectedAdmissionError: Pod was rejected: Allocate failed due to rpc error: ")
    assert "code = ResourceExhausted desc = no room for another Kata VM on this node: not eligible" in said
    assert "/dev/kvm" in said


def test_what_is_in_use_never_drops_while_kubelet_restarts(
    node: LoopbackNode, record_property: Callable[[str, object], None]
) -> None:
    """Just after its start kubelet says for a moment that no pod holds anything."""
    seen: list[int] = []
    answers: list[int] = []

    def knows_its_pods() -> bool:
        answers.append(len(node.held()))
        return answers[-1] == 1

    stop = threading.Event()

    def watch() -> None:
        with grpc.insecure_channel(f"unix:{node.folder}/run/agent.sock") as channel:
            stub = agent_pb2_grpc.NodeAgentStub(channel)
            while not stop.is_set():
                seen.append(stub.GetStatus(agent_pb2.GetStatusRequest(), timeout=5).slots.in_use)
                stop.wait(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
            before = node.status()["kubelet"]["registrations"]
            node.stop_kubelet(number)
            node.start_kubelet()
            wait_until(knows_its_pods, "kubelet knows its pods again")
            wait_until(partial(registered_after, node, before), "registered again")
    finally:
        stop.set()
        watcher.join()
    assert len(seen) > 100
    assert set(seen) == {1}
    record_property("empty answers of pod resources after 3 kubelet starts", answers.count(0))


def test_a_pod_survives_that_kubelet_and_agent_are_killed_on_a_node_that_is_no_longer_eligible(
    node: LoopbackNode,
) -> None:
    with no_kvm(node):
        node.stop_agent(signal.SIGKILL)
        node.stop_kubelet(signal.SIGKILL)
        node.start_agent()
        node.start_kubelet()
        wait_until(node.registered, "registered again")
        wait_until(lambda: node.status()["slots"]["in_use"] == 1, "the new agent knows the device in use")
        wait_until(lambda: len(node.allocatable()) == 1, "kubelet sees it healthy, and no other")
        wait_until(partial(node.running, "stays"), "kubelet has looked at its pods")


def test_kubelet_does_not_ask_before_a_container_starts_and_one_that_does_gets_a_harmless_answer(
    node: LoopbackNode,
) -> None:
    (socket,) = node.plugins.glob("katacontainers.io_sandbox-*.sock")
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        stub = deviceplugin_pb2_grpc.DevicePluginStub(channel)
        options = stub.GetDevicePluginOptions(deviceplugin_pb2.Empty(), timeout=5)
        assert not options.pre_start_required
        in_use = node.status()["slots"]["in_use"]
        for ids in ([], ["kata-000000"], ["never-listed", "\0"]):
            request = deviceplugin_pb2.PreStartContainerRequest(devices_ids=ids)
            assert stub.PreStartContainer(request, timeout=5) == deviceplugin_pb2.PreStartContainerResponse()
    assert node.status()["slots"]["in_use"] == in_use
    node.add_pod("starts")
    wait_until(lambda: node.running("starts"), "a pod starts")
    node.remove_pod("starts")
    wait_until(lambda: "starts" not in node.pods(), "the pod is gone")


def test_kubelets_own_grpc_probe_restarts_a_container_only_when_the_service_does_not_serve(
    node: LoopbackNode,
) -> None:
    wait_until(node.registered, "registered")
    node.add_probed_pod("plugin", "device-plugin")
    node.add_probed_pod("node", "eligibility")
    for name in ("plugin", "node"):
        wait_until(partial(node.running, name), f"pod {name} runs")
    # What the pod before held may still count as in use.
    with no_kvm(node):
        # By then `plugin` has been probed as often as `node`.
        wait_until(lambda: node.restarts("node") >= 1, "a service that does not serve is noticed")
        assert node.restarts("plugin") == 0
    node.stop_agent()
    try:
        wait_until(lambda: node.restarts("plugin") >= 1, "an agent that does not answer is noticed")
    finally:
        node.start_agent()
        wait_until(node.registered, "registered again")
        for name in ("plugin", "node"):
            node.remove_pod(name)
