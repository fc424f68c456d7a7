"""What the real kubelet does to pods when the agent is away: at its own restart, and at a boot. docs/rollout.md rests on this."""

from __future__ import annotations

import signal
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.conformance.cluster import SLOTS
from tests.conformance.support import RESOURCE, wait_until
from tests.conformance.test_scheduling import ONE, OVERHEAD, expect_unhurt, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conformance.cluster import Cluster
    from tests.conformance.support import RealNode

pytestmark = [pytest.mark.kubelet, pytest.mark.containerd]


@pytest.fixture(scope="module", autouse=True)
def runtime_class(cluster: Cluster, member: RealNode) -> None:
    """`kata` counts by its overhead."""
    cluster.extend_node(OVERHEAD, SLOTS)
    cluster.create(
        "/apis/node.k8s.io/v1/runtimeclasses",
        {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": "kata"},
            "handler": "kata",
            "overhead": {"podFixed": {OVERHEAD: "1"}},
        },
    )
    wait_until(lambda: cluster.allocatable(OVERHEAD) == SLOTS, "kubelet has the ceiling in allocatable")


@pytest.fixture(autouse=True)
def tidy(cluster: Cluster, member: RealNode) -> Iterator[None]:
    """No pod outlives its test, and an agent is there for the next."""
    yield
    for name in cluster.pods():
        cluster.remove_pod(name)
    if not member.registered():
        member.start_agent()
    wait_until(member.registered, "an agent is registered")


def test_a_kubelet_that_restarts_without_the_agent_spares_pods_that_run(
    cluster: Cluster, member: RealNode
) -> None:
    # The first test: devices of pods that are gone count as used for a minute.
    cluster.add_pod("stays", limits=ONE)
    cluster.add_pod("counted", runtime_class="kata")
    before = run(cluster, "stays", "counted")
    wait_until(lambda: member.status()["slots"]["in_use"] == 1, "the agent counts it")
    member.stop_agent()
    for number in (signal.SIGTERM, signal.SIGKILL):
        member.stop_kubelet(number)
        member.start_kubelet()
        wait_until(lambda: set(before) <= set(member.pods()), "kubelet has admitted its pods again")
        # What it would have killed is dead some seconds later.
        time.sleep(3)
        for name in before:
            wait_until(partial(member.running, name), "kubelet has looked at its pods")
        expect_unhurt(cluster, before)
        assert cluster.allocatable(RESOURCE) == 0
    member.start_agent()
    wait_until(member.registered, "the agent is registered")
    wait_until(lambda: member.status()["slots"]["in_use"] == 1, "the next agent knows the device in use")
    expect_unhurt(cluster, before)


def boot(member: RealNode, *, agent_first: bool) -> None:
    """All containers end; kubelet and, before it, the agent are started anew."""
    member.stop_kubelet()
    member.stop_agent()
    member.end_containers()
    if agent_first:
        member.start_agent()
        wait_until(lambda: member.status().get("verdict"), "the agent serves")
    member.start_kubelet()


def run_again(cluster: Cluster, before: dict[str, str], *names: str) -> bool:
    """Whether the pods run, in other containers than before."""
    now = cluster.containers()
    return all(name in now and now[name] != before[name] for name in names)


def test_at_a_boot_pods_run_again_where_the_agent_is_there_before_kubelet(
    cluster: Cluster, member: RealNode
) -> None:
    cluster.add_pod("asks", limits=ONE)
    cluster.add_pod("counted", runtime_class="kata")
    before = run(cluster, "asks", "counted")
    boot(member, agent_first=True)
    wait_until(lambda: run_again(cluster, before, "asks", "counted"), "both run again")


def test_at_a_boot_a_pod_that_holds_a_slot_fails_for_good_where_the_agent_is_late(
    cluster: Cluster, member: RealNode
) -> None:
    cluster.add_pod("asks", limits=ONE)
    cluster.add_pod("counted", runtime_class="kata")
    before = run(cluster, "asks", "counted")
    boot(member, agent_first=False)
    wait_until(lambda: cluster.reason("asks"), "kubelet refuses it")
    assert cluster.reason("asks") == "UnexpectedAdmissionError"
    assert RESOURCE in cluster.pods()["asks"]["status"]["message"]
    wait_until(lambda: run_again(cluster, before, "counted"), "what holds no slot runs again")
    member.start_agent()
    wait_until(member.registered, "the agent is registered")
    assert cluster.reason("asks") == "UnexpectedAdmissionError"
