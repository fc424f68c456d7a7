from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.errors import QuantityError
from kata_node_agent.quantity import format_bytes, parse, parse_bytes


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("3Gi", 3 * 2**30),
        ("100Mi", 100 * 2**20),
        ("0.5Gi", 2**29),
        (".5Ki", 512),
        ("5.", 5),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("500m", Fraction(1, 2)),
        ("+2k", 2000),
        ("-1", -1),
        # Rounded up to a whole nano, capped at the largest int64.
        ("0.0000000001", Fraction(1, 10**9)),
        ("1e999999999", 2**63 - 1),
        ("1e-999999999", Fraction(1, 10**9)),
        ("8Ei", 2**63 - 1),
    ],
)
def test_parses_as_kubernetes_does(text: str, value: Fraction) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    "text", ["", " ", "1 Gi", "Gi", "1gi", "1KI", "0x10", "1e", "1e1.5", "١", "1__0", "9" * 65, "nan"]
)
def test_refuses_what_is_no_quantity(text: str) -> None:
    with pytest.raises(QuantityError):
        parse(text)


def test_bytes_round_up_and_are_not_negative() -> None:
    assert parse_bytes("1500m") == 2
    with pytest.raises(QuantityError):
        parse_bytes("-1Gi")


@given(st.text())
def test_any_text_is_a_value_or_a_typed_error(text: str) -> None:
    try:
        value = parse(text)
    except QuantityError:
        return
    assert abs(value) <= 2**63 - 1


@given(st.integers(0, 2**62))
def test_plain_numbers_are_themselves(number: int) -> None:
    assert parse_bytes(str(number)) == number


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (1023, "1023"), (1024, "1Ki"), (int(28.9 * 2**30), "28.9Gi"), (5 * 2**50, "5120Ti")],
)
def test_formats_for_people(number: int, text: str) -> None:
    assert format_bytes(number) == text
