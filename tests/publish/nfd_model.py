"""What NFD makes of our files and rules, as its documentation tells it (customization guide, NFD 0.20).

A model for tests, of no more than we use: the local feature source, attribute features, five operators, and the order
in which labels overlay each other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

MAX_FILE_BYTES = 64 * 1024


@dataclass
class Local:
    """What the local source finds in a file."""

    features: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


def read_file(text: str, now: float) -> Local:
    """The local source. An unknown directive fails the test: NFD would log an error each minute."""
    found = Local()
    expired = no_label = no_feature = False
    if len(text.encode()) > MAX_FILE_BYTES:
        return found
    for line in (line.strip() for line in text.split("\n")):
        if line.startswith("# +"):
            name, _, value = line.removeprefix("# +").partition("=")
            if name == "expiry-time":
                moment = datetime.strptime(value.strip(), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
                expired = moment.timestamp() < now
            elif name == "no-label":
                no_label = True
            elif name == "no-feature":
                no_feature = True
            else:
                raise AssertionError(f"NFD knows no directive {name!r}")
        elif line and not line.startswith("#") and not expired:
            name, separator, value = line.partition("=")
            if not no_feature:
                found.features[name] = value if separator else "true"
            if not no_label:
                found.labels[name] = value if separator else "true"
            no_label = no_feature = False
    return found


def is_label_value(text: str) -> bool:
    """Kubernetes' rule for the value of a label."""
    return len(text) <= 63 and re.fullmatch(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?", text) is not None


def is_qualified_name(text: str) -> bool:
    """Kubernetes' rule for the name of a label, with the prefix that NFD demands."""
    domain, separator, name = text.partition("/")
    subdomain = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
    return (
        bool(separator)
        and len(domain) <= 253
        and re.fullmatch(subdomain, domain) is not None
        and 0 < len(name) <= 63
        and is_label_value(name)
    )


@dataclass
class Node:
    """What NFD's master makes of a node."""

    labels: dict[str, str] = field(default_factory=dict)
    taints: list[dict[str, str]] = field(default_factory=list)
    extended_resources: dict[str, str] = field(default_factory=dict)


def run_master(worker: dict[str, str], features: dict[str, str], objects: list[Any]) -> Node:
    """Labels of the worker, overlaid by those of all NodeFeatureRules in the order of their names."""
    node = Node(labels=dict(worker))
    for item in sorted(objects, key=lambda item: str(item["metadata"]["name"])):
        for rule in item["spec"]["rules"]:
            if all(_term_holds(term, features) for term in rule.get("matchFeatures", ())):
                node.labels |= rule.get("labels", {})
                node.taints += rule.get("taints", ())
                for name, value in rule.get("extendedResources", {}).items():
                    node.extended_resources[name] = _dynamic(value, features)
    return node


def _term_holds(term: dict[str, Any], features: dict[str, str]) -> bool:
    if term["feature"] != "local.feature":
        # A rule of others: in these tests its conditions hold.
        return True
    return all(
        _expression_holds(expression, features.get(name))
        for name, expression in term["matchExpressions"].items()
    )


def _expression_holds(expression: dict[str, Any], value: str | None) -> bool:
    answers = {
        "Exists": value is not None,
        "DoesNotExist": value is None,
        "IsTrue": value == "true",
        "IsFalse": value == "false",
        "In": value in expression.get("value", ()),
    }
    return answers[expression["op"]]


def _dynamic(value: str, features: dict[str, str]) -> str:
    if not value.startswith("@"):
        return value
    domain, feature, element = value[1:].split(".", 2)
    assert (domain, feature) == ("local", "feature")
    return features[element]
