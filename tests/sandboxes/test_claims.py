"""What a command line claims, and what none can make us read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.sandboxes.claims import Claim, claim_of, split_command_line
from tests.sandboxes.support import ID, qemu, shim, virtiofsd

CASES = [
    (qemu(), Claim("vmm", ID, "qemu")),
    (["qemu-kvm", "-name", "sandbox-abc"], Claim("vmm", "abc", "qemu")),
    (
        ["/opt/kata/bin/qemu-system-aarch64", "-name", "guest=sandbox-abc,process=x"],
        Claim("vmm", "abc", "qemu"),
    ),
    (
        ["/opt/kata/bin/qemu-system-x86_64-snp-experimental", "-name", "sandbox-abc"],
        Claim("vmm", "abc", "qemu"),
    ),
    (
        ["cloud-hypervisor", "--api-socket", f"/run/vc/vm/{ID}/clh-api.sock"],
        Claim("vmm", ID, "cloud-hypervisor"),
    ),
    (
        ["/opt/kata/bin/cloud-hypervisor", f"--api-socket=path=/run/kata/{ID}/root/ch-api.sock"],
        Claim("vmm", ID, "cloud-hypervisor"),
    ),
    (
        ["firecracker", "--api-sock", f"/run/vc/firecracker/{ID}/root/f.sock"],
        Claim("vmm", ID, "firecracker"),
    ),
    (["/firecracker", "--id", "abc", "--api-sock", "/api.socket"], Claim("vmm", "abc", "firecracker")),
    (virtiofsd(), Claim("virtiofsd", ID)),
    (
        ["virtiofsd", "--fd=3", "-o", f"source=/run/kata-containers/shared/sandboxes/{ID}/shared,cache=auto"],
        Claim("virtiofsd", ID),
    ),
    (shim(), Claim("shim", ID)),
    (["/opt/kata/bin/containerd-shim-kata-qemu-v2", "-id", "abc"], Claim("shim", "abc")),
]


@pytest.mark.parametrize(("words", "claim"), CASES, ids=lambda value: str(value)[:40])
def test_each_of_katas_programs_says_whose_it_is(words: list[str], claim: Claim) -> None:
    assert claim_of(words) == claim


@pytest.mark.parametrize(
    "words",
    [
        [],
        [""],
        ["bash", "-c", "qemu-system-x86_64 -name sandbox-abc"],
        ["grep", "-name", "sandbox-abc"],
        ["qemu-system-x86_64", "-name"],
        ["qemu-system-x86_64", "-name", "guest"],
        ["qemu-system-x86_64", "-name", "sandbox-"],
        ["qemu-system-x86_64", "-name", "sandbox-../../etc"],
        ["qemu-system-x86_64", "-name", "sandbox-a/b"],
        ["qemu-system-x86_64", "-name", "sandbox-a\nb"],
        ["qemu-system-x86_64", "-name", "sandbox-" + "a" * 129],
        ["containerd-shim-kata-v2", "-id"],
        ["containerd-shim-kata-v2", "-id", "abc", "start"],
        ["containerd-shim-kata-v2", "-id", "abc", "delete"],
        ["containerd-shim-runc-v2", "-id", "abc"],
        ["virtiofsd", "--socket-path=/tmp/fs.sock"],
        ["cloud-hypervisor", "--api-socket", "/run/vc/vm/../x/api.sock"],
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_what_names_no_sandbox_claims_none(words: list[str]) -> None:
    assert claim_of(words) is None


def test_a_command_line_that_was_cut_loses_its_last_word() -> None:
    assert split_command_line(b"qemu\0-name\0sandbox-abc\0", 100) == ["qemu", "-name", "sandbox-abc"]
    assert split_command_line(b"qemu\0-name\0sandbox-ab", 20) == ["qemu", "-name"]
    assert split_command_line(b"a title of its own", 100) == ["a title of its own"]
    assert split_command_line(b"a title of it", 13) == []


def test_an_empty_word_and_bytes_that_are_no_text_are_words_too() -> None:
    words = split_command_line(b"qemu-kvm\0\0-name\0sandbox-\xff\0", 100)
    assert words == ["qemu-kvm", "", "-name", "sandbox-\ufffd"]
    assert claim_of(words) is None


@given(st.binary(max_size=400))
def test_any_bytes_are_read_without_an_error_and_an_id_is_never_a_path(content: bytes) -> None:
    for start in (
        b"",
        b"qemu-kvm\0-name\0sandbox-",
        b"containerd-shim-kata-v2\0-id\0",
        b"virtiofsd\0/run/vc/vm/",
    ):
        claim = claim_of(split_command_line(start + content, 4096))
        if claim is not None:
            assert claim.sandbox_id.isprintable()
            assert not set(claim.sandbox_id) & set("/\0\n")
            assert claim.sandbox_id not in {".", ".."}
