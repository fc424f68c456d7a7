import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kata_node_agent.capacity.free import (
    ALLOCATABLE,
    AVAILABLE,
    HUGE,
    SHARED,
    Backing,
    Commitment,
    Need,
    NodeMemory,
    OtherPod,
    Room,
    Window,
    budgets,
)

GIB = 1 << 30
MIB = 1 << 20
ONE = Need(2 * GIB, 60 * MIB, Backing.SHARED)


def room(node: NodeMemory, *commitments: Commitment, share: float = 1.0, margin: int = 0) -> Room:
    committed: dict[str, int] = {}
    touched: dict[str, int] = {}
    for commitment in commitments:
        for term, amount in commitment.need.by_term.items():
            committed[term] = committed.get(term, 0) + amount
        for term, amount in commitment.touched_by_term.items():
            touched[term] = touched.get(term, 0) + amount
    return Room(budgets(node, touched, share=share, margin_bytes=margin), committed)


def test_other_pods_count_with_the_larger_of_request_and_what_they_hold() -> None:
    others = {
        "idle": OtherPod(request_bytes=4 * GIB, held_bytes=GIB),
        "busy": OtherPod(request_bytes=GIB, held_bytes=3 * GIB),
        "unknown": OtherPod(request_bytes=None, held_bytes=None),
    }
    assert room(NodeMemory(20 * GIB, others=others)).left(ALLOCATABLE) == 13 * GIB


def test_share_overcommits_allocatable_memory_and_nothing_physical() -> None:
    node = NodeMemory(10 * GIB, available_bytes=10 * GIB)
    found = room(node, share=1.5)
    assert (found.left(ALLOCATABLE), found.left(AVAILABLE)) == (15 * GIB, 10 * GIB)


def test_what_a_vm_has_touched_is_gone_from_available_memory_and_not_taken_twice() -> None:
    half_touched = Commitment(ONE, resident_bytes=GIB, guest_resident_bytes=GIB)
    node = NodeMemory(20 * GIB, available_bytes=8 * GIB, eviction_bytes=100 * MIB, shared_free_bytes=4 * GIB)
    found = room(node, half_touched, margin=156 * MIB)
    assert found.left(AVAILABLE) == 8 * GIB - 256 * MIB - (ONE.total_bytes - GIB)
    assert found.left(SHARED) == 4 * GIB - GIB
    assert found.left(ALLOCATABLE) == 20 * GIB - ONE.total_bytes


def test_a_vm_that_holds_more_than_it_was_promised_frees_nothing() -> None:
    beyond = Commitment(ONE, resident_bytes=9 * GIB, guest_resident_bytes=9 * GIB)
    node = NodeMemory(20 * GIB, available_bytes=8 * GIB, shared_free_bytes=8 * GIB)
    assert room(node, beyond).left(AVAILABLE) == 8 * GIB


def test_a_vm_in_huge_pages_takes_them_and_of_other_memory_its_overhead_only() -> None:
    huge = Commitment(Need(2 * GIB, 60 * MIB, Backing.HUGE), guest_resident_bytes=2 * GIB)
    node = NodeMemory(20 * GIB, available_bytes=8 * GIB, huge_free_bytes=6 * GIB)
    found = room(node, huge)
    assert found.left(ALLOCATABLE) == 20 * GIB - 60 * MIB
    assert found.left(HUGE) == 6 * GIB
    assert found.count(huge.need.by_term) == 3
    assert found.least(huge.need.by_term) == HUGE


def test_the_least_term_limits_and_is_named() -> None:
    node = NodeMemory(20 * GIB, available_bytes=9 * GIB, shared_free_bytes=5 * GIB)
    found = room(node)
    assert found.least(ONE.by_term) == SHARED
    assert found.count(ONE.by_term) == 2
    assert found.least(Need(2 * GIB, 60 * MIB).by_term) == AVAILABLE
    assert "5Gi free of 5Gi /dev/shm" in found.explain(SHARED)


def test_nothing_fits_while_allocatable_memory_is_not_known() -> None:
    found = room(NodeMemory(None, available_bytes=9 * GIB))
    assert not found.fits(ONE.by_term)
    assert found.count(ONE.by_term) == 0


