import math
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kata_node_agent.capacity.risks import Risk
from kata_node_agent.errors import HostError
from kata_node_agent.pb import agent_pb2 as pb
from kata_node_agent.publish.http import Request
from kata_node_agent.publish.metrics import MetricsPage, StatusCollector
from kata_node_agent.sandboxes.document import as_document
from kata_node_agent.sandboxes.model import Unbelieved
from tests.sandboxes.support import MIB, sandbox

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
STATUS = pb.Status(
    verdict="eligible",
    version="1",
    slots=pb.Slots(total=11, healthy=9, in_use=2, limited_by="draining"),
    kubelet=pb.Kubelet(registered=True, registrations=3),
    memory=pb.Memory(capacity_bytes=7),
    change_counts={"verdict": 5},
    mode="warn",
    started_unix_seconds=1.5e9,
    account=pb.Account(
        terms=[pb.Term(name="shared_memory", budget_bytes=9, committed_bytes=11, free_bytes=-2)],
        closed_by="draining",
        draining=True,
        sandboxes=4,
        share=1.5,
        decisions=[pb.DecisionCount(question="allocate", outcome="refused", count=6)],
    ),
    problems=[pb.Problem(reason="LedgerUnavailable"), *[pb.Problem(reason="PodFixedTooLow")] * 2],
    nri=pb.Nri(
        connected=True,
        unseen=2,
        decisions=[pb.NriDecisions(question="admit", outcome="refused", count=3)],
        answers=[pb.NriAnswers(up_to_seconds=0.5, count=6), pb.NriAnswers(up_to_seconds=math.inf, count=7)],
        answers_seconds_sum=0.25,
    ),
)


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def unknown_group(path: str) -> dict[str, Any]:
    names = ("usage", "working_set", "rss", "swap", "limit")
    group: dict[str, Any] = {"path": path, "cpu_microseconds": 2_500_000}
    group |= {f"{name}_bytes": 11 for name in names}
    return group | {f"{name}_pressure_percent": 50.0 for name in ("memory", "cpu", "io")}


def amounts(memory: int | None) -> dict[str, int | None]:
    return {"memory_bytes": memory, "cpu_millicores": 1500, "ephemeral_storage_bytes": None, "pids": None}


REPORT: dict[str, Any] = {
    "capacity": amounts(32),
    "reserved": {"system": amounts(3), "kube": amounts(0)},
    "allocatable": amounts(29),
    "usage": {
        "system": unknown_group("/system.slice"),
        **dict.fromkeys(("root", "kubelet", "runtime", "pods", "kata_overhead")),
    },
    "available": {
        "memory_bytes": 5,
        "until_eviction_bytes": -1,
        **dict.fromkeys(("pods_memory_bytes", "pods_until_eviction_bytes", "mem_available_bytes")),
    },
    "findings": [
        {"reason": "EvictionUnderWay", "problem": True},
        {"reason": "EvictionUnderWay", "problem": True},
    ],
}


def unreadable() -> dict[str, Any]:
    raise HostError("/proc/meminfo: no usable MemTotal")


def sandboxes() -> dict[str, Any]:
    risk = Risk("ShmCeiling", "full", "grow it")
    fakes = [Unbelieved(7, "qemu of sandbox x", "it runs in a container")]
    both = [sandbox(), sandbox(id="b", pod=None, cost=None, charge=None)]
    return as_document(both, fakes, host_overhead_bytes=60 * MIB, risks={"a": [risk, risk]})


def scrape(
    status: pb.Status,
    report: Callable[[], dict[str, Any]] = lambda: REPORT,
    seen: Callable[[], dict[str, Any]] = sandboxes,
    *,
    each: bool = True,
) -> str:
    page = MetricsPage(StatusCollector(lambda: status, report, seen, lambda: each))
    return page(Request("/metrics")).body.decode()


def test_a_scrape_tells_the_status() -> None:
    text = scrape(STATUS)
    for line in (
        'kata_node_agent_verdict{verdict="eligible"} 1.0',
        'kata_node_agent_verdict{verdict="ineligible"} 0.0',
        'kata_node_agent_changes_total{what="verdict"} 5.0',
        'kata_node_agent_slots{state="in_use"} 2.0',
        "kata_node_agent_kubelet_registrations_total 3.0",
        'kata_node_agent_nri_decisions_total{outcome="refused",question="admit"} 3.0',
        'kata_node_agent_nri_let_through_total{how="unseen"} 2.0',
        'kata_node_agent_nri_answer_seconds_bucket{le="0.5"} 6.0',
        'kata_node_agent_nri_answer_seconds_bucket{le="+Inf"} 7.0',
        "kata_node_agent_nri_answer_seconds_count 7.0",
        "kata_node_agent_nri_answer_seconds_sum 0.25",
        'kata_node_agent_memory_bytes{part="capacity"} 7.0',
    ):
        assert line in text


