from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.advice.pod_overhead import HandlerUse, advise_overhead
from kata_node_agent.quantity import parse_bytes
from kata_node_agent.series import WINDOW_SECONDS, Observed

MIB = 1 << 20
GIB = 1 << 30
DAY = 24 * 3600.0


def observed(p99: int, days: float = 7.0, name: str = "x") -> Observed:
    return Observed(name, 100, 0.0, days * DAY + WINDOW_SECONDS, p99 // 2, p99 * 9 // 10, p99, p99 * 2)


OPENSHIFT = HandlerUse(
    "kata",
    beyond_bytes=2 * GIB,
    running=(350 * MIB,) * 10,
    pod_fixed_bytes=350 * MIB,
    pod_fixed_millicores=250,
)


def test_openshifts_default_leaves_most_of_a_vm_uncounted() -> None:
    found = advise_overhead(OPENSHIFT)
    # 2 GiB of default_memory, 60 MiB and a tenth for the processes, up to the next 16 MiB.
    assert (found.reason, found.need_bytes) == ("RaisePodFixed", 2128 * MIB)
    assert found.message == "raise podFixed of handler kata from 350Mi to 2128Mi"
    assert found.uncounted_bytes == 10 * (2 * GIB + 60 * MIB - 350 * MIB)
    assert "60Mi for the host's processes is assumed" in found.why
    assert "does not know of 1.7Gi, of the 10 that run of 17.2Gi" in found.why


def test_what_was_measured_counts_instead_of_what_is_assumed() -> None:
    use = replace(
        OPENSHIFT,
        host_overhead=observed(200 * MIB),
        host_millicores=observed(130),
        beyond=observed(2 * GIB + 100 * MIB),
    )
    found = advise_overhead(use)
    assert found.need_bytes == 2368 * MIB
    assert found.need_millicores == 150
    assert (
        "in 7 days the host's processes of a sandbox used p50 100Mi, p95 180Mi, p99 200Mi, at most 400Mi"
        in found.why
    )
    assert "VMs had up to 2.1Gi beyond their containers' limits" in found.why
    assert "look again" not in found.why
    assert "look again after a day" in advise_overhead(replace(use, host_overhead=observed(1, 0.1))).why


def test_little_history_counts_where_it_shows_more_than_is_assumed_and_nowhere_else() -> None:
    def little(amount: int) -> Observed:
        return Observed("x", 1, 0.0, float(WINDOW_SECONDS), amount, amount, amount, amount)

    low = advise_overhead(replace(OPENSHIFT, host_overhead=little(MIB), host_millicores=little(10)))
    assert (low.need_bytes, low.need_millicores) == (2128 * MIB, None)
    assert "60Mi is assumed: 10 minutes of history at most, and a figure needs 6 hours" in low.why
    assert "p99" not in low.why
    high = advise_overhead(replace(OPENSHIFT, host_overhead=little(200 * MIB)))
    assert high.need_bytes == 2272 * MIB
    assert "200Mi counts, which is more than is assumed" in high.why


@pytest.mark.parametrize(
    ("current", "reason"),
    [
        (None, "PodFixedNotSeen"),
        (2 * GIB + 60 * MIB - 1, "RaisePodFixed"),
        (2 * GIB + 60 * MIB, "PodFixedFits"),
        (2128 * MIB + 128 * MIB, "PodFixedFits"),
        (2128 * MIB + 128 * MIB + 1, "LowerPodFixed"),
    ],
)
def test_a_value_is_kept_where_it_covers_and_does_not_waste(current: int | None, reason: str) -> None:
    found = advise_overhead(replace(OPENSHIFT, pod_fixed_bytes=current))
    assert found.reason == reason
    assert bool(found.setting) == (reason != "PodFixedFits")


def test_pods_from_before_a_change_count_with_what_they_have() -> None:
    use = replace(OPENSHIFT, pod_fixed_bytes=2128 * MIB, running=(350 * MIB, 2128 * MIB, 3 * GIB))
    found = advise_overhead(use)
    assert found.reason == "PodFixedFits"
    assert (found.uncounted_bytes, found.wasted_bytes) == (
        2 * GIB + 60 * MIB - 350 * MIB,
        3 * GIB - 2128 * MIB,
    )


def test_waste_is_said_in_numbers() -> None:
    found = advise_overhead(replace(OPENSHIFT, pod_fixed_bytes=3 * GIB, running=(3 * GIB,) * 4))
    assert found.wasted_bytes == 4 * (3 * GIB - 2128 * MIB)
    assert "the 4 that run 3.7Gi" in found.why


def test_a_vm_elsewhere_costs_its_shim_alone() -> None:
    found = advise_overhead(replace(OPENSHIFT, name="kata-remote", runs_here=False, pod_fixed_bytes=None))
    assert found.need_bytes == 80 * MIB


def test_the_class_can_be_applied_and_leaves_the_operators_own_alone() -> None:
    for openshift, name in ((False, "kata"), (True, "kata-measured")):
        found = advise_overhead(
            replace(OPENSHIFT, openshift=openshift, host_millicores=observed(10), pod_fixed_bytes=None)
        )
        document = yaml.safe_load(found.setting)
        assert document == {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": name},
            "handler": "kata",
            "overhead": {"podFixed": {"memory": "2128Mi", "cpu": "50m"}},
        }


amounts = st.integers(0, 1 << 44)
maybe_observed = st.none() | amounts.map(observed)
uses = st.builds(
    HandlerUse,
    name=st.just("kata"),
    runs_here=st.booleans(),
    beyond_bytes=amounts,
    running=st.lists(amounts, max_size=5).map(tuple),
    pod_fixed_bytes=st.none() | amounts,
    host_overhead=maybe_observed,
    beyond=maybe_observed,
    host_millicores=st.none() | st.integers(0, 10**6).map(observed),
)


@given(uses)
def test_who_follows_the_advice_is_told_to_keep_it(use: HandlerUse) -> None:
    found = advise_overhead(use)
    again = advise_overhead(
        replace(use, pod_fixed_bytes=found.need_bytes, running=(found.need_bytes,) * len(use.running))
    )
    assert again.reason == "PodFixedFits"
    assert (again.uncounted_bytes, again.wasted_bytes) == (0, 0)


@given(uses)
def test_the_class_has_what_is_needed(use: HandlerUse) -> None:
    found = advise_overhead(use)
    if found.setting:
        amount = yaml.safe_load(found.setting)["overhead"]["podFixed"]["memory"]
        assert parse_bytes(amount) == found.need_bytes