def test_an_unknown_term_does_not_limit() -> None:
    assert room(NodeMemory(20 * GIB)).count(ONE.by_term) == 20 * GIB // ONE.total_bytes


def test_nothing_fits_where_more_is_promised_than_there_is() -> None:
    found = Room({ALLOCATABLE: GIB}, {ALLOCATABLE: 2 * GIB})
    assert not found.fits({ALLOCATABLE: 0})
    assert found.count(ONE.by_term) == 0
    assert "0 free of 1Gi" in found.explain(ALLOCATABLE)


amounts = st.integers(0, 64 * GIB)


@given(
    node=st.builds(
        NodeMemory,
        allocatable_bytes=amounts,
        available_bytes=st.none() | amounts,
        eviction_bytes=st.integers(0, GIB),
        shared_free_bytes=st.none() | amounts,
        huge_free_bytes=st.none() | amounts,
        others=st.dictionaries(
            st.text(max_size=3),
            st.builds(OtherPod, request_bytes=st.none() | amounts, held_bytes=st.none() | amounts),
            max_size=5,
        ),
    ),
    promised=st.lists(
        st.builds(
            Commitment,
            need=st.builds(Need, amounts, st.integers(0, GIB), st.sampled_from(Backing)),
            resident_bytes=amounts,
            guest_resident_bytes=amounts,
        ),
        max_size=6,
    ),
    need=st.builds(Need, st.integers(1, 8 * GIB), st.integers(0, GIB), st.sampled_from(Backing)),
)
@example(
    node=NodeMemory(allocatable_bytes=0, huge_free_bytes=1),
    promised=[Commitment(Need(0, 1, Backing.ANONYMOUS))],
    need=Need(1, 0, Backing.HUGE),
)
def test_as_many_fit_as_are_counted_and_not_one_more(
    node: NodeMemory, promised: list[Commitment], need: Need
) -> None:
    found = room(node, *promised)
    count = found.count(need.by_term)
    assert count >= 0
    taken = need.by_term
    if count:
        assert found.fits({term: amount * count for term, amount in taken.items()})
    assert not found.fits({term: amount * (count + 1) for term, amount in taken.items()})
    limit = found.least(taken)
    assert found.left(limit) // max(1, taken[limit]) <= max(count, 0) or not found.known


def test_a_window_falls_at_once_and_rises_when_the_lower_figure_was_not_seen_for_a_while() -> None:
    window = Window()
    assert window.take(100, 0.0, 60) == 100
    assert window.take(40, 1.0, 60) == 40
    assert window.take(100, 2.0, 60) == 40
    assert window.take(100, 61.0, 60) == 40
    assert window.take(100, 61.1, 60) == 100


def test_a_window_rises_to_the_lowest_figure_since_not_to_the_last() -> None:
    window = Window()
    for value, now in ((40, 0), (70, 30), (100, 50)):
        window.take(value, now, 60)
    assert window.take(100, 61, 60) == 70


def test_a_figure_that_comes_and_goes_shows_as_its_lower_one_all_the_time() -> None:
    window = Window()
    shown = {window.take(100 if now % 20 else 60, float(now), 60) for now in range(600)}
    assert shown == {60}


def test_a_shift_lifts_what_was_read_but_never_above_what_is_read_now() -> None:
    window = Window()
    window.take(40, 0.0, 60)
    window.take(50, 1.0, 60)
    window.shift(30)
    assert window.take(80, 2.0, 60) == 70
    assert window.take(60, 3.0, 60) == 60


@given(st.lists(st.tuples(st.floats(0.1, 50), st.integers(0, 10)), min_size=1), st.floats(0, 100))
def test_a_window_is_the_minimum_of_its_time(steps: list[tuple[float, int]], hold: float) -> None:
    window, seen, now = Window(), list[tuple[float, int]](), 0.0
    for pause, value in steps:
        now += pause
        seen.append((now, value))
        assert window.take(value, now, hold) == min(v for when, v in seen if when >= now - hold)


@pytest.mark.parametrize("hold", [0, 0.0])
def test_without_a_hold_every_figure_counts_at_once(hold: float) -> None:
    window = Window()
    assert [window.take(value, now, hold) for now, value in enumerate((5, 1, 9))] == [5, 1, 9]
