"""What is said of the node, in NFD's format. Pure.

Source of the format: NFD's customization guide, "Local feature source": a line is ``name=value``; directives begin with
``# +``; ``# +expiry-time=`` holds for the lines after it, ``# +no-label`` for the one feature after it. Names and
values are those of Kubernetes labels, as NFD drops a label that does not fit.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass
from kata_node_agent.eligibility import confidential_abilities
from kata_node_agent.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kata_node_agent.eligibility import Verdict
    from kata_node_agent.host.facts import NodeFacts

FILE_NAME = "kata-node-agent.features"
# OpenShift's operator asks for this label when KataConfig says checkNodeEligibility.
RUNTIME_LABEL = "feature.node.kubernetes.io/runtime.kata"
PREFIX = "katacontainers.io/"
MAX_VALUE_LENGTH = 63
# What is left out is said with at most so many characters of it.
_MAX_SHOWN = 80

_HEADER = "# Written by kata-node-agent, which keeps it fresh. To remove it: kata-node-agent label remove\n"
_EXPIRY = re.compile(r"^# \+expiry-time=(.*)$", re.MULTILINE)
_NO_LABEL = "# +no-label"
_LEFT_OUT = "# left out: "
_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_DOMAIN_PART = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(?=.{{1,253}}/){_DOMAIN_PART}(\.{_DOMAIN_PART})*/{_VALUE.pattern}")
_SWITCHES = {"Y": "true", "y": "true", "1": "true", "N": "false", "n": "false", "0": "false"}


@dataclass(frozen=True, slots=True)
class Feature:
    """A line of the file. Every one is a feature that rules can use; ``label``: also a label of the node by itself."""

    name: str
    value: str
    label: bool


@dataclass(frozen=True, slots=True)
class NodeFeatures:
    """What can be said of the node, and what cannot: one line for each value that would be no valid label."""

    features: tuple[Feature, ...]
    left_out: tuple[str, ...] = ()

    @property
    def body(self) -> str:
        """The file without its expiry time: the same as long as there is nothing new to say."""
        lines = []
        for feature in self.features:
            if not feature.label:
                lines.append(_NO_LABEL)
            lines.append(f"{feature.name}={feature.value}")
        lines += [f"{_LEFT_OUT}{note}" for note in self.left_out]
        return "".join(f"{line}\n" for line in lines)


def read_body(body: str) -> NodeFeatures:
    """What a body of ours says: the reverse of `NodeFeatures.body`."""
    features, left_out, label = [], [], True
    for line in body.splitlines():
        if line.startswith(_LEFT_OUT):
            left_out.append(line.removeprefix(_LEFT_OUT))
        elif line == _NO_LABEL:
            label = False
        else:
            name, _, value = line.partition("=")
            features.append(Feature(name, value, label))
            label = True
    return NodeFeatures(tuple(features), tuple(left_out))


def node_features(verdict: Verdict, facts: NodeFacts, *, label: str) -> NodeFeatures:
    """What the file says of a node.

    Args:
        verdict: the judgement.
        facts: what it was judged by.
        label: ``always``; ``auto``: in profile openshift only; ``never``: whether the label that OpenShift's operator
            asks for is ours to set.
    """
    return fitting(_features(verdict, facts, label=label))


def fitting(features: Iterable[Feature]) -> NodeFeatures:
    """The features whose names and values Kubernetes takes, and a note for each of the others."""
    fit, left_out = [], []
    for feature in features:
        if not _NAME.fullmatch(feature.name):
            left_out.append(f"{_shown(feature.name)} is no valid name")
        elif not _VALUE.fullmatch(feature.value):
            left_out.append(f"{feature.name}: {_shown(feature.value)} is no valid value")
        else:
            fit.append(feature)
    return NodeFeatures(tuple(fit), tuple(left_out))


def label_value(text: str) -> str:
    """The text as a label's value: what does not fit becomes ``-``, at most 63 characters; empty where nothing is left."""
    safe = re.sub(r"[^-A-Za-z0-9_.]+", "-", text).lstrip("-_.")
    return safe[:MAX_VALUE_LENGTH].rstrip("-_.")


def compose(body: str, expires: int) -> str:
    """The whole file, valid until ``expires`` (Unix seconds)."""
    return f"{_HEADER}# +expiry-time={datetime.fromtimestamp(expires, UTC):%Y-%m-%dT%H:%M:%SZ}\n{body}"


def expiry(text: str) -> float | None:
    """When the content of a file lapses, in Unix seconds; ``None`` where it does not say so in a usable way."""
    match = _EXPIRY.search(text)
    if match is None:
        return None
    try:
        moment = datetime.fromisoformat(match[1].strip())
        return moment.timestamp() if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def is_current(text: str, body: str, *, lifetime_seconds: int, now: float) -> bool:
    """Whether a file says what it should, for long enough: it is to be refreshed when a third of its lifetime is over.

    An expiry time further away than a lifetime is not ours, or the clock was set back: such a file would outlive us.
    """
    until = expiry(text)
    if until is None or text != compose(body, int(until)):
        return False
    return lifetime_seconds * 2 / 3 <= until - now <= lifetime_seconds


def _features(verdict: Verdict, facts: NodeFacts, *, label: str) -> Iterator[Feature]:
    ours = label == "always" or (label == "auto" and verdict.profile == "openshift")
    # "false" rather than silence: other rules for this label look at CPU flags only, and one in the configuration of
    # NFD's worker would go on saying "true". Where we cannot tell we overrule nobody.
    if ours and verdict.verdict != "unknown":
        yield Feature(RUNTIME_LABEL, _word(verdict.verdict == "eligible"), label=True)
    yield Feature(
        f"{PREFIX}eligible",
        {"eligible": "true", "ineligible": "false"}.get(verdict.verdict, "unknown"),
        label=True,
    )
    if verdict.blocking:
        first = verdict.blocking[0]
        yield Feature(f"{PREFIX}reason", label_value(first.reason), label=True)
        yield Feature(f"{PREFIX}check", label_value(first.id), label=False)
    yield Feature(f"{PREFIX}profile", label_value(verdict.profile), label=False)
    place = next((check for check in verdict.checks if check.id == "cpu.bare-metal"), None)
    if place is not None and place.status not in {"unknown", "skip"}:
        yield Feature(f"{PREFIX}bare-metal", _word(place.reason == "BareMetal"), label=False)
    if nested := _nested(facts):
        yield Feature(f"{PREFIX}nested", nested, label=False)
    for ability in confidential_abilities(facts):
        yield Feature(f"{PREFIX}confidential.{ability}", "true", label=False)


def _nested(facts: NodeFacts) -> str:
    """Whether KVM lets a guest run guests of its own; empty where the kernel does not say."""
    modules = facts.modules or {}
    switches = {
        _SWITCHES.get(modules[name].parameters.get("nested", ""), "")
        for name in modules
        if name.startswith("kvm")
    }
    return "true" if "true" in switches else "false" if "false" in switches else ""


def _word(truth: bool) -> str:
    return "true" if truth else "false"


def _shown(text: str) -> str:
    """Text of unknown origin in one line of printable characters."""
    return repr(printable(text, _MAX_SHOWN))
