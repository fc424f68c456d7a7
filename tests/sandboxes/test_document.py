"""The document that command line, API and metrics share."""

from __future__ import annotations

import json

from kata_node_agent.capacity.risks import Risk
from kata_node_agent.sandboxes.document import as_document
from kata_node_agent.sandboxes.model import Unbelieved
from tests.sandboxes.support import MIB, sandbox


def test_what_the_contract_names_is_there_with_the_right_sums() -> None:
    risk = Risk("ShmCeiling", "full", "grow it")
    (found,) = as_document([sandbox()], host_overhead_bytes=99, risks={"a": [risk]})["sandboxes"]
    wanted = {
        "id": "a",
        "pod": "shop/web-0",
        "handler": "kata",
        "vmm": "qemu",
        "pid": 501,
        "base_bytes": 2048 * MIB,
        "hotplugged_bytes": 1024 * MIB,
        "vm_memory_bytes": 3072 * MIB,
        "resident_bytes": 360 * MIB,
        "host_overhead_bytes": 60 * MIB,
        "commitment_bytes": 3132 * MIB,
        "risks": [{"reason": "ShmCeiling", "message": "full", "remedy": "grow it"}],
    }
    assert {key: found[key] for key in wanted} == wanted


def test_the_document_is_json_with_null_for_what_is_not_known() -> None:
    unknown = sandbox(cost=None, charge=None, pod=None, handler=None)
    document = json.loads(json.dumps(as_document([unknown], host_overhead_bytes=60 * MIB)))
    assert document["schema"] == "kata-node-agent/sandboxes/v1"
    (found,) = document["sandboxes"]
    assert [found[key] for key in ("cost", "charge", "pod", "handler", "resident_bytes")] == [None] * 5
    assert found["commitment_bytes"] == (3072 + 60) * MIB


def test_a_commitment_of_the_account_counts_before_our_own_sum() -> None:
    (found,) = as_document([sandbox()], host_overhead_bytes=0, commitments={"a": 5000 * MIB})["sandboxes"]
    assert found["commitment_bytes"] == 5000 * MIB


def test_who_is_not_believed_is_in_it() -> None:
    document = as_document(
        [], [Unbelieved(7, "qemu of sandbox x", "it runs in a container")], host_overhead_bytes=0
    )
    assert document["unbelieved"] == [
        {"pid": 7, "claim": "qemu of sandbox x", "why": "it runs in a container"}
    ]
