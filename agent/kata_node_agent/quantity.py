"""Kubernetes quantities: ``3Gi``, ``500m``, ``1e3``, ``0.5Gi``.

Source of the grammar and of rounding up: the Kubernetes API documentation, "Quantity" (resource.Quantity).
"""

from __future__ import annotations

import re
from fractions import Fraction

from kata_node_agent.errors import QuantityError

_QUANTITY = re.compile(
    r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?[0-9]{1,9}))?"
)
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
# A Quantity is capped at the largest int64 and rounded up to a whole nano.
_MAX = Fraction(2**63 - 1)
# Beyond this many digits a text is hostile; Kubernetes itself would cap or round such a number.
_MAX_LENGTH = 64


def parse(text: str) -> Fraction:
    """The exact value of a quantity, capped to ±(2⁶³−1) and rounded up (away from zero) to a whole nano.

    Raises:
        QuantityError: the text is no quantity.
    """
    match = _QUANTITY.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if match is None:
        shown = text if len(text) <= _MAX_LENGTH else text[:_MAX_LENGTH] + "…"
        raise QuantityError(
            f"not a quantity: {shown!r}", hint="write a Kubernetes quantity, for example 500m, 3Gi or 100Mi"
        )
    sign, digits, suffix, exponent = match.groups()
    value = Fraction(digits if not digits.endswith(".") else digits[:-1])
    if suffix in _BINARY:
        value *= 1024 ** _BINARY[suffix]
    else:
        power = _DECIMAL[suffix] if suffix else int(exponent or 0)
        # Past these powers every non-zero number is capped, or rounds up to one nano: do not compute 10**999999999.
        value *= Fraction(10) ** max(-_MAX_LENGTH * 2, min(power, _MAX_LENGTH * 2))
    value = min(value, _MAX)
    nanos = -(-value.numerator * 10**9 // value.denominator)
    value = Fraction(nanos, 10**9)
    return -value if sign == "-" else value


def parse_bytes(text: str) -> int:
    """A quantity in whole bytes, rounded up as Kubernetes does.

    Raises:
        QuantityError: the text is no quantity, or a negative one.
    """
    value = parse(text)
    if value < 0:
        raise QuantityError(f"a negative amount: {text!r}", hint="amounts of memory are 0 or more")
    return -(-value.numerator // value.denominator)


def format_bytes(amount_bytes: int) -> str:
    """Bytes for a person, in the largest binary unit that leaves a number of 1 or more: ``28.9Gi``."""
    value = float(amount_bytes)
    for unit in ("", "Ki", "Mi", "Gi", "Ti"):
        if abs(value) < 1024 or unit == "Ti":
            return f"{value:.0f}{unit}" if not unit or value == int(value) else f"{value:.1f}{unit}"
        value /= 1024
    raise AssertionError("unreachable")
