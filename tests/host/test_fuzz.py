"""Hostile input for every reader of host text: whatever it is, the answer is a value or one typed error.

FUZZ_EXAMPLES=100000 makes it thorough.
"""

from __future__ import annotations

import contextlib
import json
import os
import tomllib
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kata_node_agent.cli.verdict_text import as_npd, as_text
from kata_node_agent.eligibility import evaluate
from kata_node_agent.errors import AgentError
from kata_node_agent.host.cpuid import decode
from kata_node_agent.host.cpuinfo import parse_cpuinfo
from kata_node_agent.host.facts import NodeFacts, parse_cpu_list
from kata_node_agent.host.kata import containerd_handlers, crio_handlers
from kata_node_agent.host.kernel import parse_builtin
from kata_node_agent.host.meminfo import parse_meminfo
from kata_node_agent.host.osrelease import parse_os_release
from kata_node_agent.host.platform import parse_control_program
from kata_node_agent.host.shm import parse_mount_size
from kata_node_agent.host.snapshot import SCHEMA, read_snapshot, write_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
thorough = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


def text_like(*words: str) -> st.SearchStrategy[str]:
    """Text made of what the format is made of, with anything between."""
    piece = st.one_of(st.sampled_from(words), st.text(max_size=8), st.integers().map(str))
    return st.lists(piece, max_size=40).map("".join)


MEMINFO = text_like(
    "MemTotal:", "MemAvailable:", "HugePages_Total:", "Hugetlb:", " kB", "\n", " ", "0", "1024"
)
CPUINFO = text_like(
    "processor\t: ",
    "processor 0: version = FF",
    "vendor_id\t: ",
    "IBM/S390",
    "flags\t\t: ",
    "\nCPU implementer",
    "features\t: ",
    "sie",
    "vmx",
    "\nplatform",
    "\nrevision",
    "\n\n",
    "\n",
    ": ",
)
OS_RELEASE = text_like(
    "ID=", "VARIANT_ID=", "OPENSHIFT_VERSION=", "rhel", "coreos", '"', "'", "\\", "\n", "="
)
MOUNTS = text_like("tmpfs ", "/dev/shm ", "size=", "%", "k,", "g", " 0 0\n", ",", "9" * 30)
CPU_LIST = text_like("0", "-", ",", "7", "\n")
SYSINFO = text_like("VM00 Control Program:", "z/VM", "\n", " ", "Manufacturer:")

PARSERS: list[tuple[Callable[[str], object], st.SearchStrategy[str]]] = [
    (parse_meminfo, MEMINFO),
    (parse_cpuinfo, CPUINFO),
    (parse_os_release, OS_RELEASE),
    (lambda text: parse_mount_size(text, 1 << 30), MOUNTS),
    (lambda text: parse_mount_size(text, None), MOUNTS),
    (parse_cpu_list, CPU_LIST),
    (parse_control_program, SYSINFO),
    (parse_builtin, text_like("kernel/", "kvm", ".ko", "\n", "-")),
]


@thorough
@given(st.data())
def test_parsers_of_host_text(data: st.DataObject) -> None:
    parse, strategy = data.draw(st.sampled_from(PARSERS))
    text = data.draw(
        st.one_of(strategy, st.text(), st.binary().map(lambda raw: raw.decode("utf-8", "replace")))
    )
    # Anything else than a typed error ends the test.
    with contextlib.suppress(AgentError):
        parse(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@thorough
@given(JSON)
def test_runtime_configurations_of_any_shape(value: Any) -> None:
    for document in (value, {"crio": {"runtime": {"runtimes": value}}}):
        if isinstance(document, dict):
            list(crio_handlers(document))
    for plugin in ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"):
        list(containerd_handlers({"plugins": {plugin: {"containerd": {"runtimes": value}}}}))
    tomllib.loads("")


REGISTER = st.integers(0, 0xFFFFFFFF)
LEAVES = st.dictionaries(
    st.tuples(
        st.sampled_from([0, 1, 7, 0x40000000, 0x80000000, 0x80000001, 0x80000002, 0x8000001F]), st.just(0)
    ),
    st.tuples(REGISTER, REGISTER, REGISTER, REGISTER),
)


@thorough
@given(LEAVES)
def test_cpuid_of_any_processor(leaves: dict[tuple[int, int], tuple[int, int, int, int]]) -> None:
    info = decode(leaves)
    for text in (info.vendor, info.brand, info.hypervisor_signature):
        assert text is None or text


NAMES = [field for field in NodeFacts.__dataclass_fields__ if field != "cpus"]
TEXTS = st.sampled_from(["char", "absent", "done", "run", "x86_64", "s390x", "rhcos", "kvm", ""]) | st.text(
    max_size=5
)
INNER = st.dictionaries(
    st.sampled_from(
        [
            "id",
            "node",
            "outcome",
            "path",
            "kind",
            "step",
            "errno",
            "groups",
            "cpus",
            "vendor",
            "brand",
            "flags",
            "name",
            "builtin",
            "parameters",
            "total_bytes",
            "source",
            "kvm",
            "tun",
            "shape",
            "value",
            "microseconds",
            "register",
            "handlers",
            "runtime",
        ]
    )
    | st.text(max_size=5),
    st.recursive(
        TEXTS | st.integers(-1, 1 << 65) | st.booleans() | st.none(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["path", "kind", "step", "cpus", "name", "flags"]), inner, max_size=4
            )
        ),
        max_leaves=8,
    ),
    max_size=6,
)
HEX = st.integers(0, 1 << 33).map(hex) | st.text(max_size=4)
CPUS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "cpu": st.integers(-1, 1 << 65) | st.text(max_size=2),
            "leaves": st.dictionaries(HEX, st.lists(HEX, min_size=3, max_size=5), max_size=4) | JSON,
            "problem": TEXTS,
        },
    ),
    max_size=3,
)
SNAPSHOTS = st.builds(
    lambda facts, cpus: {"schema": SCHEMA, **facts, **({"cpus": cpus} if cpus is not None else {})},
    st.dictionaries(st.sampled_from(NAMES), INNER | TEXTS | JSON | st.lists(INNER, max_size=2), max_size=4),
    st.none() | CPUS | JSON,
)


@thorough
@given(
    st.one_of(
        SNAPSHOTS.map(lambda value: json.dumps(value).encode()),
        st.binary(),
        JSON.map(lambda value: json.dumps(value).encode()),
    )
)
def test_snapshots_of_any_content(data: bytes) -> None:
    try:
        facts = read_snapshot(data)
    except AgentError:
        return
    # What was read can be judged, printed anywhere, and written again.
    for profile in (None, "openshift", "upstream"):
        verdict = evaluate(facts, profile=profile)
        json.dumps(verdict.to_json()).encode()
        as_text(verdict).encode("utf-8")
        assert "\n" not in as_npd(verdict)
    assert read_snapshot(write_snapshot(facts).encode()) == facts
