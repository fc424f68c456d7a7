from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.capacity.devices import device_id
from kata_node_agent.kubelet.takeover import SETTLING_SECONDS, Sight, taken_over

OURS = Sight(
    shown=frozenset({"kata-000000", "kata-000001"}),
    healthy=frozenset({0, 1}),
    listed=frozenset({0, 1, 2}),
    generation=7,
    registration=1,
    registered_seconds=60.0,
)
THEIRS = replace(OURS, shown=frozenset({"rival-0", "rival-1", "rival-2"}))
NOTHING = replace(OURS, shown=frozenset())


def test_devices_of_another_plugin_twice_in_a_row_are_a_takeover() -> None:
    why = taken_over(THEIRS, THEIRS)
    assert why == "kubelet shows devices of another plugin for our resource: rival-0 and 2 more"


def test_none_of_our_devices_twice_in_a_row_is_what_another_plugin_left() -> None:
    assert "does not show our devices" in taken_over(NOTHING, NOTHING)
    assert taken_over(NOTHING, NOTHING).endswith("kata-000000 and 1 more")


def test_one_sight_alone_says_nothing() -> None:
    assert taken_over(THEIRS, OURS) == taken_over(OURS, THEIRS) == ""


def test_a_list_or_a_registration_that_is_new_says_nothing_yet() -> None:
    assert taken_over(NOTHING, replace(NOTHING, generation=8)) == ""
    assert taken_over(NOTHING, replace(NOTHING, registration=2)) == ""
    young = replace(NOTHING, registered_seconds=SETTLING_SECONDS / 2)
    assert taken_over(young, young) == ""


def test_no_answer_says_nothing() -> None:
    silent = replace(OURS, shown=None)
    assert taken_over(silent, silent) == taken_over(NOTHING, silent) == ""


def test_devices_that_nobody_of_ours_listed_are_seen_on_a_node_without_room() -> None:
    full = replace(THEIRS, healthy=frozenset())
    assert "another plugin" in taken_over(full, full)


def test_devices_of_ours_that_somebody_else_called_healthy_are_seen() -> None:
    everything = replace(OURS, shown=frozenset(map(device_id, OURS.listed)))
    assert "calls devices healthy that we do not" in taken_over(everything, everything)
    assert taken_over(everything, everything).endswith("kata-000002")


def test_a_hostile_id_cannot_forge_a_line() -> None:
    hostile = replace(OURS, shown=frozenset({"x\nlevel=error " + "y" * 1000}))
    assert "\n" not in taken_over(hostile, hostile)
    assert len(taken_over(hostile, hostile)) < 200


@given(
    st.frozensets(st.integers(0, 20)), st.frozensets(st.integers(0, 20)), st.frozensets(st.integers(0, 20))
)
def test_a_kubelet_is_doubted_exactly_when_it_shows_another_list_than_ours(
    shown: frozenset[int], healthy: frozenset[int], others: frozenset[int]
) -> None:
    ids = frozenset(map(device_id, shown))
    sight = replace(OURS, shown=ids, healthy=healthy, listed=healthy | others)
    assert bool(taken_over(sight, sight)) == (shown != healthy)
