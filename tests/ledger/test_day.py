"""Four hours of the simulated day: the whole is drawn in docs/pictures/day.svg by `python -m bench.day`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.day import Day, picture

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("seed", [1, 2])
def test_a_busy_node_loses_nothing_promises_nothing_twice_and_serves_everybody(
    tmp_path: Path, seed: int
) -> None:
    day = Day(tmp_path, seed)
    day.run(4 * 3600)
    tally = day.tally
    assert (tally.over_budget, tally.below_in_use, tally.lost) == (0, 0, 0)
    assert tally.restarts == 7
    assert tally.placed > 30
    # Nobody starves: whoever came more than an hour ago has got a VM, and no two wait for each other.
    late = [
        pod.name
        for pod in [*day.pending, *day.pods.values()]
        if not pod.booted and day.now - pod.since > 3600
    ]
    assert not late
    # The slots turn with the pods that come and go, not by themselves.
    assert tally.turns < tally.placed
    assert picture(day).startswith("<svg")
