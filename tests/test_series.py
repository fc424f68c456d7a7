"""The history file against a plain model, and against every kind of damage."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.errors import HostError
from kata_node_agent.series import RECORDS, SIZE_BYTES, WINDOW_SECONDS, Observed, Series, read_observed

NOW = 1_800_000_000.0
DAY = 86400.0


def only(path: Path, now: float = NOW) -> Observed:
    (observed,) = read_observed(path, now)
    return observed


def test_a_history_has_a_fixed_size_and_exact_percentiles(tmp_path: Path) -> None:
    path = tmp_path / "a.series"
    series = Series(path, ["used"])
    for n in range(100):
        series.add(NOW - (99 - n) * WINDOW_SECONDS, {"used": n + 1})
    assert path.stat().st_size == SIZE_BYTES
    seen = only(path)
    assert (seen.name, seen.records, seen.p50, seen.p95, seen.p99, seen.max) == ("used", 100, 50, 95, 99, 100)


def test_ten_minutes_are_one_record_of_the_largest_value(tmp_path: Path) -> None:
    series = Series(tmp_path / "a.series", ["used"])
    start = NOW - NOW % WINDOW_SECONDS
    for second, value in ((0, 5), (60, 9), (120, 7)):
        series.add(start + second, {"used": value})
    assert (only(tmp_path / "a.series", start).records, only(tmp_path / "a.series", start).max) == (1, 9)


def test_a_restarted_writer_goes_on_with_the_record_it_had_begun(tmp_path: Path) -> None:
    path = tmp_path / "a.series"
    Series(path, ["used"]).add(NOW, {"used": 9})
    Series(path, ["used"]).add(NOW + 1, {"used": 3})
    assert (only(path).records, only(path).max) == (1, 9)


def test_what_is_older_than_four_weeks_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "a.series"
    Series(path, ["used"]).add(NOW, {"used": 9})
    assert only(path, NOW + 27 * DAY).max == 9
    assert read_observed(path, NOW + 29 * DAY) == ()


def test_a_clock_that_was_in_the_future_does_not_spoil_the_history(tmp_path: Path) -> None:
    path = tmp_path / "a.series"
    series = Series(path, ["used"])
    series.add(NOW, {"used": 1})
    series.add(NOW + 400 * DAY, {"used": 999})
    series.add(NOW + WINDOW_SECONDS, {"used": 2})
    assert only(path, NOW + WINDOW_SECONDS).max == 2


def test_an_unknown_value_is_no_zero(tmp_path: Path) -> None:
    path = tmp_path / "a.series"
    Series(path, ["used", "other"]).add(NOW, {"used": None, "other": 0})
    assert [observed.name for observed in read_observed(path, NOW)] == ["other"]


@given(st.lists(st.tuples(st.integers(0, RECORDS * 2), st.integers(0, 2**62)), max_size=60))
def test_agrees_with_a_plain_model(samples: list[tuple[int, int]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.series")
        series = Series(path, ["used"])
        # In the order of time; a ring keeps the last record at each place.
        samples = sorted(samples)
        model: dict[int, int] = {}
        for window, value in samples:
            series.add(window * WINDOW_SECONDS + 1, {"used": value})
            model[window] = max(model.get(window, 0), value)
        newest = RECORDS * 2
        kept = sorted(value for window, value in model.items() if newest - RECORDS < window)
        observed = read_observed(path, newest * WINDOW_SECONDS)
        if not kept:
            assert observed == ()
        else:
            (seen,) = observed
            assert (seen.records, seen.max) == (len(kept), kept[-1])
            assert seen.p50 == kept[-(-len(kept) // 2) - 1]
            assert seen.p50 <= seen.p95 <= seen.p99 <= seen.max


def test_no_damage_raises_or_invents_a_value(tmp_path: Path) -> None:
    path = tmp_path / "a.series"
    series = Series(path, ["used"])
    values = {n * 1000 + 1 for n in range(200)}
    for n, value in enumerate(sorted(values)):
        series.add(NOW - n * WINDOW_SECONDS, {"used": value})
    whole = path.read_bytes()
    chance = random.Random(1)
    for _ in range(int(os.environ.get("FUZZ_MUTATIONS", "2000")) // 100):
        damaged = bytearray(whole)
        for _ in range(chance.randrange(1, 40)):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(damaged[: chance.choice([len(damaged), chance.randrange(len(damaged))])]))
        for seen in read_observed(path, NOW):
            assert {seen.p50, seen.p95, seen.p99, seen.max} <= values


@pytest.mark.parametrize("content", [b"", b"\0" * SIZE_BYTES, b"not ours" * 100])
def test_a_file_that_is_not_ours_is_set_aside(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.series"
    path.write_bytes(content)
    assert read_observed(path, NOW) == ()
    Series(path, ["used"]).add(NOW, {"used": 4})
    assert only(path).max == 4
    assert (tmp_path / "a.series.damaged").read_bytes() == content


def test_other_figures_are_another_history(tmp_path: Path) -> None:
    path = tmp_path / "a.series"
    Series(path, ["used"]).add(NOW, {"used": 4})
    Series(path, ["other"]).add(NOW, {"other": 5})
    assert only(path).name == "other"


def test_a_folder_that_is_gone_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="state_dir") as caught:
        Series(tmp_path / "none" / "a.series", ["used"]).add(NOW, {"used": 1})
    assert caught.value.reason == "HistoryNotKept"


@pytest.mark.host
def test_a_full_disk_loses_nothing_of_what_was_there(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("a small file system of our own needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path], check=True)
    try:
        path = tmp_path / "a.series"
        series = Series(path, ["used"])
        series.add(NOW - DAY, {"used": 7})
        with open(tmp_path / "filler", "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(b"x" * 4096)
            except OSError:
                pass
        # The space was taken when the file was made.
        series.add(NOW, {"used": 8})
        assert (only(path).records, only(path).max) == (2, 8)
        with pytest.raises(HostError, match="ENOSPC"):
            Series(tmp_path / "b.series", ["used"]).add(NOW, {"used": 1})
        assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


WRITER = """
import sys, time
from pathlib import Path
from kata_node_agent.series import Series, WINDOW_SECONDS
series = Series(Path(sys.argv[1]), ["used"])
for n in range(10**9):
    series.add(1.8e9 - n % 500 * WINDOW_SECONDS, {"used": 42})
    if n == 0:
        print("begun", flush=True)
"""


@pytest.mark.host
def test_a_writer_killed_at_any_moment_leaves_a_history(tmp_path: Path) -> None:
    path = tmp_path / "a.series"
    for delay in (0.0, 0.01, 0.05, 0.1):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"begun\n"
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        assert only(path).max == only(path).p50 == 42
