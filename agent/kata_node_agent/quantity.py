"""Kubernetes quantities: ``3Gi``, ``500m``, ``1e3``, ``0.5Gi``.

Source of the grammar, of rounding up and of the canonical form: the Kubernetes API documentation, "Quantity"
(resource.Quantity).
"""

from __future__ import annotations

import enum
import re
from fractions import Fraction

from kata_node_agent.errors import QuantityError

_QUANTITY = re.compile(
    r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?[0-9]{1,9}))?"
)
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_SUFFIX = {power: suffix for suffix, power in _DECIMAL.items()} | {0: ""}
_BINARY_SUFFIX = {power: suffix for suffix, power in _BINARY.items()} | {0: ""}
# A Quantity is capped at the largest int64 and rounded up to a whole nano.
_MAX = Fraction(2**63 - 1)
# Beyond this many digits a text is hostile; Kubernetes itself would cap or round such a number.
_MAX_LENGTH = 64


class Form(enum.Enum):
    """How an amount is written. A quantity keeps the form in which it was given."""

    BINARY_SI = "Ki, Mi, Gi …"
    DECIMAL_SI = "m, k, M, G …, and plain numbers"
    DECIMAL_EXPONENT = "e3, e6 …"


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


def form_of(text: str) -> Form:
    """The form of a quantity that `parse` takes; `Form.DECIMAL_SI` for any other text."""
    match = _QUANTITY.fullmatch(text)
    if match is None or (match[3] is None and match[4] is None):
        return Form.DECIMAL_SI
    if match[4] is not None:
        return Form.DECIMAL_EXPONENT
    return Form.BINARY_SI if match[3] in _BINARY else Form.DECIMAL_SI


def format_quantity(value: Fraction | int, form: Form = Form.DECIMAL_SI) -> str:
    """The canonical form, as Kubernetes prints it: a whole number with the largest suffix that needs no fraction.

    In the binary form only whole amounts of 1024 and more are written so, others in decimal: 512 is ``512``, half a byte
    is ``500m``. Parts below a nano are rounded up, away from zero, as in `parse`.
    """
    nanos = -(-abs(value.numerator) * 10**9 // value.denominator)
    if not nanos:
        return "0"
    sign = "-" if value < 0 else ""
    whole, part = divmod(nanos, 10**9)
    if form is Form.BINARY_SI and not part and whole >= 1024:
        power = 0
        while power < 6 and whole % 1024 == 0:
            whole //= 1024
            power += 1
        return f"{sign}{whole}{_BINARY_SUFFIX[power]}"
    power = -9
    while power < 18 and nanos % 1000 == 0:
        nanos //= 1000
        power += 3
    if form is Form.DECIMAL_EXPONENT:
        return f"{sign}{nanos}{f'e{power}' if power else ''}"
    return f"{sign}{nanos}{_DECIMAL_SUFFIX[power]}"


def canonical(text: str) -> str:
    """A quantity in its canonical form: ``1.5Gi`` → ``1536Mi``, ``0.5`` → ``500m``, ``1000e3`` → ``1e6``.

    Raises:
        QuantityError: the text is no quantity.
    """
    return format_quantity(parse(text), form_of(text))


def format_bytes(amount_bytes: int) -> str:
    """Bytes for a person, in the largest binary unit that leaves a number of 1 or more: ``28.9Gi``."""
    value = float(amount_bytes)
    for unit in ("", "Ki", "Mi", "Gi", "Ti"):
        if abs(value) < 1024 or unit == "Ti":
            return f"{value:.0f}{unit}" if not unit or value == int(value) else f"{value:.1f}{unit}"
        value /= 1024
    raise AssertionError("unreachable")
