from kata_node_agent.daemon.harm import worst_first
from kata_node_agent.daemon.node import Problem


def reasons(*given: str) -> list[str]:
    return [problem.reason for problem in worst_first(Problem(reason, reason, "") for reason in given)]


def test_what_kills_comes_before_what_is_only_late() -> None:
    assert reasons("HistoryNotKept", "NotRegistered", "MemoryOvercommitted") == [
        "MemoryOvercommitted",
        "NotRegistered",
        "HistoryNotKept",
    ]


def test_a_check_stands_before_kubelet_and_keeps_its_place_among_checks() -> None:
    assert reasons("KubeletAbsent", "KvmDeviceMissing", "VirtualizationMissing", "LedgerUnavailable") == [
        "LedgerUnavailable",
        "KvmDeviceMissing",
        "VirtualizationMissing",
        "KubeletAbsent",
    ]
