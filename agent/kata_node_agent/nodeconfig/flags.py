"""Kubelet's flags that are settings too. Pure: a command line in, fields out, in the shape of a document's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import AgentError, HostError
from kata_node_agent.nodeconfig.document import Value, check_amounts
from kata_node_agent.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Flags:
    """What a command line says.

    Attributes:
        config: ``--config``; empty for none.
        config_dir: ``--config-dir``; empty for none.
        fields: field name → (value, flag's name).
        problems: flags that cannot be used, one line each.
    """

    config: str
    config_dir: str
    fields: Mapping[str, tuple[Value, str]]
    problems: tuple[str, ...]


def parse_flags(arguments: Sequence[str]) -> Flags:
    """The flags of a kubelet that matter here, in both spellings (``--flag=value``, ``--flag value``).

    Source: kubelet's flag types (component-base/cli/flag): a map that is given as a flag replaces the whole map of the
    files, and the same flag given again adds to it; a list likewise; of other flags the last one counts. ``_`` in a name
    is ``-``.
    """
    given: dict[str, list[str]] = {}
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--":
            break
        if not argument.startswith("--"):
            continue
        name, separator, value = argument[2:].partition("=")
        name = name.replace("_", "-")
        if name in _FLAGS or name in {"config", "config-dir"}:
            # All flags that we know take a value.
            given.setdefault(name, []).append(value if separator else next(waiting, ""))
    fields: dict[str, tuple[Value, str]] = {}
    problems: list[str] = []
    for name, values in given.items():
        if name not in _FLAGS:
            continue
        field, read = _FLAGS[name]
        try:
            value_read = read(values)
            check_amounts({field: value_read})
        except AgentError as error:
            problems.append(f"flag --{name}: {error.message}")
        else:
            fields[field] = (value_read, name)
    return Flags(given.get("config", [""])[-1], given.get("config-dir", [""])[-1], fields, tuple(problems))


def _pairs(separator: str) -> Callable[[list[str]], Value]:
    def read(values: list[str]) -> Value:
        pairs: dict[str, str | None] = {}
        for part in ",".join(values).split(","):
            name, found, amount = part.partition(separator)
            if part and not found:
                raise HostError(f"malformed pair, expect string{separator}string: {part!r}")
            if part:
                pairs[printable(name.strip())] = printable(amount.strip())
        return pairs

    return read


def _last(values: list[str]) -> Value:
    return printable(values[-1], 4096)


def _parts(separator: str) -> Callable[[list[str]], Value]:
    return lambda values: tuple(printable(part) for part in separator.join(values).split(separator) if part)


def _boolean(values: list[str]) -> Value:
    # Source: Go's strconv.ParseBool.
    if values[-1] in {"1", "t", "T", "TRUE", "true", "True"}:
        return True
    if values[-1] in {"0", "f", "F", "FALSE", "false", "False"}:
        return False
    raise HostError(f"not true or false: {values[-1][:40]!r}")


def _integer(values: list[str]) -> Value:
    digits = values[-1].removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 10:
        raise HostError(f"not a whole number: {values[-1][:40]!r}")
    return int(values[-1])


# Settings that no KubeletConfiguration has. Source: cmd/kubelet/app/options, KubeletFlags.
FLAGS_ONLY = {"runtime-cgroups": "runtimeCgroups", "root-dir": "rootDir"}

# Flag → (field of KubeletConfiguration, its reader). Source: cmd/kubelet/app/options, AddKubeletConfigFlags.
_FLAGS: dict[str, tuple[str, Callable[[list[str]], Value]]] = {
    "system-reserved": ("systemReserved", _pairs("=")),
    "kube-reserved": ("kubeReserved", _pairs("=")),
    "eviction-hard": ("evictionHard", _pairs("<")),
    "eviction-soft": ("evictionSoft", _pairs("<")),
    "reserved-cpus": ("reservedSystemCPUs", _last),
    "enforce-node-allocatable": ("enforceNodeAllocatable", _parts(",")),
    "system-reserved-cgroup": ("systemReservedCgroup", _last),
    "kube-reserved-cgroup": ("kubeReservedCgroup", _last),
    "kubelet-cgroups": ("kubeletCgroups", _last),
    "cgroup-driver": ("cgroupDriver", _last),
    "cgroup-root": ("cgroupRoot", _last),
    "max-pods": ("maxPods", _integer),
    "pod-max-pids": ("podPidsLimit", _integer),
    "system-cgroups": ("systemCgroups", _last),
    "topology-manager-policy": ("topologyManagerPolicy", _last),
    "topology-manager-scope": ("topologyManagerScope", _last),
    "memory-manager-policy": ("memoryManagerPolicy", _last),
    "cpu-manager-policy": ("cpuManagerPolicy", _last),
    "reserved-memory": ("reservedMemory", _parts(";")),
    "cgroups-per-qos": ("cgroupsPerQOS", _boolean),
    **{name: (field, _last) for name, field in FLAGS_ONLY.items()},
}