def test_a_scrape_tells_the_account() -> None:
    text = scrape(STATUS)
    for line in (
        'kata_node_agent_mode{mode="warn"} 1.0',
        'kata_node_agent_mode{mode="enforce"} 0.0',
        'kata_node_agent_limited_by{limit="draining"} 1.0',
        'kata_node_agent_limited_by{limit="max_slots"} 0.0',
        'kata_node_agent_closed{reason="draining"} 1.0',
        'kata_node_agent_closed{reason="memory_pressure"} 0.0',
        "kata_node_agent_draining 1.0",
        'kata_node_agent_account_budget_bytes{term="shared_memory"} 9.0',
        'kata_node_agent_account_committed_bytes{term="shared_memory"} 11.0',
        'kata_node_agent_account_free_bytes{term="shared_memory"} -2.0',
        "kata_node_agent_account_sandboxes 4.0",
        "kata_node_agent_account_share_ratio 1.5",
        'kata_node_agent_account_decisions_total{outcome="refused",question="allocate"} 6.0',
        'kata_node_agent_problem{reason="PodFixedTooLow"} 2.0',
        "kata_node_agent_problems 3.0",
    ):
        assert f"\n{line}\n" in text


def test_an_open_node_is_closed_for_no_reason_and_a_new_limit_is_shown_all_the_same() -> None:
    text = scrape(pb.Status(slots=pb.Slots(limited_by="moon")))
    assert 'kata_node_agent_limited_by{limit="moon"} 1.0' in text
    assert re.findall(r"kata_node_agent_closed.* 1\.0", text) == []


def test_a_scrape_tells_the_report_and_leaves_out_what_is_not_known() -> None:
    text = scrape(STATUS)
    for line in (
        'kata_node_agent_node_bytes{part="allocatable",resource="memory"} 29.0',
        'kata_node_agent_node_cpus{part="capacity"} 1.5',
        'kata_node_agent_group_memory_bytes{group="system",kind="working_set"} 11.0',
        'kata_node_agent_group_cpu_seconds_total{group="system"} 2.5',
        'kata_node_agent_group_stalled_ratio{group="system",resource="io"} 0.5',
        'kata_node_agent_until_eviction_bytes{signal="memory.available"} -1.0',
        'kata_node_agent_findings{problem="true",reason="EvictionUnderWay"} 1.0',
    ):
        assert line in text
    assert 'group="pods"' not in text
    assert "ephemeral_storage" not in text


def test_a_node_that_cannot_be_read_leaves_the_status_to_scrape() -> None:
    text = scrape(STATUS, unreadable)
    assert "kata_node_agent_verdict" in text
    assert "kata_node_agent_node_bytes" not in text


def test_the_sums_over_all_vms_are_of_what_is_known() -> None:
    """Both have 3 GiB; the cost of one, 360 MiB of which 60 beside the guest, is known."""
    text = scrape(STATUS, each=False)
    for line in (
        'kata_node_agent_sandboxes{vmm="qemu"} 2.0',
        f'kata_node_agent_sandboxes_bytes{{kind="vm_memory"}} {6144 * MIB:g}',
        f'kata_node_agent_sandboxes_bytes{{kind="resident"}} {360 * MIB:g}',
        f'kata_node_agent_sandboxes_bytes{{kind="commitment"}} {(2 * 3132) * MIB:g}',
        f'kata_node_agent_sandboxes_bytes{{kind="rss_sum"}} {480 * MIB:g}',
        'kata_node_agent_sandboxes_at_risk{reason="ShmCeiling"} 1.0',
        "kata_node_agent_sandboxes_unbelieved 1.0",
    ):
        name, _, value = line.rpartition(" ")
        (found,) = [
            float(words.rpartition(" ")[2]) for words in text.splitlines() if words.startswith(name + " ")
        ]
        assert found == pytest.approx(float(value), rel=1e-5)


def test_series_of_each_vm_can_be_switched_off() -> None:
    assert 'kata_node_agent_sandbox_bytes{kind="limit",pod="shop/web-0",sandbox="a"}' in scrape(STATUS)
    assert 'kata_node_agent_sandbox_risk{pod="shop/web-0",reason="ShmCeiling",sandbox="a"} 1.0' in scrape(
        STATUS
    )
    assert "kata_node_agent_sandbox_" not in scrape(STATUS, each=False)


def test_vms_that_cannot_be_read_leave_the_rest_to_scrape() -> None:
    text = scrape(STATUS, seen=unreadable)
    assert "kata_node_agent_node_bytes" in text
    assert "kata_node_agent_sandboxes" not in text


def test_the_table_in_the_documents_is_what_a_scrape_has() -> None:
    scraped = {
        # A histogram has several samples, and one line in the table.
        (
            family.name if family.type == "histogram" else sample.name,
            family.type if family.type != "unknown" else "",
            tuple(sorted(set(sample.labels) - {"le"})),
        )
        for family in text_string_to_metric_families(scrape(STATUS))
        for sample in family.samples
    }
    documented = set()
    for name, kind, labels in re.findall(
        r"^\| `(\w+)` \| (\w+) \|([`\w ]*)\|", DOCS.read_text(), re.MULTILINE
    ):
        # The text format has no type of its own for info.
        documented.add(
            (name, "gauge" if kind == "info" else kind, tuple(sorted(re.findall(r"`(\w+)`", labels))))
        )
    assert documented == scraped
