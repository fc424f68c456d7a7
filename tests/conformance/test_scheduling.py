"""Pods that a real scheduler places by what the agent advertises, and that nothing kills."""

from __future__ import annotations

import json
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.cluster import SLOTS
from tests.conformance.nfd import read_features, set_ceiling
from tests.conformance.support import RESOURCE, RESTARTS, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conformance.cluster import Cluster
    from tests.conformance.support import RealNode

pytestmark = [pytest.mark.kubelet, pytest.mark.containerd]

OVERHEAD = "katacontainers.io/sandbox-overhead"
LABEL = "feature.node.kubernetes.io/runtime.kata"
ONE = {RESOURCE: "1"}
# With its default kubelet and scheduler count the overhead of a running pod twice (kubernetes/kubernetes#139627).
GATES = {"InPlacePodLevelResourcesVerticalScaling": False}


@pytest.fixture(scope="module", autouse=True)
def runtime_classes(cluster: Cluster, member: RealNode) -> None:
    """`kata` counts by its overhead; `kata-labelled` only goes where the label is."""
    member.feature_gates = GATES
    restart_kubelet(member)
    set_ceiling(member, SLOTS)
    for resource, count in read_features(member, ".ceiling").items():
        cluster.extend_node(resource, int(count))
    for name, scheduling in (("kata", {}), ("kata-labelled", {"nodeSelector": {LABEL: "true"}})):
        runtime_class: dict[str, Any] = {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": name},
            "handler": "kata",
            "overhead": {"podFixed": {"memory": "64Mi", OVERHEAD: "1"}},
        }
        if scheduling:
            runtime_class["scheduling"] = scheduling
        cluster.create("/apis/node.k8s.io/v1/runtimeclasses", runtime_class)
    wait_until(lambda: cluster.allocatable(OVERHEAD) == SLOTS, "kubelet has the ceiling in allocatable")


@pytest.fixture(autouse=True)
def tidy(cluster: Cluster, runtime_classes: None) -> Iterator[None]:
    """No pod outlives its test."""
    yield
    for name in cluster.pods():
        cluster.remove_pod(name)


def run(cluster: Cluster, *names: str) -> dict[str, str]:
    try:
        wait_until(lambda: set(names) <= set(cluster.containers()), f"{', '.join(names)} run", 60)
    except AssertionError as error:
        error.add_note(json.dumps({name: pod["status"] for name, pod in cluster.pods().items()}, indent=1))
        raise
    return cluster.containers()


def fill(cluster: Cluster, add: Callable[[str], None], resource: str) -> None:
    names = [f"pod-{number}" for number in range(SLOTS)]
    for name in names:
        add(name)
    run(cluster, *names)
    add("waits")
    wait_until(lambda: resource in cluster.why_pending("waits"), "the scheduler says why it waits")
    assert cluster.why_pending("waits").startswith(f"0/1 nodes are available: 1 Insufficient {resource}.")
    assert set(cluster.containers()) == set(names)
    cluster.remove_pod(names[0])
    run(cluster, "waits")


def test_slots_follow_health_and_the_agent_and_spare_what_runs(
    cluster: Cluster, member: RealNode, record_property: Callable[[str, object], None]
) -> None:
    # The first test: devices of pods that are gone count as used for a minute.
    cluster.add_pod("stays", limits=ONE)
    before = run(cluster, "stays")
    wait_until(lambda: member.status()["slots"]["in_use"] == 1, "the agent counts it")
    seconds: dict[str, list[float]] = {}
    changes: tuple[tuple[str, Callable[[], object], int], ...] = (
        ("/dev/kvm gone", member.kvm.unlink, 1),
        ("/dev/kvm back", lambda: member.kvm.symlink_to("/dev/kvm"), SLOTS),
        ("agent stopped", member.stop_agent, 0),
        ("agent started", member.start_agent, SLOTS),
    )
    for _ in range(3):
        for what, change, slots in changes:
            began = time.monotonic()
            change()
            wait_until(lambda there=slots: cluster.allocatable(RESOURCE) == there, what)  # type: ignore[misc]
            seconds.setdefault(what, []).append(time.monotonic() - began)
            expect_unhurt(cluster, before)
    for what, each in seconds.items():
        record_property(
            f"{what} → node allocatable at the API server, s", ", ".join(f"{x:.1f}" for x in sorted(each))
        )


def test_a_container_that_asks_waits_until_a_slot_is_free(cluster: Cluster, member: RealNode) -> None:
    fill(cluster, partial(cluster.add_pod, limits=ONE), RESOURCE)
    wait_until(lambda: member.status()["slots"]["in_use"] == SLOTS, "the agent counts them")


def test_a_runtime_class_is_counted_by_its_overhead_alone(cluster: Cluster, member: RealNode) -> None:
    before = member.status()["slots"]["in_use"]
    fill(cluster, partial(cluster.add_pod, runtime_class="kata"), OVERHEAD)
    assert cluster.pods()["waits"]["spec"]["overhead"][OVERHEAD] == "1"
    # No container asked: kubelet never called Allocate.
    assert member.status()["slots"]["in_use"] <= before


def start_both_kinds(cluster: Cluster) -> dict[str, str]:
    for number in range(2):
        cluster.add_pod(f"asks-{number}", limits=ONE)
        cluster.add_pod(f"overhead-{number}", runtime_class="kata")
    return run(cluster, "asks-0", "asks-1", "overhead-0", "overhead-1")


