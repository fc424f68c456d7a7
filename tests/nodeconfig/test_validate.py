import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.capacity.allocatable import Resources
from kata_node_agent.nodeconfig import merge
from kata_node_agent.nodeconfig.flags import parse_flags
from kata_node_agent.nodeconfig.kubelet import KubeletSettings, parse_kubelet_settings
from kata_node_agent.nodeconfig.validate import refusals

GIB = 2**30
NODE = Resources(32 * GIB, 8000, 100 * GIB)


def settings_of(text: str) -> KubeletSettings:
    return parse_kubelet_settings(f"kind: KubeletConfiguration\n{text}\n".encode(), "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "reservedSystemCPUs: 0-3\nsystemReservedCgroup: /system.slice",
            (
                "invalid configuration: can't use reservedSystemCPUs (--reserved-cpus) with systemReservedCgroup "
                "(--system-reserved-cgroup) or kubeReservedCgroup (--kube-reserved-cgroup)"
            ),
        ),
        (
            "reservedSystemCPUs: a",
            "invalid configuration: unable to parse reservedSystemCPUs (--reserved-cpus) a",
        ),
        (
            "systemReserved: {memory: 40Gi}",
            (
                'invalid Node Allocatable configuration. Resource "memory" has a reservation of 41060Mi but capacity of 32Gi. '
                "Expected capacity >= reservation."
            ),
        ),
        ("systemReserved: {hugepages-2Mi: 1Gi}", 'cannot reserve "hugepages-2Mi" resource'),
        ("evictionHard: {memory.available: '0'}", "eviction threshold memory.available must be positive: 0"),
        ("evictionHard: {memory.free: 1Gi}", "unrecognized eviction signal memory.free"),
        (
            "enforceNodeAllocatable: [pods, system-reserved]",
            (
                "invalid configuration: systemReservedCgroup (--system-reserved-cgroup) must be specified when "
                '"system-reserved" contained in enforceNodeAllocatable (--enforce-node-allocatable)'
            ),
        ),
        (
            "enforceNodeAllocatable: [none, pods]",
            (
                "invalid configuration: enforceNodeAllocatable (--enforce-node-allocatable) may not contain additional "
                'enforcements when "none" is specified'
            ),
        ),
        (
            "systemReserved: {cpu: '6'}\nkubeReserved: {cpu: 2500m, memory: 33Gi, ephemeral-storage: 91Gi}",
            (
                'invalid Node Allocatable configuration. Resource "cpu" has a reservation of 8500m but capacity of 8. '
                'Expected capacity >= reservation. Resource "ephemeral-storage" has a reservation of 108447924384 but '
                'capacity of 100Gi. Expected capacity >= reservation. Resource "memory" has a reservation of 33892Mi but '
                "capacity of 32Gi. Expected capacity >= reservation."
            ),
        ),
        (
            "enforceNodeAllocatable: [pods]\ncgroupsPerQOS: false",
            (
                'invalid configuration: cgroupsPerQOS (--cgroups-per-qos) must be set to true when "pods" contained in '
                "enforceNodeAllocatable (--enforce-node-allocatable)"
            ),
        ),
        (
            "enforceNodeAllocatable: [pods, pods]",
            (
                'invalid configuration: duplicated enforcements "pods" in enforceNodeAllocatable (--enforce-node-allocatable)'
            ),
        ),
        (
            "kubeReservedCgroup: /k\nenforceNodeAllocatable: [kube-reserved, kube-reserved-compressible]",
            (
                'invalid configuration: both "kube-reserved" and "kube-reserved-compressible" cannot be specified together in '
                "enforceNodeAllocatable (--enforce-node-allocatable)"
            ),
        ),
        (
            "systemCgroups: /system.slice",
            (
                "invalid configuration: systemCgroups (--system-cgroups) was specified and cgroupRoot (--cgroup-root) was "
                "not specified"
            ),
        ),
        ("maxPods: -1", "invalid configuration: maxPods (--max-pods) -1 must not be a negative number"),
        (
            "topologyManagerPolicy: strict",
            (
                'invalid configuration: topologyManagerPolicy (--topology-manager-policy) "strict" must be one of: '
                '["none" "best-effort" "restricted" "single-numa-node"]'
            ),
        ),
        (
            "topologyManagerScope: node",
            'invalid configuration: topologyManagerScope (--topology-manager-scope) "node" must be one of: ["container" "pod"]',
        ),
        ("memoryManagerPolicy: static", 'memoryManagerPolicy: unknown policy: "static"'),
        ("cpuManagerPolicy: static", "unable to determine reserved CPU resources for static policy"),
        (
            "reservedMemory: [{numaNode: 0, limits: {memory: 1Gi}}, {numaNode: 0, limits: {memory: 1Gi}}]",
            (
                "invalid configuration: the reserved memory has a duplicate value for NUMA node 0 and resource "
                '"memory"'
            ),
        ),
        (
            "reservedMemory: [{numaNode: 1, limits: {memory: '0'}}]",
            'invalid configuration: reserved memory may not be zero for NUMA node 1 and resource "memory"',
        ),
        (
            "reservedMemory: [{numaNode: 1, limits: {cpu: '1'}}]",
            (
                'invalid configuration: the limit type "cpu" for NUMA node 1 is not supported, only '
                "[memory hugepages-<HugePageSize>] is accepted"
            ),
        ),
        (
            "enforceNodeAllocatable: [all]",
            'invalid configuration: option "all" specified for enforceNodeAllocatable (--enforce-node-allocatable)',
        ),
    ],
)
def test_what_kubelet_would_refuse_is_said_in_its_words(text: str, message: str) -> None:
    (complaint,) = refusals(settings_of(text), NODE)
    assert (complaint.reason, complaint.message) == ("KubeletWouldRefuse", message)


