"""What the features file says, and that NFD and Kubernetes take it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.eligibility import CheckResult, Verdict, evaluate
from kata_node_agent.host.cpuid import CpuRecord
from kata_node_agent.host.facts import NodeFacts
from kata_node_agent.host.kernel import Module
from kata_node_agent.publish.nfd import Feature, node_features
from kata_node_agent.publish.nfd.text import (
    RUNTIME_LABEL,
    compose,
    expiry,
    fitting,
    is_current,
    label_value,
    read_body,
)
from tests.publish.nfd_model import Local, is_label_value, is_qualified_name, read_file

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = 1_800_000_000
NOTHING = NodeFacts()


def read(verdict: Verdict, facts: NodeFacts = NOTHING, label: str = "auto", later: float = 0) -> Local:
    body = node_features(verdict, facts, label=label).body
    return read_file(compose(body, NOW + 600), NOW + later)


def test_an_eligible_node_of_profile_openshift_gets_the_label_that_the_operator_asks_for(
    judged: Callable[..., Verdict],
) -> None:
    local = read(judged("eligible"))
    assert local.labels == {RUNTIME_LABEL: "true", "katacontainers.io/eligible": "true"}


@pytest.mark.parametrize(
    ("label", "profile", "expected"),
    [
        ("auto", "openshift", "true"),
        ("auto", "upstream", None),
        ("always", "upstream", "true"),
        ("always", "openshift", "true"),
        ("never", "openshift", None),
    ],
)
def test_the_setting_and_the_profile_decide_whether_the_label_is_ours(
    judged: Callable[..., Verdict], label: str, profile: str, expected: str | None
) -> None:
    assert read(judged("eligible", profile=profile), label=label).labels.get(RUNTIME_LABEL) == expected


def test_an_ineligible_node_says_false_and_why(judged: Callable[..., Verdict]) -> None:
    local = read(judged("ineligible", ("kvm.device", "KvmDeviceMissing"), ("os", "NotRhcos")))
    assert local.labels == {
        RUNTIME_LABEL: "false",
        "katacontainers.io/eligible": "false",
        "katacontainers.io/reason": "KvmDeviceMissing",
    }
    assert local.features["katacontainers.io/check"] == "kvm.device"


def test_where_nobody_can_tell_the_operators_label_is_left_to_others(judged: Callable[..., Verdict]) -> None:
    local = read(judged("unknown", ("kvm.open", "KvmOpenDenied")), label="always")
    assert local.labels == {
        "katacontainers.io/eligible": "unknown",
        "katacontainers.io/reason": "KvmOpenDenied",
    }
    assert RUNTIME_LABEL not in local.features


def test_every_label_is_a_feature_for_rules_too(judged: Callable[..., Verdict]) -> None:
    local = read(judged("ineligible", ("os", "NotRhcos")))
    assert local.labels.items() <= local.features.items()


def test_nothing_is_believed_after_the_expiry_time(judged: Callable[..., Verdict]) -> None:
    assert read(judged("eligible"), later=599).labels
    assert read(judged("eligible"), later=601) == Local()


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        ({"kvm_intel": "Y"}, "true"),
        ({"kvm_amd": "1"}, "true"),
        ({"kvm_intel": "N"}, "false"),
        ({"kvm_amd": "0", "kvm_intel": "Y"}, "true"),
        ({"kvm_intel": "what?"}, None),
        ({"vhost": "Y"}, None),
        ({}, None),
    ],
)
def test_nested_is_what_kvm_says_of_it(
    judged: Callable[..., Verdict], modules: dict[str, str], expected: str | None
) -> None:
    facts = NodeFacts(
        modules={
            name: Module(name, builtin=False, parameters={"nested": value}) for name, value in modules.items()
        }
    )
    local = read(judged("eligible"), facts)
    assert local.features.get("katacontainers.io/nested") == expected
    assert "katacontainers.io/nested" not in local.labels


def test_confidential_abilities_are_features_and_no_labels(judged: Callable[..., Verdict]) -> None:
    # Leaf 0x8000001F, EAX: SEV bit 1, SEV-ES bit 3.
    leaves = {(0x80000000, 0): (0x8000001F, 0, 0, 0), (0x8000001F, 0): (0b1010, 0, 0, 0)}
    facts = NodeFacts(arch="x86_64", cpus=(CpuRecord(0, leaves),))
    local = read(judged("eligible"), facts)
    assert local.features["katacontainers.io/confidential.sev"] == "true"
    assert local.features["katacontainers.io/confidential.sev-es"] == "true"
    assert "katacontainers.io/confidential.sev-snp" not in local.features
    assert not [name for name in local.labels if "confidential" in name]


@pytest.mark.parametrize(("reason", "expected"), [("BareMetal", "true"), ("NestedVirtualization", "false")])
def test_bare_metal_is_told_where_it_is_known(reason: str, expected: str) -> None:
    status = "pass" if reason == "BareMetal" else "warn"
    check = CheckResult("cpu.bare-metal", status, False, reason, "", {}, "")  # type: ignore[arg-type]
    assert (
        read(Verdict("eligible", "upstream", (check,))).features["katacontainers.io/bare-metal"] == expected
    )


def test_what_is_not_known_is_not_said() -> None:
    verdict = evaluate(NOTHING, profile="openshift")
    features = node_features(verdict, NOTHING, label="auto")
    assert {feature.name.partition("/")[2] for feature in features.features} == {
        "eligible",
        "reason",
        "check",
        "profile",
    }
    assert features.left_out == ()


@given(st.text(max_size=200))
def test_any_text_becomes_a_valid_value_or_nothing(text: str) -> None:
    assert is_label_value(label_value(text))


@given(st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", fullmatch=True))
def test_a_valid_value_is_kept_as_it_is(text: str) -> None:
    assert label_value(text) == text


@given(
    st.lists(st.builds(Feature, name=st.text(max_size=300), value=st.text(max_size=100), label=st.booleans()))
)
def test_what_does_not_fit_is_left_out_and_said_and_never_becomes_a_line_of_its_own(
    features: list[Feature],
) -> None:
    fit = fitting(features)
    assert len(fit.features) + len(fit.left_out) == len(features)
    local = read_file(compose(fit.body, NOW + 600), NOW)
    assert local.features == {feature.name: feature.value for feature in fit.features}
    assert all(is_qualified_name(name) and is_label_value(value) for name, value in local.features.items())
    assert fit.body.count("# left out: ") >= len(fit.left_out)


@given(
    st.lists(st.builds(Feature, name=st.text(max_size=300), value=st.text(max_size=100), label=st.booleans()))
)
def test_a_body_is_read_as_it_was_written(features: list[Feature]) -> None:
    assert read_body(fitting(features).body) == fitting(features)


def test_a_value_that_would_smuggle_in_a_label_is_left_out() -> None:
    fit = fitting([Feature("katacontainers.io/reason", "x\nkatacontainers.io/eligible=true", label=True)])
    assert fit.features == ()
    assert fit.left_out == (
        "katacontainers.io/reason: 'x?katacontainers.io/eligible=true' is no valid value",
    )


@given(st.text(), st.integers(0, 4_000_000_000))
def test_the_expiry_time_is_read_as_it_was_written(body: str, expires: int) -> None:
    assert expiry(compose(body, expires)) == expires


@given(st.text())
def test_any_text_may_be_asked_for_its_expiry(text: str) -> None:
    expiry(text)
    expiry(f"# +expiry-time={text}")


def test_a_time_without_a_zone_is_no_expiry_time() -> None:
    assert expiry("# +expiry-time=2026-01-01T00:00:00") is None


@pytest.mark.parametrize(
    ("age", "current"),
    [(0, True), (199, True), (201, False), (600, False), (7200, False), (-1, False), (-7200, False)],
)
def test_a_file_is_refreshed_after_a_third_of_its_life_or_when_the_clock_was_set_back(
    age: int, current: bool
) -> None:
    text = compose("a/b=c\n", NOW + 600)
    assert is_current(text, "a/b=c\n", lifetime_seconds=600, now=NOW + age) is current


def test_a_file_that_says_something_else_is_not_current() -> None:
    text = compose("a/b=c\n", NOW + 600)
    assert not is_current(text, "a/b=d\n", lifetime_seconds=600, now=NOW)
    assert not is_current(text + "a/b=d\n", "a/b=c\n", lifetime_seconds=600, now=NOW)
    assert not is_current("", "a/b=c\n", lifetime_seconds=600, now=NOW)


def test_a_shorter_lifetime_takes_effect_at_once() -> None:
    assert not is_current(compose("", NOW + 600), "", lifetime_seconds=300, now=NOW)
