import json
import random
from pathlib import Path
from typing import Any

import pytest

from kata_node_agent.host.allocations import Amounts, read_allocations
from kata_node_agent.host.root import HostRoot

MIB = 1 << 20
UID = "0b1f0c4e-3a52-4a60-9d8e-000000000001"


def write(tmp_path: Path, entries: Any) -> HostRoot:
    # As kubelet writes it: a document whose data is a document again.
    data = json.dumps({"entries": entries})
    return write_text(tmp_path, json.dumps({"data": data, "checksum": 1234567}))


def write_text(tmp_path: Path, text: str) -> HostRoot:
    folder = tmp_path / "var/lib/kubelet"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "allocated_pods_state").write_text(text)
    return HostRoot(tmp_path)


WHOLE = {
    "ContainerResources": {
        "app": {
            "limits": {"cpu": "1500m", "memory": "6Gi", "hugepages-2Mi": "64Mi"},
            "requests": {"memory": "1Gi"},
        },
        "log": {},
    },
    "PodLevelResources": {"limits": {"memory": "8Gi"}},
}


def test_what_is_allocated_is_read_by_pod_and_container(tmp_path: Path) -> None:
    found = read_allocations(write(tmp_path, {UID: WHOLE}))
    assert found is not None
    pod = found[UID]
    assert pod.containers == {"app": Amounts(6144 * MIB, 1024 * MIB, 1500, 64 * MIB), "log": Amounts()}
    assert pod.pod == Amounts(8192 * MIB)


def test_no_pods_is_not_no_file(tmp_path: Path) -> None:
    assert read_allocations(HostRoot(tmp_path)) is None
    assert read_allocations(write(tmp_path, {})) == {}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"data": 7}', '{"data": "7"}', '{"allocationEntries": {}}', "[" * 100_000]
)
def test_another_format_is_no_data(tmp_path: Path, text: str) -> None:
    assert read_allocations(write_text(tmp_path, text)) is None


@pytest.mark.parametrize(
    "entry",
    [
        None,
        7,
        {},
        {"ContainerResources": []},
        {"ContainerResources": {"app": None}},
        {"ContainerResources": {"app": {"limits": {"memory": "much"}}}},
        {"ContainerResources": {"app": {"limits": {"cpu": 7}}}},
        {"ContainerResources": {"app": {"limits": ["memory"]}}},
    ],
)
def test_a_pod_that_is_not_understood_hides_no_other(tmp_path: Path, entry: Any) -> None:
    found = read_allocations(write(tmp_path, {"bad": entry, UID: WHOLE}))
    assert found is not None
    assert set(found) == {UID}


def test_damaged_files_never_raise(tmp_path: Path) -> None:
    root = write(tmp_path, {UID: WHOLE})
    path = tmp_path / "var/lib/kubelet/allocated_pods_state"
    whole, chance = path.read_bytes(), random.Random(11)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(chance.randrange(1, 5)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(bytes(damaged[: chance.randrange(len(damaged))]))
        assert read_allocations(root) is None
        path.write_bytes(bytes(damaged))
        read_allocations(root)
