import json

import pytest

from kata_node_agent.nodeconfig.kubelet import KubeletSettings, parse_kubelet_settings
from kata_node_agent.nodeconfig.validate import refusals

GIB = 2**30


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
            "enforceNodeAllocatable: [all]",
            'invalid configuration: option "all" specified for enforceNodeAllocatable (--enforce-node-allocatable)',
        ),
    ],
)
def test_what_kubelet_would_refuse_is_said_in_its_words(text: str, message: str) -> None:
    (complaint,) = refusals(settings_of(text), 32 * GIB)
    assert (complaint.reason, complaint.message) == ("KubeletWouldRefuse", message)


@pytest.mark.parametrize("threshold", ["0%", "100%", "10%", "100Mi"])
def test_what_kubelet_takes_is_not_complained_of(threshold: str) -> None:
    assert refusals(settings_of(f"evictionHard: {{memory.available: {threshold}}}"), 32 * GIB) == ()


def test_the_static_memory_manager_wants_its_sum_to_be_the_reservation() -> None:
    content = {
        "kind": "KubeletConfiguration",
        "memoryManagerPolicy": "Static",
        "systemReserved": {"memory": "1Gi"},
        "evictionHard": {"memory.available": "100Mi"},
        "reservedMemory": [{"numaNode": 0, "limits": {"memory": "1Gi"}}],
    }

    def said() -> list[str]:
        settings = parse_kubelet_settings(json.dumps(content).encode(), "f")
        return [complaint.message for complaint in refusals(settings, 32 << 30)]

    assert said() == [
        'the total amount "1Gi" of type "memory" is not equal to the value "1124Mi" determined by Node Allocatable feature'
    ]
    content["reservedMemory"] = [
        {"numaNode": 0, "limits": {"memory": "1Gi"}},
        {"numaNode": 1, "limits": {"memory": "100Mi", "hugepages-2Mi": "1Gi"}},
    ]
    assert said() == []
