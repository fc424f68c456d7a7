"""Recorded trees under tests/trees-kubelet: the settings, with origins, that are written by hand beside each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kata_node_agent.config.schema import KubeletConfig
from kata_node_agent.host.root import HostRoot
from kata_node_agent.nodeconfig import merge
from kata_node_agent.nodeconfig.memory import read_budget

TREES = Path(__file__).parents[1] / "trees-kubelet"
NAMES = sorted(path.name for path in TREES.iterdir() if path.is_dir())


@pytest.mark.parametrize("name", NAMES)
def test_settings_and_origins_are_those_written_beside(name: str) -> None:
    expected = json.loads((TREES / f"{name}.expected.json").read_text())
    budget, settings = read_budget(HostRoot(TREES / name), KubeletConfig())
    values = {
        key: [list(setting.value) if isinstance(setting.value, tuple) else setting.value, setting.origin]
        for key, setting in settings.values.items()
        if setting.origin != merge.DEFAULT_ORIGIN
    }
    assert values == expected["settings"]
    left = {key for key, setting in settings.values.items() if setting.origin == merge.DEFAULT_ORIGIN}
    assert left == set(merge.defaults()) - set(values) - set(expected["unset"])
    assert settings.origin == expected["file"]
    assert settings.problem == expected["problem"]
    assert [complaint.message for complaint in settings.complaints] == expected["complaints"]
    for key, number in expected["memory"].items():
        assert getattr(budget, key) == number, key


def test_every_tree_has_its_expectation() -> None:
    assert NAMES
    assert {path.name.removesuffix(".expected.json") for path in TREES.glob("*.json")} == set(NAMES)
