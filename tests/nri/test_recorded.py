"""What the real runtimes sent, as our side understands it."""

from __future__ import annotations

import asyncio
import time

import pytest

from kata_node_agent.capacity.hotplug import VmSettings
from kata_node_agent.nri.connection import Call
from kata_node_agent.nri.events import events_for
from kata_node_agent.nri.facts import container_of, limits_of, sandbox_of
from kata_node_agent.nri.plugin import SERVICE, Plugin
from kata_node_agent.nri.sizing import size_with
from kata_node_agent.nri.tally import Tally
from kata_node_agent.pb import nri_pb2
from tests.nri.budget import Budget
from tests.nri.recorded import CONTAINERD, RECORDINGS, requests_in

MIB = 1 << 20


@pytest.fixture(scope="module")
def calls() -> dict[str, bytes]:
    return {call.method: call.payload for call in requests_in(CONTAINERD.read_bytes())}


def test_the_runtime_says_who_it_is(calls: dict[str, bytes]) -> None:
    message = nri_pb2.ConfigureRequest.FromString(calls["Configure"])
    assert (message.runtime_name, message.NRI_version) == ("containerd", "v0.12.3")
    assert message.request_timeout == 2000
    assert events_for(message.NRI_version).bit_length() == 12


def test_a_pod_comes_with_its_handler_limits_and_overhead(calls: dict[str, bytes]) -> None:
    sandbox = sandbox_of(nri_pb2.PodRequest.FromString(calls["RunPodSandbox"]).pod)
    assert sandbox.handler == "kata"
    assert sandbox.pod == f"default/{sandbox.uid.removeprefix('uid-')}"
    assert len(sandbox.id) == 64
    assert sandbox.limits.memory_bytes == 512 * MIB
    assert sandbox.overhead_bytes == 64 * MIB


def test_a_container_comes_with_its_limit_and_a_resize_with_the_new_one(calls: dict[str, bytes]) -> None:
    create = nri_pb2.ContainerRequest.FromString(calls["CreateContainer"])
    container = container_of(create.container)
    assert (container.name, container.sandbox) == ("main", create.pod.id)
    assert container.limits.memory_bytes == 256 * MIB
    update = nri_pb2.UpdateContainerRequest.FromString(calls["UpdateContainer"])
    assert container_of(update.container).id == container.id
    assert limits_of(update.linux_resources).memory_bytes == 512 * MIB
    whole = nri_pb2.UpdatePodSandboxRequest.FromString(calls["UpdatePodSandbox"])
    assert limits_of(whole.linux_resources).memory_bytes == 768 * MIB


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_runtime_tells_of_the_pod_and_its_container(name: str) -> None:
    told: dict[str, list[bytes]] = {}
    for call in requests_in(RECORDINGS[name].read_bytes()):
        told.setdefault(call.event, []).append(call.payload)
    configure = nri_pb2.ConfigureRequest.FromString(told["Configure"][0])
    # Only the newest knows more than these, and would have us out for asking.
    assert events_for(configure.NRI_version).bit_length() == (12 if name == "containerd" else 11)
    sandbox = sandbox_of(nri_pb2.PodRequest.FromString(pod_of(told["RunPodSandbox"][0], name)).pod)
    assert (sandbox.handler, sandbox.limits.memory_bytes) == ("kata", 512 * MIB)
    assert sandbox.overhead_bytes == 64 * MIB
    container = container_of(nri_pb2.ContainerRequest.FromString(told["CreateContainer"][0]).container)
    assert container.limits.memory_bytes == 256 * MIB
    update = nri_pb2.UpdateContainerRequest.FromString(told["UpdateContainer"][0])
    assert limits_of(update.linux_resources).memory_bytes == 512 * MIB
    assert {"StopContainer", "StopPodSandbox", "RemoveContainer", "RemovePodSandbox"} <= told.keys()


def pod_of(payload: bytes, name: str) -> bytes:
    """The request as it would be with a method of its own."""
    if name == "containerd":
        return payload
    pod = nri_pb2.StateChangeEvent.FromString(payload).pod
    return nri_pb2.PodRequest(pod=pod).SerializeToString()


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_whole_conversation_asks_the_account_what_it_should(name: str) -> None:
    async def run() -> list[tuple[str, str]]:
        gate = Budget(100 << 30)
        size = size_with(VmSettings(default_memory_bytes=256 * MIB))
        plugin = Plugin(gate, lambda _: size, Tally(), allow_undecided=lambda: True)
        for call in requests_in(RECORDINGS[name].read_bytes()):
            now = time.monotonic()
            await plugin.serve(Call(SERVICE, call.method, call.payload, now, now + 60))
        assert not gate.claims
        assert plugin.pods == 0
        return gate.asked

    asked = [question for question, _ in asyncio.run(run())]
    # The container, and its resize within the pod's limits, confirm; the pod's resize extends.
    resized = ["extend"] if name == "containerd" else []
    assert asked == ["synchronize", "admit", "confirm", "confirm", *resized, "release", "release"]
