import pytest
import yaml

from kata_node_agent.advice.reserved import Reservation, advise
from kata_node_agent.series import WINDOW_SECONDS, Observed

GIB, MIB = 1 << 30, 1 << 20
DAY = 86400.0


def reservation(reserved: int, *, kube: int = 0, openshift: bool = False) -> Reservation:
    return Reservation(64 * GIB, 8, reserved, kube, "/etc/kubernetes/kubelet.conf", openshift)


def observed(highest: int, days: float = 10, records: int = 100) -> Observed:
    end = 1e9 + days * DAY + WINDOW_SECONDS
    return Observed("outside_pods", records, 1e9, end, highest // 2, highest // 2, highest, highest)


def test_a_reservation_that_did_not_suffice_is_to_be_raised_with_the_lines_to_write() -> None:
    (advice,) = advise(reservation(GIB, openshift=True), observed(3 * GIB))
    assert advice.reason == "ReserveMore"
    assert "10 days" in advice.why
    assert "4Gi (since 4.22) or 5Gi (before)" in advice.why
    document = yaml.safe_load(advice.setting)
    assert document["kind"] == "KubeletConfig"
    # 3Gi and a tenth, in steps of 128Mi.
    assert document["spec"]["kubeletConfig"]["systemReserved"]["memory"] == f"{27 * 128}Mi"


def test_without_openshift_the_lines_are_kubelets_own_and_leave_kube_reserved_alone() -> None:
    (advice,) = advise(reservation(GIB, kube=GIB), observed(3 * GIB))
    document = yaml.safe_load(advice.setting)
    assert document["kind"] == "KubeletConfiguration"
    assert document["systemReserved"]["memory"] == f"{27 * 128 - 1024}Mi"


def test_a_wasteful_reservation_may_be_lowered_but_only_after_a_week() -> None:
    (advice,) = advise(reservation(8 * GIB), observed(GIB))
    assert advice.reason == "ReserveLess"
    (advice,) = advise(reservation(8 * GIB), observed(GIB, days=6))
    assert advice.reason == "ReservationFits"
    assert advice.setting == ""


def test_a_short_history_says_so() -> None:
    (advice,) = advise(reservation(GIB), observed(3 * GIB, days=0.5))
    assert "12 hours is little: look again after a day" in advice.why


@pytest.mark.parametrize("reserved", [0, GIB, 8 * GIB])
def test_a_minute_of_history_is_no_ground_for_a_figure(reserved: int) -> None:
    (advice,) = advise(reservation(reserved), observed(3 * GIB, days=0, records=1))
    assert (advice.reason, advice.setting) == ("HistoryTooShort", "")
    assert (
        "10 minutes of history at most, and a figure needs 6 hours: look again in 5 hours" in advice.message
    )
    assert "in less than 10 minutes the use outside of pods was at most 3Gi" in advice.why
    assert "p9" not in advice.why


def test_an_agent_that_was_mostly_off_has_seen_as_little() -> None:
    assert advise(reservation(GIB), observed(3 * GIB, days=10, records=35))[0].reason == "HistoryTooShort"
    (advice,) = advise(reservation(GIB), observed(3 * GIB, days=10, records=36))
    assert advice.reason == "ReserveMore"
    assert "p95" in advice.why
    assert "p99" not in advice.why


def test_nothing_reserved_and_no_history_is_advised_by_the_formula() -> None:
    (advice,) = advise(reservation(0), None)
    assert advice.reason == "NothingReserved"
    assert yaml.safe_load(advice.setting)["systemReserved"]["memory"] == "4Gi"
    assert advise(reservation(GIB), None) == ()
