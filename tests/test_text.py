import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.text import ago, printable


def test_what_steers_a_terminal_is_a_question_mark() -> None:
    assert printable("a\x1b[2J\nb\ud800") == "a?[2J?b?"


def test_what_is_long_is_cut_and_that_is_seen() -> None:
    assert printable("abcd", 4) == "abcd"
    assert printable("abcde", 4) == "abcd…"


@given(st.text(), st.integers(0, 20))
def test_any_text_becomes_printable_and_short(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit + 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59, "59s"),
        (61, "1m 1s"),
        (3600, "1h"),
        (90061, "1d 1h"),
        (-5, "0s"),
        (86400 * 400, "400d"),
    ],
)
def test_durations_have_two_units(seconds: int, text: str) -> None:
    assert ago(1000, 1000 + seconds) == text
