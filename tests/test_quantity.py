from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.errors import QuantityError
from kata_node_agent.quantity import (
    Form,
    canonical,
    form_of,
    format_bytes,
    format_quantity,
    parse,
    parse_bytes,
)


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


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        # The examples of the Kubernetes API documentation, "Quantity", come first.
        ("1.5", "1500m"),
        ("1.5Gi", "1536Mi"),
        ("0", "0"),
        ("-0.0", "0"),
        ("0Ki", "0"),
        ("0e3", "0"),
        ("1024", "1024"),
        ("1000", "1k"),
        ("12000000", "12M"),
        ("1024Ki", "1Mi"),
        ("1536Ki", "1536Ki"),
        # Below 1024, or not whole: no binary suffix.
        ("0.5Ki", "512"),
        ("0.0001Ki", "102400u"),
        ("1.0001Ki", "1024102400u"),
        ("1e3", "1e3"),
        ("1000e3", "1e6"),
        ("100e1", "1e3"),
        ("0.001e0", "1e-3"),
        ("5e0", "5"),
        ("1E", "1E"),
        ("1000P", "1E"),
        ("500m", "500m"),
        ("2000m", "2"),
        ("0.0000000001", "1n"),
        ("-1.5Gi", "-1536Mi"),
        ("-0.5", "-500m"),
        ("+3Gi", "3Gi"),
        ("8Ei", "9223372036854775807"),
        ("1e99", "9223372036854775807"),
    ],
)
def test_prints_as_kubernetes_does(text: str, printed: str) -> None:
    assert canonical(text) == printed


quantities = st.builds(
    lambda sign, number, suffix: f"{sign}{number}{suffix}",
    st.sampled_from(["", "-", "+"]),
    st.one_of(
        st.integers(0, 10**20).map(str),
        st.decimals(0, 10**6, places=6, allow_nan=False).map(lambda number: f"{number:f}"),
    ),
    st.sampled_from(
        [
            "",
            "n",
            "u",
            "m",
            "k",
            "M",
            "G",
            "T",
            "P",
            "E",
            "Ki",
            "Mi",
            "Gi",
            "Ti",
            "Pi",
            "Ei",
            "e3",
            "e-3",
            "E5",
            "e12",
        ]
    ),
)


@given(quantities)
def test_the_canonical_form_is_the_same_amount_and_stays_as_it_is(text: str) -> None:
    printed = canonical(text)
    assert parse(printed) == parse(text)
    assert canonical(printed) == printed


@given(st.integers(-(2**63) + 1, 2**63 - 1), st.sampled_from(Form))
def test_every_whole_number_survives_every_form(number: int, form: Form) -> None:
    assert parse(format_quantity(number, form)) == number


@given(st.integers(1, 2**63 - 1), st.sampled_from([Form.BINARY_SI, Form.DECIMAL_SI]))
def test_the_suffix_is_the_largest_that_needs_no_fraction(number: int, form: Form) -> None:
    digits = format_quantity(number, form).rstrip("kKMGTPEi")
    step = 1024 if form is Form.BINARY_SI and number >= 1024 else 1000
    assert int(digits) % step or int(digits) == number // step**6


@given(st.text(max_size=20))
def test_any_text_has_a_form(text: str) -> None:
    assert form_of(text) in Form
