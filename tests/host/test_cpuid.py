from __future__ import annotations

import json
from pathlib import Path

import pytest

from kata_node_agent.host.cpuid import CpuidInfo, Leaves, decode

DATA = json.loads((Path(__file__).parents[1] / "data" / "cpuid.json").read_text())
PROCESSORS = {item["name"]: item["leaves"] for item in DATA["processors"]}


def leaves_of(name: str) -> Leaves:
    return {
        (int(leaf, 16), 0): (int(a, 16), int(b, 16), int(c, 16), int(d, 16))
        for leaf, (a, b, c, d) in PROCESSORS[name].items()
    }


# name: vendor, vmx, svm, sse4.1, sse4.2, long mode, hypervisor's signature
EXPECTED = {
    "AuthenticAMD0100F23_K10_Kuma_CPUID": ("AuthenticAMD", 0, 1, 0, 0, 1, None),
    "AuthenticAMD0800F12_K17_Zen_CPUID4": ("AuthenticAMD", 0, 0, 1, 1, 1, "Microsoft Hv"),
    "AuthenticAMD0A00F11_K19_Milan_CPUID1": ("AuthenticAMD", 0, 1, 1, 1, 1, None),
    "CentaurHauls0040672_CNS_04_CPUID": ("CentaurHauls", 1, 0, 1, 1, 1, None),
    "CyrixInstead0000520_6x86_CPUID": ("CyrixInstead", 0, 0, 0, 0, None, None),
    "GenuineIntel00306F2_HaswellEP_CPUID": ("GenuineIntel", 1, 0, 1, 1, 1, None),
    "GenuineIntel00A0655_CometLake_CPUID3": ("GenuineIntel", 0, 0, 1, 1, 1, "Microsoft Hv"),
    "HygonGenuine0900F11_Hygon_01_CPUID": ("HygonGenuine", 0, 1, 1, 1, 1, None),
    "Vortex86 SoC0000611_Vortex86DX3_CPUID": ("Vortex86 SoC", 0, 0, 0, 0, 0, None),
}


@pytest.mark.parametrize("name", sorted(PROCESSORS))
def test_real_processors(name: str) -> None:
    info = decode(leaves_of(name))
    got = (
        info.vendor,
        info.vmx,
        info.svm,
        info.sse4_1,
        info.sse4_2,
        info.long_mode,
        info.hypervisor_signature,
    )
    assert got == EXPECTED[name]
    assert info.hypervisor is (info.hypervisor_signature is not None)


def test_brand_is_one_line_without_padding() -> None:
    assert (
        decode(leaves_of("AuthenticAMD0A00F11_K19_Milan_CPUID1")).brand == "AMD EPYC 7713 64-Core Processor"
    )


def test_milan_offers_confidential_vms() -> None:
    info = decode(leaves_of("AuthenticAMD0A00F11_K19_Milan_CPUID1"))
    assert (info.sev, info.sev_es, info.sev_snp) == (True, True, True)


def test_nothing_read_is_nothing_known() -> None:
    assert decode({}) == CpuidInfo()


def test_a_leaf_beyond_the_stated_maximum_is_not_looked_at() -> None:
    ones = 0xFFFFFFFF
    info = decode({(0, 0): (0, 0, 0, 0), (1, 0): (ones, ones, ones, ones)})
    assert (info.vmx, info.sse4_1, info.hypervisor) == (False, False, False)


def test_an_extended_maximum_that_is_none_means_no_extended_leaf() -> None:
    """Processors without that range answer with another leaf's data."""
    info = decode({(0x80000000, 0): (0x0000050B, 0, 0, 0), (0x80000001, 0): (0, 0, 0xFF, 0xFFFFFFFF)})
    assert (info.svm, info.long_mode) == (False, False)


def test_the_hypervisor_range_counts_only_with_its_bit() -> None:
    leaves = {(0, 0): (1, 0, 0, 0), (1, 0): (0, 0, 0, 0), (0x40000000, 0): (1, 0x4B4D564B, 0x564B4D56, 0x4D)}
    assert decode(leaves).hypervisor_signature is None


@pytest.mark.parametrize(("vendor", "expected"), [(b"GenuineIntel", False), (b"AuthenticAMD", None)])
def test_svm_without_its_leaf_is_unknown_only_where_it_could_be(vendor: bytes, expected: bool | None) -> None:
    words = [int.from_bytes(vendor[i : i + 4], "little") for i in (0, 4, 8)]
    assert decode({(0, 0): (1, words[0], words[2], words[1])}).svm is expected
