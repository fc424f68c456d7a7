from kata_node_agent.daemon.steady import HOLD_SECONDS, Steady


def test_the_first_verdict_counts_at_once() -> None:
    assert Steady().see("eligible", now=0)


def test_another_verdict_counts_when_it_has_held() -> None:
    steady = Steady()
    steady.see("eligible", now=0)
    assert not steady.see("ineligible", now=10)
    assert not steady.see("ineligible", now=10 + HOLD_SECONDS / 2)
    assert steady.see("ineligible", now=10 + HOLD_SECONDS)
    assert not steady.waiting
    assert steady.value == "ineligible"


def test_a_verdict_that_comes_back_was_never_another() -> None:
    steady = Steady()
    steady.see("eligible", now=0)
    steady.see("ineligible", now=1)
    assert steady.see("eligible", now=1.1)
    assert not steady.see("ineligible", now=1 + HOLD_SECONDS), "the time of the first glimpse does not count"


def test_a_third_verdict_starts_the_time_anew() -> None:
    steady = Steady()
    steady.see("eligible", now=0)
    steady.see("ineligible", now=1)
    assert not steady.see("unknown", now=1 + HOLD_SECONDS)
    assert steady.see("unknown", now=1 + 2 * HOLD_SECONDS)
