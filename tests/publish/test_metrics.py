import re
import socket
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kata_node_agent.errors import SocketError
from kata_node_agent.pb import agent_pb2 as pb
from kata_node_agent.publish.metrics import MetricsServer

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
STATUS = pb.Status(
    verdict="eligible",
    version="1",
    slots=pb.Slots(total=11, healthy=9, in_use=2),
    kubelet=pb.Kubelet(registered=True, registrations=3),
    memory=pb.Memory(capacity_bytes=7),
    change_counts={"verdict": 5},
)


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def scrape(status: pb.Status) -> str:
    address = free_address()
    server = MetricsServer(address, lambda: status)
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            return str(answer.read().decode())
    finally:
        server.stop()


def test_a_scrape_tells_the_status() -> None:
    text = scrape(STATUS)
    for line in (
        'kata_node_agent_verdict{verdict="eligible"} 1.0',
        'kata_node_agent_verdict{verdict="ineligible"} 0.0',
        'kata_node_agent_changes_total{what="verdict"} 5.0',
        'kata_node_agent_slots{state="in_use"} 2.0',
        "kata_node_agent_kubelet_registrations_total 3.0",
        'kata_node_agent_memory_bytes{part="capacity"} 7.0',
    ):
        assert line in text


def test_the_table_in_the_documents_is_what_a_scrape_has() -> None:
    scraped = {
        (sample.name, family.type if family.type != "unknown" else "", tuple(sorted(sample.labels)))
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


def test_a_port_that_is_taken_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SocketError, match="cannot listen"):
            MetricsServer(f"127.0.0.1:{taken.getsockname()[1]}", lambda: STATUS)