def expect_unhurt(cluster: Cluster, before: dict[str, str]) -> None:
    """All pods of before run on in the same containers."""
    pods = cluster.pods()
    for name, container in before.items():
        status = pods[name]["status"]
        assert status["phase"] == "Running", (name, status)
        assert [each["containerID"] for each in status["containerStatuses"]] == [container], name


def come_and_go(cluster: Cluster, count: int) -> int:
    """A new pod runs and ends; like its controller, tries again what kubelet refuses. Returns how many were refused.

    A kubelet that has just started still counts devices of pods that are gone, until it has heard from all sources of pods.
    """
    for attempt in range(5):
        name = f"new-{count}-{attempt}"
        if count % 2:
            cluster.add_pod(name, limits=ONE)
        else:
            cluster.add_pod(name, runtime_class="kata")
        wait_until(lambda pod=name: pod in cluster.containers() or cluster.reason(pod), f"{name} runs", 60)  # type: ignore[misc]
        refused = cluster.reason(name)
        cluster.remove_pod(name)
        if not refused:
            return attempt
        assert refused == "UnexpectedAdmissionError"
    raise AssertionError("kubelet refuses every new pod")


def restart_kubelet(member: RealNode, number: signal.Signals = signal.SIGTERM) -> None:
    registrations = member.status()["kubelet"]["registrations"]
    member.stop_kubelet(number)
    member.start_kubelet()
    wait_until(
        lambda: member.registered() and member.status()["kubelet"]["registrations"] > registrations,
        "registered again",
    )


def test_kubelet_restarts_kill_no_pod(
    cluster: Cluster, member: RealNode, record_property: Callable[[str, object], None]
) -> None:
    before = start_both_kinds(cluster)
    refused = 0
    for count in range(RESTARTS):
        restart_kubelet(member, signal.SIGKILL if count % 2 else signal.SIGTERM)
        if count % 5 == 0:
            refused += come_and_go(cluster, count)
        expect_unhurt(cluster, before)
    # What the last one would have killed is dead some seconds later.
    wait_until(lambda: set(before) <= set(member.pods()), "kubelet has admitted its pods again")
    time.sleep(3)
    expect_unhurt(cluster, before)
    record_property(f"new pods refused in {RESTARTS} kubelet restarts", refused)


def test_agent_restarts_kill_no_pod(cluster: Cluster, member: RealNode) -> None:
    before = start_both_kinds(cluster)
    for count in range(RESTARTS):
        member.stop_agent(signal.SIGTERM if count % 2 else signal.SIGKILL)
        member.start_agent()
        wait_until(member.registered, "registered again")
        if count % 5 == 0:
            come_and_go(cluster, count)
        expect_unhurt(cluster, before)
    # Its record keeps devices of pods that are gone for a minute.
    wait_until(lambda: member.status()["slots"]["in_use"] == 2, "the agent knows the devices in use", 200)
    expect_unhurt(cluster, before)


def test_a_label_that_lapses_kills_no_pod(cluster: Cluster, member: RealNode) -> None:
    labels = read_features(member, ".features")
    assert labels[LABEL] == "true"
    cluster.label_node({LABEL: labels[LABEL]})
    cluster.add_pod("labelled", runtime_class="kata-labelled")
    before = run(cluster, "labelled")
    cluster.label_node({LABEL: None})
    cluster.add_pod("late", runtime_class="kata-labelled")
    wait_until(lambda: "affinity" in cluster.why_pending("late"), "the scheduler misses the label")
    expect_unhurt(cluster, before)
    cluster.label_node({LABEL: "true"})
    run(cluster, "late")
    expect_unhurt(cluster, before)


def test_kubelet_that_restarts_without_the_label_kills_what_selects_by_it_and_nothing_else(
    cluster: Cluster, member: RealNode
) -> None:
    """Kubelet's own rule, and why docs/scheduling.md tells not to select by a label that can lapse."""
    cluster.label_node({LABEL: "true"})
    cluster.add_pod("labelled", runtime_class="kata-labelled")
    cluster.add_pod("counted", runtime_class="kata")
    cluster.add_pod("asks", limits=ONE)
    before = run(cluster, "labelled", "counted", "asks")
    del before["labelled"]
    cluster.label_node({LABEL: None})
    restart_kubelet(member)
    wait_until(lambda: cluster.reason("labelled") == "NodeAffinity", "kubelet has admitted its pods again")
    expect_unhurt(cluster, before)


def test_kubelets_own_gates_count_an_overhead_twice(cluster: Cluster, member: RealNode) -> None:
    """Kubernetes' fault (kubernetes/kubernetes#139627): when this fails it is mended, and docs/scheduling.md has to say so."""
    names = [f"pod-{number}" for number in range(SLOTS)]
    for name in names:
        cluster.add_pod(name, runtime_class="kata")
    before = run(cluster, *names)
    member.feature_gates = {}
    try:
        # The first one writes the overhead into the pods' status, the second one adds it to the overhead.
        restart_kubelet(member)
        wait_until(
            lambda: all("allocatedResources" in pod["status"] for pod in cluster.pods().values()),
            "kubelet has written the status",
        )
        expect_unhurt(cluster, before)
        restart_kubelet(member)
        wait_until(
            lambda: sorted(map(cluster.reason, names)) == ["", "", *[f"OutOf{OVERHEAD}"] * 2],
            "half of the pods are killed",
        )
    finally:
        member.feature_gates = GATES
        restart_kubelet(member)
