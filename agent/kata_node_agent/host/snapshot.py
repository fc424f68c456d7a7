"""All facts of a node as one JSON file, to be judged anywhere.

What names a machine or a person is not in the facts in the first place: no host name, serial number,
address or environment. A field that this version does not know is ignored; a fact that is missing stays
unknown.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any

from kata_node_agent.errors import HostError
from kata_node_agent.host.codec import decode, encode, integer, invalid, text
from kata_node_agent.host.cpuid import CpuRecord
from kata_node_agent.host.facts import NodeFacts

if TYPE_CHECKING:
    from kata_node_agent.host.cpuid import Leaves

FAMILY = "kata-node-agent/snapshot/v"
SCHEMA = f"{FAMILY}1"
# CPUID of 1,024 CPUs takes about 2 MiB.
MAX_BYTES = 8 << 20
_LEAF = re.compile(r"0x([0-9a-fA-F]{1,8})(?:\.([0-9]{1,5}))?")
_REGISTER = re.compile(r"0x([0-9a-fA-F]{1,8})")


def write_snapshot(facts: NodeFacts) -> str:
    """The facts as JSON, one fact a line, so that two of them compare well."""
    document: dict[str, Any] = {"schema": SCHEMA}
    for field in dataclasses.fields(facts):
        value = getattr(facts, field.name)
        if value is None or value == ():
            continue
        document[field.name] = (
            [_encode_cpu(record) for record in value] if field.name == "cpus" else encode(value)
        )
    lines = []
    for name, value in document.items():
        if name == "cpus":
            inner = ",\n".join(f"  {json.dumps(item)}" for item in value)
            lines.append(f' "{name}": [\n{inner}\n ]')
        else:
            lines.append(f' "{name}": {json.dumps(value)}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read_snapshot(data: bytes) -> NodeFacts:
    """The facts in a snapshot.

    Raises:
        HostError: it is too large, no JSON, no snapshot, one of a newer kind, or has values of wrong types.
    """
    if len(data) > MAX_BYTES:
        raise HostError(
            f"snapshot: larger than {MAX_BYTES >> 20} MiB",
            hint="name a file written by: kata-node-agent snapshot",
            reason="SnapshotInvalid",
        )
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        # ValueError: broken JSON, bytes of no encoding, numbers of thousands of digits.
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]
        raise HostError(
            f"snapshot: no JSON: {what}",
            hint="record it anew with: kata-node-agent snapshot",
            reason="SnapshotInvalid",
        ) from None
    _check_schema(document)
    hints = {field.name: field for field in dataclasses.fields(NodeFacts)}
    cpus = document.pop("cpus", None)
    facts: NodeFacts = decode(
        NodeFacts, {name: document[name] for name in hints if name in document}, "snapshot"
    )
    return dataclasses.replace(facts, cpus=_decode_cpus(cpus)) if cpus is not None else facts


def _check_schema(document: Any) -> None:
    schema = document.get("schema") if isinstance(document, dict) else None
    match = (
        re.fullmatch(re.escape(FAMILY) + r"([0-9]{1,4})(?:\.[0-9]{1,4})?", schema)
        if isinstance(schema, str)
        else None
    )
    if match is None:
        raise HostError(
            f"snapshot: it is none; its schema is not {SCHEMA}",
            hint="record one with: kata-node-agent snapshot",
            reason="SnapshotNotRecognized",
        )
    if int(match[1]) != 1:
        raise HostError(
            f"snapshot: schema {match[0]} is newer than what this version reads ({SCHEMA})",
            hint="use a newer kata-node-agent",
            reason="SnapshotTooNew",
        )


def _encode_cpu(record: CpuRecord) -> dict[str, Any]:
    encoded: dict[str, Any] = {"cpu": record.cpu}
    if record.leaves is not None:
        encoded["leaves"] = {
            f"0x{leaf:08x}" + (f".{subleaf}" if subleaf else ""): [
                f"0x{register:08x}" for register in registers
            ]
            for (leaf, subleaf), registers in sorted(record.leaves.items())
        }
    if record.problem:
        encoded["problem"] = record.problem
    return encoded


def _decode_cpus(value: Any) -> tuple[CpuRecord, ...]:
    if not isinstance(value, list):
        raise invalid("cpus", "is no array")
    records = []
    for number, item in enumerate(value):
        where = f"cpus[{number}]"
        if not isinstance(item, dict):
            raise invalid(where, "is no object")
        problem = item.get("problem", "")
        if not isinstance(problem, str):
            raise invalid(f"{where}.problem", "is no string")
        leaves = item.get("leaves")
        decoded = _decode_leaves(leaves, f"{where}.leaves") if leaves is not None else None
        records.append(CpuRecord(integer(item.get("cpu", number), f"{where}.cpu"), decoded, text(problem)))
    return tuple(records)


def _decode_leaves(value: Any, where: str) -> Leaves:
    if not isinstance(value, dict):
        raise invalid(where, "is no object")
    leaves: dict[tuple[int, int], tuple[int, int, int, int]] = {}
    for name, registers in value.items():
        match = _LEAF.fullmatch(name)
        if match is None:
            # A later version may name leaves in a way we do not know.
            continue
        if not isinstance(registers, list) or len(registers) != 4:
            raise invalid(f"{where}.{name}", "is no array of four registers")
        eax, ebx, ecx, edx = (_register(register, f"{where}.{name}") for register in registers)
        leaves[int(match[1], 16), int(match[2] or 0)] = (eax, ebx, ecx, edx)
    return leaves


def _register(value: Any, where: str) -> int:
    match = _REGISTER.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise invalid(where, "has a register that is not 0x and up to eight hexadecimal digits")
    return int(match[1], 16)
