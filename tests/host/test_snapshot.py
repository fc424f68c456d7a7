from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from kata_node_agent.eligibility import evaluate
from kata_node_agent.errors import HostError
from kata_node_agent.host.cpuid import CpuRecord
from kata_node_agent.host.devices import DeviceNode
from kata_node_agent.host.facts import NodeFacts, collect
from kata_node_agent.host.kvm import KvmFacts, KvmOutcome
from kata_node_agent.host.msr import MsrReading
from kata_node_agent.host.root import HostRoot
from kata_node_agent.host.snapshot import MAX_BYTES, SCHEMA, read_snapshot, write_snapshot

TREES = Path(__file__).parents[1] / "trees"


def document(**fields: Any) -> bytes:
    return json.dumps({"schema": SCHEMA, **fields}).encode()


@pytest.mark.parametrize("tree", sorted(path.name for path in TREES.iterdir()))
def test_a_snapshot_holds_all_facts(tree: str) -> None:
    facts = collect(HostRoot(TREES / tree))
    again = read_snapshot(write_snapshot(facts).encode())
    assert again == facts
    for profile in ("openshift", "upstream", None):
        assert json.dumps(evaluate(again, profile=profile).to_json()) == json.dumps(
            evaluate(facts, profile=profile).to_json()
        )


def test_every_kind_of_fact_comes_back() -> None:
    facts = NodeFacts(
        arch="x86_64",
        cpus=(
            CpuRecord(0, {(0, 0): (1, 2, 3, 0xFFFFFFFF), (7, 1): (0, 0, 0, 0)}),
            CpuRecord(3, None, "not ours"),
        ),
        msrs=(MsrReading(0x3A, 5, (0, 1)),),
        kvm=KvmFacts(
            DeviceNode("/dev/kvm", "char", 10, 232, 0o660, 0, 36),
            KvmOutcome("run", 110, 12, 10, "KVM_EXIT_INTR", capabilities={"irqchip": 1}),
        ),
        allocatable_bytes=1 << 40,
    )
    assert read_snapshot(write_snapshot(facts).encode()) == facts


def test_the_documented_shape_is_read() -> None:
    facts = read_snapshot(
        document(arch="x86_64", cpus=[{"cpu": 0, "leaves": {"0x00000007.1": ["0x1", "0x2", "0x3", "0x4"]}}])
    )
    assert facts == NodeFacts(arch="x86_64", cpus=(CpuRecord(0, {(7, 1): (1, 2, 3, 4)}),))


def test_what_a_later_version_adds_is_ignored() -> None:
    facts = read_snapshot(
        document(
            arch="x86_64",
            future={"a": [1]},
            os={"id": "rhcos", "flavour": 7},
            cpus=[{"cpu": 0, "microcode": 1, "leaves": {"later": []}}],
        )
    )
    assert facts.os is not None
    assert facts.os.family == "rhcos"
    assert facts.cpus == (CpuRecord(0, {}),)


def test_missing_facts_are_missing() -> None:
    assert read_snapshot(document()) == NodeFacts()
    assert evaluate(read_snapshot(document()), profile=None).verdict == "unknown"
    assert read_snapshot(document(memory=None, cpus=None)) == NodeFacts()


def test_a_later_minor_schema_is_read_and_a_later_major_refused() -> None:
    assert read_snapshot(b'{"schema": "kata-node-agent/snapshot/v1.4"}') == NodeFacts()
    with pytest.raises(HostError) as caught:
        read_snapshot(b'{"schema": "kata-node-agent/snapshot/v2"}')
    assert caught.value.reason == "SnapshotTooNew"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"text"',
        b"\xff\xfe\x00",
        b"{}",
        b'{"schema": 1}',
        b'{"schema": "kata-node-agent/verdict/v1"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"schema": ' + b"9" * 5000 + b"}",
        b" " * (MAX_BYTES + 1),
        document(arch=7),
        document(arch=["x86_64"]),
        document(cpus={}),
        document(cpus=[1]),
        document(cpus=[{"cpu": "0"}]),
        document(cpus=[{"cpu": 0, "problem": 1}]),
        document(cpus=[{"cpu": 0, "leaves": []}]),
        document(cpus=[{"cpu": 0, "leaves": {"0x1": ["0x1"]}}]),
        document(cpus=[{"cpu": 0, "leaves": {"0x1": ["0x1", "0x1", "0x1", "0x123456789"]}}]),
        document(cpus=[{"cpu": 0, "leaves": {"0x1": [1, 2, 3, 4]}}]),
        document(memory={}),
        document(memory={"total_bytes": "1"}),
        document(memory={"total_bytes": True}),
        document(memory={"total_bytes": 1.5}),
        document(memory={"total_bytes": 1 << 64}),
        document(memory={"total_bytes": float("inf")}),
        document(kvm={"node": {"path": "/dev/kvm"}}),
        document(
            kvm={
                "node": {"path": "/dev/kvm", "kind": "char"},
                "outcome": {"step": "done", "capabilities": [1]},
            }
        ),
        document(modules=[1]),
        document(modules={"kvm": {"name": "kvm", "builtin": "yes"}}),
        document(sysctls={"a": None}),
    ],
    ids=lambda data: data[:40].decode("latin-1"),
)
def test_garbage_is_one_typed_error_in_one_short_line(data: bytes) -> None:
    with pytest.raises(HostError) as caught:
        read_snapshot(data)
    assert caught.value.reason.startswith("Snapshot")
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300


def test_half_a_surrogate_pair_can_be_printed() -> None:
    facts = read_snapshot(b'{"schema": "kata-node-agent/snapshot/v1", "arch": "\\ud800"}')
    assert facts.arch == "?"


def test_every_fact_has_a_place_in_the_snapshot() -> None:
    names = {field.name for field in dataclasses.fields(NodeFacts)}
    facts = collect(HostRoot(TREES / "rhcos-4.12-intel"))
    written = json.loads(write_snapshot(facts))
    # What only a running machine has is not in a recorded tree.
    assert names - set(written) == {"cpus", "msrs", "allocatable_bytes"}
