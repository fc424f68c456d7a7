"""The rules for Prometheus, by Prometheus' own tool: each alert fires where it should, and does not where it should not."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
CASES = Path(__file__).parent / "prometheus" / "rules_test.yaml"
RULES = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "rules.yaml").read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDS = {rule["record"]: rule for rule in RULES if "record" in rule}


def promtool(*arguments: str | Path, cwd: Path | None = None) -> str:
    command = ["promtool", *(str(argument) for argument in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.prometheus
def test_promtool_takes_the_rules() -> None:
    assert "SUCCESS" in promtool("check", "rules", "--lint=all", "--lint-fatal", PROMETHEUS / "rules.yaml")


@pytest.mark.prometheus
def test_each_alert_fires_where_it_should_and_only_there(tmp_path: Path) -> None:
    for path in (PROMETHEUS / "rules.yaml", CASES):
        shutil.copy(path, tmp_path)
    assert "SUCCESS" in promtool("test", "rules", CASES.name, cwd=tmp_path)


def test_each_alert_is_tried_on_a_bad_node_and_on_a_good_one() -> None:
    tried: dict[str, dict[str, Any]] = {
        case["name"]: case for case in yaml.safe_load(CASES.read_text())["tests"]
    }
    assert set(tried) - {"records"} == set(ALERTS)
    for name, case in tried.items():
        for checked in case.get("alert_rule_test", ()):
            assert checked["alertname"] == name
            assert [alert["exp_labels"]["instance"] for alert in checked["exp_alerts"]] == ["bad"]
        assert {"bad", "good"} <= set(re.findall(r'instance="(\w+)"', str(case["input_series"])))
    recorded = {test["expr"] for test in tried["records"]["promql_expr_test"]}
    assert recorded == set(RECORDS)


def test_the_operators_manifest_has_the_same_rules() -> None:
    def plain(path: Path) -> str:
        return "".join(
            line for line in path.read_text().splitlines(keepends=True) if not line.lstrip().startswith("#")
        )

    manifest = plain(PROMETHEUS / "prometheusrule.yaml").partition("\nspec:\n")[2]
    indented = "".join(f"  {line}" for line in plain(PROMETHEUS / "rules.yaml").splitlines(keepends=True))
    assert manifest == indented, "prometheusrule.yaml says in its first lines how it is made"


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_is_the_case_how_bad_it_is_and_where_to_read_on(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert "$labels.instance" in rule["annotations"]["summary"]
    page, _, heading = rule["annotations"]["runbook"].partition("#")
    assert heading == name.lower()
    assert re.search(rf"^### {name}$", (ROOT / page).read_text(), re.MULTILINE)


@pytest.mark.parametrize("rule", RULES, ids=[rule.get("alert") or rule["record"] for rule in RULES])
def test_a_rule_is_made_of_metrics_that_are_there(rule: dict[str, Any]) -> None:
    table = (ROOT / "docs" / "metrics.md").read_text()
    documented = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    names = set(re.findall(r"(?<![\w:])kata_node_agent_\w+", rule["expr"]))
    names |= set(re.findall(r"(?:instance|cluster):[\w:]+", rule["expr"]))
    assert names or "up{" in rule["expr"]
    assert names <= documented | set(RECORDS)
