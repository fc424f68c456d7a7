"""The simulated day that is drawn in docs/pictures/day.svg by `python -m bench.day`: what the picture shows is judged here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.day import DAY, Day, picture

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("seed", [1, 2])
def test_a_busy_node_loses_nothing_promises_nothing_twice_and_serves_everybody(
    tmp_path: Path, seed: int
) -> None:
    day = Day(tmp_path, seed)
    day.run(DAY)
    tally = day.tally
    assert tally.placed > 300
    # Restarts of everything cost nothing.
    assert tally.restarts == 47
    assert tally.unasked > 0
    assert (tally.over_budget, tally.below_in_use, tally.lost) == (0, 0, 0)
    # Whoever gets a place gets a VM: health says no before Allocate has to.
    assert tally.refused_at_allocate == 0
    # No starvation: thirty come at once to a node for a good twenty, and some live for an hour.
    assert max(tally.waited) < 2 * 3600
    late = [
        pod for pod in (*day.pending, *day.pods.values()) if not pod.booted and day.now - pod.since > 3600
    ]
    assert not late
    # No deadlock: whoever waits waits for a VM that runs.
    assert tally.stuck < 60
    # No oscillation: the slots turn with the pods that come and go, and not again and again (three times within a minute) without one.
    assert tally.swings == 0
    assert tally.turns < tally.placed
    assert picture(day).startswith("<svg")
