import pytest

from kata_node_agent.capacity.pressure_stop import Pressure, PressureStop

MIB = 1 << 20
CALM = Pressure(0.0, 0.0, left_bytes=1000 * MIB, margin_bytes=256 * MIB)
WAITING = Pressure(35.0, 12.0, left_bytes=1000 * MIB, margin_bytes=256 * MIB)
LOW = Pressure(0.0, 0.0, left_bytes=100 * MIB, margin_bytes=256 * MIB)
BETWEEN = Pressure(10.0, 12.0, left_bytes=200 * MIB, margin_bytes=256 * MIB)


@pytest.mark.parametrize(("seen", "words"), [(WAITING, "35 % of the last 10 s"), (LOW, "100Mi of available")])
def test_closes_at_once_and_says_why(seen: Pressure, words: str) -> None:
    stop = PressureStop()
    assert stop.take(CALM, 0, 60) == ""
    assert words in stop.take(seen, 1, 60)


@pytest.mark.parametrize("seen", [WAITING, LOW])
def test_opens_only_after_calm_has_held_for_a_while(seen: Pressure) -> None:
    stop = PressureStop()
    stop.take(seen, 0, 60)
    assert stop.take(CALM, 1, 60)
    assert stop.take(CALM, 60, 60)
    assert stop.take(BETWEEN, 60.5, 60)
    assert stop.take(CALM, 61.5, 60)
    assert stop.take(CALM, 120, 60)
    assert not stop.take(CALM, 121.5, 60)


def test_what_is_neither_closes_nor_opens() -> None:
    stop = PressureStop()
    assert not stop.take(BETWEEN, 0, 60)
    stop.take(WAITING, 1, 60)
    assert all(stop.take(BETWEEN, float(now), 60) for now in range(2, 1000, 10))


def test_a_node_without_these_figures_stays_open() -> None:
    stop = PressureStop()
    assert not stop.take(Pressure(), 0, 60)


def test_an_eviction_threshold_that_is_passed_closes_also_without_a_margin() -> None:
    assert "0 of available" in PressureStop().take(Pressure(left_bytes=-5), 0, 60)


def test_switched_off_it_is_open() -> None:
    stop = PressureStop()
    stop.take(WAITING, 0, 60)
    stop.lift()
    assert not stop.why
