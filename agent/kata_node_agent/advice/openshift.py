"""OpenShift's automatic sizing of systemReserved, both generations.

Source: machine-config-operator, templates/common/_base/files/kubelet-auto-sizing.yaml (the script behind
/etc/node-sizing.env), before and since OpenShift 4.22.
"""

from __future__ import annotations

from fractions import Fraction

_GIB = 1 << 30
# Of a node's memory in GiB: (so much more, the share of it that is reserved).
_OLDER = ((4, Fraction(25, 100)), (4, Fraction(20, 100)), (8, Fraction(10, 100)), (112, Fraction(6, 100)))
_OLDER_REST = Fraction(2, 100)


def _free_gib(memory_bytes: int) -> int:
    """Memory as ``free -g`` prints it: whole GiB, rounded down."""
    return memory_bytes // _GIB


def newer_bytes(memory_bytes: int) -> int:
    """SystemReserved memory since 4.22: 1 GiB, 6 % of what is above 8, above 128 also 2 %; whole GiB, half up."""
    total = _free_gib(memory_bytes)
    gib = Fraction(1)
    if total > 8:
        gib += Fraction(6, 100) * (min(total, 128) - 8)
    if total > 128:
        # As the script has it: the last part counts from 120.
        gib = 1 + Fraction(672, 100) + Fraction(2, 100) * (total - 120)
    return int(gib + Fraction(1, 2)) * _GIB


def older_bytes(memory_bytes: int) -> int:
    """SystemReserved memory up to 4.21: 25 % of the first 4 GiB, 20 % of the next 4, 10 % of 8, 6 % of 112, then 2 %."""
    left, gib = _free_gib(memory_bytes), Fraction(0)
    for width, share in _OLDER:
        part = min(left, width)
        gib += part * share
        left -= part
    gib += left * _OLDER_REST
    return int(gib + Fraction(1, 2)) * _GIB


def newer_millicores(cpus: int) -> int:
    """SystemReserved CPU of the newer generation: 60 millicores and 12 for each further CPU, at least 500.

    The script prints hundredths of a CPU, so that the figure is one of whole 10 millicores.
    """
    return max(500, round(float(f"{0.06 + 0.012 * (max(1, cpus) - 1):.2f}") * 1000))
