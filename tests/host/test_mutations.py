"""Damaged files of real shape: what the recorded nodes have, with bytes changed, cut, doubled and swapped.

Quick enough for 100,000 inputs a parser (FUZZ_MUTATIONS=100000, as in CI), where `test_fuzz` builds its inputs from
grammars and looks deeper. The inputs are the same in every run.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kata_node_agent.errors import AgentError
from kata_node_agent.host.cpuinfo import parse_cpuinfo
from kata_node_agent.host.facts import parse_cpu_list
from kata_node_agent.host.kernel import parse_builtin
from kata_node_agent.host.meminfo import parse_meminfo
from kata_node_agent.host.osrelease import parse_os_release
from kata_node_agent.host.platform import parse_control_program
from kata_node_agent.host.shm import parse_mount_size
from kata_node_agent.host.snapshot import read_snapshot
from kata_node_agent.nodeconfig.kubelet import parse_kubelet_settings
from kata_node_agent.publish.nfd.text import is_current
from kata_node_agent.quantity import parse as parse_quantity

if TYPE_CHECKING:
    from collections.abc import Callable

INPUTS = int(os.environ.get("FUZZ_MUTATIONS", "1000"))
HERE = Path(__file__).parents[1]
KUBELET = b"""kind: KubeletConfiguration
systemReserved: {memory: 3Gi, cpu: 500m}
evictionHard: &a
  memory.available: 10%
kubeReserved: *a
mergeDefaultEvictionSettings: true
"""
MEMINFO = b"MemTotal:       65536000 kB\nMemAvailable:   60000000 kB\nHugePages_Total:       4\nHugepagesize:       2048 kB\n"


def files(pattern: str) -> list[bytes]:
    """Recorded files, the short ones: a change in a long one is rarely where it matters."""
    contents = [path.read_bytes() for path in sorted(HERE.glob(pattern)) if path.is_file()]
    return sorted({content for content in contents if content}, key=lambda content: (len(content), content))[
        :12
    ]


def text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    """A parser of text as one of bytes, decoded as host files are."""
    return lambda content: parse(content.decode("utf-8", errors="replace"))


PARSERS: dict[str, tuple[Callable[[bytes], object], list[bytes]]] = {
    "meminfo": (text(parse_meminfo), [MEMINFO]),
    "cpuinfo": (text(parse_cpuinfo), files("trees/*/proc/cpuinfo")),
    "os-release": (text(parse_os_release), files("trees/*/etc/os-release")),
    "mounts": (
        text(lambda mounts: parse_mount_size(mounts, 1 << 34)),
        [b"tmpfs /dev/shm tmpfs rw,size=50%,nr_inodes=1k 0 0\n"],
    ),
    "cpu list": (text(parse_cpu_list), [b"0-3,7,9-11\n"]),
    "control program": (
        text(parse_control_program),
        [b"Manufacturer: IBM\nVM00 Control Program: z/VM 7.2.0\n"],
    ),
    "modules.builtin": (
        text(parse_builtin),
        [b"kernel/arch/x86/kvm/kvm.ko\nkernel/arch/x86/kvm/kvm-intel.ko\n"],
    ),
    "snapshot": (read_snapshot, files("data/snapshots/*.json")[:4]),
    "KubeletConfiguration": (lambda content: parse_kubelet_settings(content, "x"), [KUBELET]),
    "quantity": (text(parse_quantity), [b"1.5Gi", b"500m", b"1e3", b"-0.25Ki"]),
    "features file": (
        text(lambda content: is_current(content, "a=b\n", lifetime_seconds=600, now=0)),
        [b"# +expiry-time=1970-01-01T00:05:00Z\na=b\n"],
    ),
}


def mutate(seed: bytes, chance: random.Random) -> bytes:
    """The seed with up to four damages."""
    content = bytearray(seed)
    for _ in range(chance.randint(1, 4)):
        if not content:
            break
        start = chance.randrange(len(content))
        end = min(len(content), start + chance.randint(1, 12))
        match chance.randrange(7):
            case 0:
                content[start] = chance.randrange(256)
            case 1:
                del content[start:]
            case 2:
                del content[start:end]
            case 3:
                content[start:start] = content[start:end] * chance.randint(1, 5)
            case 4:
                content[start:end] = chance.randbytes(end - start)
            case 5:
                content[start:end] = chance.choice(
                    [b"-1", b"9" * 25, b"\0", b"\n", b'"', b"{", b"[", b":", b"\xff", b"null", b"1e999"]
                )
            case _:
                other = chance.randrange(len(content))
                content[start], content[other] = content[other], content[start]
    return bytes(content)


@pytest.mark.parametrize("name", list(PARSERS))
def test_a_damaged_file_is_a_value_or_a_typed_error(name: str) -> None:
    parse, seeds = PARSERS[name]
    assert seeds
    chance = random.Random(name)
    for number in range(INPUTS):
        content = mutate(seeds[number % len(seeds)], chance)
        try:
            parse(content)
        except AgentError:
            continue
        except Exception as error:  # the input is what matters, so it is told
            pytest.fail(f"{type(error).__name__}: {error} for {content!r}")