@pytest.mark.parametrize("threshold", ["0%", "100%", "10%", "100Mi"])
def test_what_kubelet_takes_is_not_complained_of(threshold: str) -> None:
    assert refusals(settings_of(f"evictionHard: {{memory.available: {threshold}}}"), NODE) == ()


def test_the_static_memory_manager_wants_its_sum_to_be_the_reservation() -> None:
    content = {
        "kind": "KubeletConfiguration",
        "memoryManagerPolicy": "Static",
        "systemReserved": {"memory": "1Gi"},
        "evictionHard": {"memory.available": "100Mi"},
        "reservedMemory": [{"numaNode": 0, "limits": {"memory": "1Gi"}}],
    }

    def said(nodes: set[int] | None = None) -> list[str]:
        settings = parse_kubelet_settings(json.dumps(content).encode(), "f")
        return [complaint.message for complaint in refusals(settings, NODE, nodes)]

    assert said() == [
        'the total amount "1Gi" of type "memory" is not equal to the value "1124Mi" determined by Node Allocatable feature'
    ]
    content["reservedMemory"] = [
        {"numaNode": 0, "limits": {"memory": "1Gi"}},
        {"numaNode": 1, "limits": {"memory": "100Mi"}},
    ]
    assert said() == []
    assert said({0, 1}) == []
    assert said({0}) == [
        "the reserved memory configuration references a NUMA node 1 that does not exist on this machine"
    ]
    # Nothing else can reserve huge pages, so that the other side of the sum is always 0.
    content["reservedMemory"] = [
        {"numaNode": 0, "limits": {"memory": "1Gi"}},
        {"numaNode": 1, "limits": {"memory": "100Mi", "hugepages-2Mi": "1Gi"}},
    ]
    assert said() == [
        'the total amount "1Gi" of type "hugepages-2Mi" is not equal to the value "0" determined by Node Allocatable feature'
    ]


def test_what_the_node_has_is_not_judged_where_it_is_not_known() -> None:
    settings = settings_of(
        "systemReserved: {cpu: '600', ephemeral-storage: 1Ti, pid: '99999999', memory: 1Gi}"
    )
    assert refusals(settings, Resources(32 * GIB)) == ()
    # Of process ids kubelet's capacity knows nothing.
    assert refusals(settings, Resources(32 * GIB, 700_000, 2**50, 10)) == ()


entries = st.lists(st.text("0129:,=memoryhugepages-2MiG", max_size=30), max_size=4)


@given(entries, st.sampled_from(["Static", "None"]))
def test_any_reservation_given_as_a_flag_is_judged(texts: list[str], policy: str) -> None:
    flags = parse_flags([f"--reserved-memory={';'.join(texts)}", f"--memory-manager-policy={policy}"])
    values = merge.with_flags(merge.defaults(), flags.fields, 1)
    for complaint in refusals(KubeletSettings(values), NODE, {0}):
        assert complaint.message.isprintable()
