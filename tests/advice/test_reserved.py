import yaml

from kata_node_agent.advice.reserved import Reservation, advise
from kata_node_agent.series import Observed

GIB, MIB = 1 << 30, 1 << 20
DAY = 86400.0


def reservation(reserved: int, *, kube: int = 0, openshift: bool = False) -> Reservation:
    return Reservation(64 * GIB, 8, reserved, kube, "/etc/kubernetes/kubelet.conf", openshift)


def observed(highest: int, days: float = 10) -> Observed:
    return Observed("outside_pods", 100, 1e9, 1e9 + days * DAY, highest // 2, highest // 2, highest, highest)


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


def test_nothing_reserved_and_no_history_is_advised_by_the_formula() -> None:
    (advice,) = advise(reservation(0), None)
    assert advice.reason == "NothingReserved"
    assert yaml.safe_load(advice.setting)["systemReserved"]["memory"] == "4Gi"
    assert advise(reservation(GIB), None) == ()
