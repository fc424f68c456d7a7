from __future__ import annotations

import pytest

from kata_node_agent.eligibility import PROFILES, check_policy, evaluate
from kata_node_agent.eligibility.profiles import CHECKS
from kata_node_agent.errors import ConfigError
from kata_node_agent.host.facts import NodeFacts
from kata_node_agent.host.kvm import KvmFacts, KvmOutcome
from kata_node_agent.host.meminfo import MemInfo
from kata_node_agent.host.osrelease import OsRelease
from kata_node_agent.host.shm import SharedMemory
from tests.eligibility.cases import DONE, KVM_NODE, cpu, flags, good_node

DEBIAN = OsRelease("debian", pretty_name="Debian GNU/Linux 12 (bookworm)")
# The table of the design, by hand.
EVERYWHERE = {
    "arch",
    "kvm.device",
    "kvm.open",
    "kvm.api-version",
    "kvm.create-vm",
    "kvm.run-guest",
    "cpu.long-mode",
}
OPENSHIFT = {
    "os",
    "cpu.virtualization",
    "cpu.sse4",
    "cpu.firmware",
    "cpu.consistency",
    "cpu.bare-metal",
    "module.kvm",
    "module.kvm-vendor",
}
NOWHERE = {
    "cpu.vendor",
    "vhost.net",
    "vhost.vsock",
    "sysctl.overcommit-memory",
    "sysctl.panic-on-oom",
    "shm.ceiling",
    "kata.runtime",
}


def test_the_table_of_profiles() -> None:
    assert PROFILES == {"upstream": EVERYWHERE, "openshift": EVERYWHERE | OPENSHIFT}
    assert set(CHECKS) == EVERYWHERE | OPENSHIFT | NOWHERE


@pytest.mark.parametrize(
    ("system", "profile"),
    [
        (OsRelease("rhcos"), "openshift"),
        (OsRelease("rhel", "coreos"), "openshift"),
        (OsRelease("rhel"), "upstream"),
        (OsRelease("fedora", "coreos"), "upstream"),
        (DEBIAN, "upstream"),
        (None, "upstream"),
    ],
)
def test_the_profile_follows_the_system(system: OsRelease | None, profile: str) -> None:
    assert evaluate(good_node(os=system), profile=None).profile == profile


def test_what_does_not_hold_fails_only_where_required() -> None:
    facts = good_node(cpus=(cpu(ecx=0),), cpuinfo=flags("lm"))
    openshift = {check.id: check for check in evaluate(facts, profile="openshift").checks}
    upstream = {check.id: check for check in evaluate(facts, profile="upstream").checks}
    assert (openshift["cpu.virtualization"].status, upstream["cpu.virtualization"].status) == ("fail", "warn")
    assert openshift["cpu.virtualization"].message.endswith("KVM runs guests all the same")


def test_a_failure_outweighs_what_is_unknown() -> None:
    assert evaluate(NodeFacts(), profile="openshift").verdict == "unknown"
    assert evaluate(NodeFacts(os=DEBIAN), profile="openshift").verdict == "ineligible"
    verdict = evaluate(NodeFacts(os=DEBIAN), profile="openshift")
    assert [check.id for check in verdict.blocking] == ["os"]


def test_an_unknown_that_is_not_required_does_not_decide() -> None:
    verdict = evaluate(good_node(os=None, modules=None), profile="upstream")
    assert verdict.verdict == "eligible"
    assert {check.id for check in verdict.checks if check.status == "unknown"} >= {"os", "module.kvm"}


def test_require_and_waive() -> None:
    facts = good_node(os=DEBIAN)
    assert evaluate(facts, profile="openshift").verdict == "ineligible"
    waived = evaluate(facts, profile="openshift", waive=["os"])
    assert waived.verdict == "eligible"
    assert next(check.status for check in waived.checks if check.id == "os") == "warn"
    assert evaluate(facts, profile="upstream", require=["os"]).verdict == "ineligible"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"profile": "openshfit"}, "did you mean 'openshift'"),
        ({"profile": None, "require": ["cpu.sse"]}, "did you mean 'cpu.sse4'"),
        ({"profile": None, "waive": ["kvm.dev"]}, "did you mean 'kvm.device'"),
        ({"profile": None, "waive": ["zzzzzz"]}, "known: arch"),
        ({"profile": None, "require": ["os"], "waive": ["os"]}, "both required and waived"),
    ],
)
def test_names_that_do_not_exist(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_policy(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=words):
        evaluate(NodeFacts(), **arguments)  # type: ignore[arg-type]


def test_the_contract_of_the_json() -> None:
    document = evaluate(good_node(), profile=None).to_json()
    assert list(document) == ["schema", "verdict", "profile", "checks"]
    assert document["schema"] == "kata-node-agent/verdict/v1"
    for check in document["checks"]:
        assert list(check) == ["id", "status", "required", "reason", "message", "evidence", "remedy"]
    keys = {check["id"]: set(check["evidence"]) for check in document["checks"]}
    assert keys["cpu.vendor"] >= {"vendor", "brand"}
    assert keys["cpu.virtualization"] >= {"vmx", "svm"}
    assert keys["cpu.sse4"] >= {"sse4_1", "sse4_2"}
    assert keys["cpu.bare-metal"] >= {"hypervisor_bit", "signature"}
    assert keys["cpu.firmware"] >= {"cpuid", "kernel_flag", "msr"}
    assert keys["kvm.run-guest"] >= {"exit_reason", "value", "microseconds"}


def test_every_failure_and_every_unknown_has_a_remedy() -> None:
    for facts in (
        NodeFacts(),
        good_node(kvm=KvmFacts(KVM_NODE, KvmOutcome("open", 13))),
        good_node(kvm=None),
    ):
        for check in evaluate(facts, profile="openshift").checks:
            assert bool(check.remedy) == (check.status in {"fail", "warn", "unknown"}), check.id
            assert "\n" not in check.message


def test_the_ceiling_of_dev_shm_is_compared_with_allocatable_where_that_is_known() -> None:
    half = good_node(memory=MemInfo(64 << 30), shared_memory=SharedMemory(32 << 30, "statfs"))
    small = good_node(shared_memory=SharedMemory(32 << 30, "statfs"), allocatable_bytes=30 << 30)
    paged = good_node(memory=MemInfo(64 << 30, hugetlb_bytes=32 << 30), shared_memory=half.shared_memory)
    found = [
        next(check.status for check in evaluate(facts, profile=None).checks if check.id == "shm.ceiling")
        for facts in (half, small, paged)
    ]
    assert found == ["warn", "pass", "pass"]


def test_architectures_without_cpuid_are_decided_by_kvm() -> None:
    facts = good_node(arch="aarch64", cpus=(), cpuinfo=None, kvm=KvmFacts(KVM_NODE, DONE))
    checks = {check.id: (check.status, check.reason) for check in evaluate(facts, profile="openshift").checks}
    assert checks["cpu.virtualization"] == ("pass", "VirtualizationProvenByKvm")
    assert checks["cpu.sse4"] == checks["cpu.long-mode"] == ("skip", "NotOnThisArchitecture")
    assert checks["cpu.bare-metal"] == ("pass", "BareMetal")
    assert evaluate(facts, profile="openshift").verdict == "eligible"
    assert evaluate(good_node(arch="riscv64"), profile=None).verdict == "ineligible"
