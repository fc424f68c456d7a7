"""The agent and the real kubelet: what a stand-in cannot prove."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from kata_node_agent.pb import podresources_pb2, podresources_pb2_grpc
from tests.conformance.support import RESOURCE, RESTARTS, wait_until

if TYPE_CHECKING:
    from tests.conformance.support import RealNode

pytestmark = [pytest.mark.kubelet, pytest.mark.containerd]


def resources(node: RealNode) -> podresources_pb2_grpc.PodResourcesListerStub:
    channel = grpc.insecure_channel(f"unix:{node.folder}/root/pod-resources/kubelet.sock")
    return podresources_pb2_grpc.PodResourcesListerStub(channel)


def devices_of(node: RealNode) -> dict[str, list[str]]:
    answer = resources(node).List(podresources_pb2.ListPodResourcesRequest())
    return {
        pod.name.removesuffix("-node-a"): sorted(
            device
            for container in pod.containers
            for held in container.devices
            if held.resource_name == RESOURCE
            for device in held.device_ids
        )
        for pod in answer.pod_resources
    }


def registered_again(node: RealNode, before: int) -> bool:
    return node.registered() and node.status()["kubelet"]["registrations"] > before


def test_a_pod_gets_its_devices_and_runs_and_gives_them_back(node: RealNode) -> None:
    node.add_pod("one", devices=2)
    wait_until(lambda: node.running("one"), "the pod runs")
    held = devices_of(node)["one"]
    assert len(held) == 2
    wait_until(lambda: node.status()["slots"]["in_use"] == 2, "the agent counts both as used")
    node.remove_pod("one")
    wait_until(lambda: "one" not in node.pods(), "the pod is gone")


def test_a_pod_that_asks_for_more_than_fits_is_refused(node: RealNode) -> None:
    node.add_pod("greedy", devices=900)
    wait_until(lambda: node.pods().get("greedy", {}).get("phase") == "Failed", "the pod is refused")
    status = node.pods()["greedy"]
    assert RESOURCE in status["message"]
    node.remove_pod("greedy")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_pod_is_killed_while_kubelet_restarts_again_and_again(
    node: RealNode, number: signal.Signals
) -> None:
    name = f"stays-{number.name.lower()}"
    node.add_pod(name)
    wait_until(lambda: node.running(name), "the pod runs")
    container = node.running(name)
    held = devices_of(node)[name]
    for count in range(RESTARTS):
        before = node.status()["kubelet"]["registrations"]
        node.stop_kubelet(number)
        node.start_kubelet()
        wait_until(partial(registered_again, node, before), "registered again")
        wait_until(lambda: node.running(name) == container, "the pod still runs")
        if count % 3 == 0:
            # Not while kubelet is away: one that it admits before any plugin has registered fails for good.
            node.add_pod(f"new-{number.name.lower()}-{count}")
            wait_until(partial(node.running, f"new-{number.name.lower()}-{count}"), "a new pod runs")
            node.remove_pod(f"new-{number.name.lower()}-{count}")
    assert devices_of(node)[name] == held
    assert node.pods()[name]["containerStatuses"][0]["restartCount"] == 0
    node.remove_pod(name)
    wait_until(lambda: name not in node.pods(), "the pod is gone")


def test_no_pod_is_killed_while_the_agent_restarts_again_and_again(node: RealNode) -> None:
    node.add_pod("stays-agent")
    wait_until(lambda: node.running("stays-agent"), "the pod runs")
    container, held = node.running("stays-agent"), devices_of(node)["stays-agent"]
    for _ in range(RESTARTS):
        node.stop_agent(signal.SIGKILL)
        node.start_agent()
        wait_until(node.registered, "registered again")
        assert node.running("stays-agent") == container
    # Its record keeps devices of pods that are gone for a minute.
    wait_until(lambda: node.status()["slots"]["in_use"] == 1, "the new agent knows the device in use", 200)
    assert devices_of(node)["stays-agent"] == held
    node.remove_pod("stays-agent")
    wait_until(lambda: "stays-agent" not in node.pods(), "the pod is gone")


def test_grpc_health_probe_finds_the_agent_healthy(node: RealNode) -> None:
    probe = f"{os.environ['CONFORMANCE_BIN']}/grpc-health-probe"

    def serves(service: str) -> bool:
        command = [probe, f"-addr=127.0.0.1:{node.health_port}", f"-service={service}"]
        return subprocess.run(command, capture_output=True, timeout=20).returncode == 0

    wait_until(lambda: all(map(serves, ("", "device-plugin", "accounting"))), "healthy")
    assert not serves("nri")


def report(node: RealNode, form: str) -> Any:
    command = [sys.executable, "-m", "kata_node_agent", "report", "--format", form]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=30).stdout)


def test_report_and_kubelets_own_summary_agree(node: RealNode) -> None:
    document = report(node, "json")
    assert document["reserved"]["system"]["memory_bytes"] == 1 << 30
    assert document["eviction_hard"]["memory_available_bytes"] == 100 << 20
    pods = document["usage"]["pods"]
    # Kubelet's limit on its pods: capacity less what is reserved.
    assert pods["limit_bytes"] == document["capacity"]["memory_bytes"] - (1 << 30)
    time.sleep(1)
    ours, theirs = report(node, "summary")["node"], node.get("/stats/summary")["node"]

    def named(summary: Any, name: str) -> Any:
        return next(c for c in summary["systemContainers"] if c["name"] == name)["memory"]

    for key in ("availableBytes", "workingSetBytes"):
        # Sampled seconds apart on a machine that works.
        assert abs(ours["memory"][key] - theirs["memory"][key]) < 200 << 20, key
    mine, kubelets = named(ours, "pods"), named(theirs, "pods")
    assert (
        mine["availableBytes"] + mine["workingSetBytes"]
        == kubelets["availableBytes"] + kubelets["workingSetBytes"]
    )
    assert abs(mine["workingSetBytes"] - kubelets["workingSetBytes"]) < 32 << 20
