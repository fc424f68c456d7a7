"""What is deployed for NFD and node-problem-detector is well-formed, and does what its comments say."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner

from kata_node_agent.cli.group import cli
from kata_node_agent.eligibility import Verdict, evaluate
from kata_node_agent.host.facts import NodeFacts
from kata_node_agent.publish.nfd import ceiling, node_features
from kata_node_agent.publish.nfd.text import RUNTIME_LABEL, compose
from tests.publish.nfd_model import Node, is_label_value, is_qualified_name, read_file, run_master

if TYPE_CHECKING:
    from collections.abc import Mapping

DEPLOY = Path(__file__).parents[2] / "deploy"
UPSTREAM = DEPLOY / "nfd" / "nodefeaturerule.yaml"
OPENSHIFT = DEPLOY / "nfd" / "nodefeaturerule-openshift.yaml"
NPD = DEPLOY / "node-problem-detector" / "kata-node-agent.json"
NOW = 1_800_000_000

# Written from NFD's documentation, "Feature rule format" (0.20): field of a rule → its type. Not NFD's own schema.
RULE_FIELDS = {
    "name": str,
    "labels": dict,
    "labelsTemplate": str,
    "annotations": dict,
    "taints": list,
    "vars": dict,
    "varsTemplate": str,
    "extendedResources": dict,
    "matchFeatures": list,
    "matchAny": list,
}
VALUES_OF_OPERATOR = {
    "In": range(1, 100),
    "NotIn": range(1, 100),
    "InRegexp": range(1, 100),
    "Exists": range(1),
    "DoesNotExist": range(1),
    "Gt": range(1, 2),
    "Ge": range(1, 2),
    "Lt": range(1, 2),
    "Le": range(1, 2),
    "GtLt": range(2, 3),
    "GeLe": range(2, 3),
    "IsTrue": range(1),
    "IsFalse": range(1),
}
# Written from node-problem-detector's documentation, "Custom Plugin Monitor": key → type.
NPD_FIELDS = {
    "plugin": str,
    "pluginConfig": dict,
    "source": str,
    "metricsReporting": bool,
    "conditions": list,
    "rules": list,
}
NPD_PLUGIN_FIELDS = {
    "invoke_interval": str,
    "timeout": str,
    "max_output_length": int,
    "concurrency": int,
    "enable_message_change_based_condition_update": bool,
    "skip_initial_status": bool,
}
NPD_RULE_FIELDS = {
    "type": str,
    "condition": str,
    "reason": str,
    "path": str,
    "args": list,
    "timeout": str,
    "invoke_interval": str,
}

# Rules of others that make the same label by CPU flags and modules, under the names they are found with.
OTHERS = [
    {
        "metadata": {"name": name},
        "spec": {
            "rules": [
                {
                    "name": "runtime.kata",
                    "labels": {RUNTIME_LABEL: "true"},
                    "matchFeatures": [
                        {"feature": "cpu.cpuid", "matchExpressions": {"VMX": {"op": "Exists"}}}
                    ],
                }
            ]
        },
    }
    for name in ("osc-rules", "tdx-features", "coco-tee-detection", "runtime.kata")
]


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def check_fields(value: Mapping[str, object], fields: Mapping[str, type]) -> None:
    for name, item in value.items():
        assert name in fields, f"no such field: {name}"
        assert isinstance(item, fields[name]), f"{name} is no {fields[name].__name__}"


@pytest.mark.parametrize("path", [UPSTREAM, OPENSHIFT], ids=lambda path: path.stem)
def test_the_rules_have_the_documented_structure(path: Path) -> None:
    document = load(path)
    assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
    assert document["kind"] == "NodeFeatureRule"
    assert set(document["spec"]) == {"rules"}
    for rule in document["spec"]["rules"]:
        check_fields(rule, RULE_FIELDS)
        for name, value in rule.get("labels", {}).items():
            assert is_qualified_name(name)
            assert is_label_value(value)
        for taint in rule.get("taints", ()):
            assert set(taint) <= {"key", "value", "effect"}
            assert taint["effect"] in {"NoSchedule", "PreferNoSchedule", "NoExecute"}
            assert is_qualified_name(taint["key"])
            assert not taint["key"].partition("/")[0].endswith("kubernetes.io")
        for name, value in rule.get("extendedResources", {}).items():
            assert is_qualified_name(name)
            assert re.fullmatch(r"@[a-z]+\.[a-z]+\..+|[0-9]+", value)
        for term in rule["matchFeatures"]:
            assert set(term) <= {"feature", "matchExpressions", "matchName"}
            assert len(term["feature"].split(".")) == 2
            for expression in term["matchExpressions"].values():
                assert set(expression) <= {"op", "value", "type"}
                assert len(expression.get("value", ())) in VALUES_OF_OPERATOR[expression["op"]]


def test_a_rule_without_a_condition_would_hold_on_every_node() -> None:
    assert all(rule["matchFeatures"] for rule in load(UPSTREAM)["spec"]["rules"])


def test_openshift_gets_the_same_rules_in_its_own_api_group() -> None:
    assert load(UPSTREAM)["spec"] == load(OPENSHIFT)["spec"]
    assert load(UPSTREAM)["metadata"]["name"] == load(OPENSHIFT)["metadata"]["name"]
    assert load(UPSTREAM)["apiVersion"] == "nfd.k8s-sigs.io/v1alpha1"
    assert load(OPENSHIFT)["apiVersion"] == "nfd.openshift.io/v1alpha1"


def node(verdict: Verdict | None, *, label: str = "auto", number: int | None = None, later: int = 0) -> Node:
    """A node on which others' rules say that it is fine, both in NFD's worker and in its master."""
    text = (
        "" if verdict is None else compose(node_features(verdict, NodeFacts(), label=label).body, NOW + 600)
    )
    local = read_file(text, NOW + later)
    static = read_file("" if number is None else ceiling.ceiling_text(number), NOW + later)
    # In the worker the local source (priority 20) overlays the custom one (10).
    worker = {RUNTIME_LABEL: "true"} | local.labels | static.labels
    return run_master(worker, local.features | static.features, [load(UPSTREAM), *OTHERS])


ELIGIBLE = Verdict("eligible", "openshift", ())
INELIGIBLE = Verdict("ineligible", "openshift", ())


def test_our_no_overlays_the_yes_of_every_other_rule() -> None:
    assert node(INELIGIBLE).labels[RUNTIME_LABEL] == "false"
    assert node(INELIGIBLE, label="never").labels[RUNTIME_LABEL] == "false"


def test_our_no_overlays_a_rule_in_the_workers_configuration_without_any_rule_of_ours() -> None:
    local = read_file(compose(node_features(INELIGIBLE, NodeFacts(), label="auto").body, NOW + 600), NOW)
    assert ({RUNTIME_LABEL: "true"} | local.labels)[RUNTIME_LABEL] == "false"


def test_an_eligible_node_has_the_label_and_no_taint() -> None:
    found = node(ELIGIBLE)
    assert found.labels[RUNTIME_LABEL] == "true"
    assert found.labels["katacontainers.io/eligible"] == "true"
    assert found.taints == []


def test_an_ineligible_node_is_tainted() -> None:
    assert node(INELIGIBLE).taints == [
        {"key": "katacontainers.io/ineligible", "value": "true", "effect": "NoSchedule"}
    ]


@pytest.mark.parametrize("later", [0, 601])
def test_where_the_agent_cannot_tell_or_is_silent_others_have_their_say_and_nothing_is_tainted(
    later: int,
) -> None:
    unknown = evaluate(NodeFacts(), profile="openshift")
    assert unknown.verdict == "unknown"
    for verdict in (unknown, None):
        found = node(verdict, later=later)
        assert found.labels[RUNTIME_LABEL] == "true"
        assert found.taints == []


@pytest.mark.parametrize(
    "verdict", [ELIGIBLE, INELIGIBLE, None], ids=lambda verdict: verdict and verdict.verdict
)
@pytest.mark.parametrize("later", [0, 601, 10_000_000])
def test_the_extended_resource_stays_whatever_becomes_of_the_node_and_of_the_agent(
    verdict: Verdict | None, later: int
) -> None:
    found = node(verdict, number=28, later=later)
    assert found.extended_resources == {"katacontainers.io/sandbox-overhead": "28"}
    assert "katacontainers.io/sandbox-overhead" not in found.labels


def test_without_a_ceiling_there_is_no_extended_resource() -> None:
    assert node(ELIGIBLE).extended_resources == {}


def seconds(text: str) -> int:
    match = re.fullmatch(r"([0-9]+)(s|m|h)", text)
    assert match, text
    return int(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def test_the_plugin_configuration_has_the_documented_structure() -> None:
    document = json.loads(NPD.read_text())
    check_fields(document, NPD_FIELDS)
    plugin = document["pluginConfig"]
    check_fields(plugin, NPD_PLUGIN_FIELDS)
    assert document["plugin"] == "custom"
    conditions = {condition["type"] for condition in document["conditions"]}
    for condition in document["conditions"]:
        assert set(condition) == {"type", "reason", "message"}
    for rule in document["rules"]:
        check_fields(rule, NPD_RULE_FIELDS)
        assert rule["type"] == "permanent"
        assert rule["condition"] in conditions
        assert Path(rule["path"]).is_absolute()
        assert seconds(rule["timeout"]) <= seconds(plugin["timeout"]) < seconds(plugin["invoke_interval"])


def test_a_new_reason_is_shown_though_the_condition_stays() -> None:
    assert json.loads(NPD.read_text())["pluginConfig"]["enable_message_change_based_condition_update"] is True


def test_the_plugin_answers_with_one_line_and_an_exit_code_that_node_problem_detector_knows(
    tmp_path: Path,
) -> None:
    rule = json.loads(NPD.read_text())["rules"][0]
    limit = json.loads(NPD.read_text())["pluginConfig"]["max_output_length"]
    snapshot = tmp_path / "node.json"
    for facts, expected in (('"arch": "sparc64"', 1), ('"kernel_release": "6.1"', 2)):
        snapshot.write_text(f'{{"schema": "kata-node-agent/snapshot/v1", {facts}}}')
        result = CliRunner().invoke(
            cli, [*rule["args"], "--snapshot", os.fspath(snapshot)], standalone_mode=False
        )
        assert result.return_value == expected
        assert 0 < len(result.output.strip()) <= limit
        assert result.output.count("\n") == 1
