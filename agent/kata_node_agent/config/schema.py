"""What can be configured: one dataclass a section, one field a setting, with its documentation beside it.

A setting's value is checked here, alone (`parse`), and together with the others (`Config.validate`). Where a value
comes from is not known here.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kata_node_agent.errors import ConfigError, QuantityError
from kata_node_agent.quantity import parse_bytes

# Below this a number was meant in another unit: Kata's own are MiB.
_MIN_VM_BYTES = 1024 * 1024

# Kubelet's gRPC client refuses messages above 4 MiB, and ListAndWatch always sends the whole list. A device takes 26 bytes
# when all are unhealthy, the longer word: tag and length (2 bytes) before the device, its id and its health, an id like
# kata-000000 (11) and "Unhealthy" (9).
MAX_SLOTS = 4 * 1024 * 1024 // 26

# Raw values are what TOML gives; environment and flags give str for every type.
Parser = Callable[[object], Any]


class Mode(enum.StrEnum):
    """What the agent does with a decision against a pod."""

    ENFORCE = "enforce"
    WARN = "warn"
    OFF = "off"


def _refuse(raw: object, wanted: str) -> ConfigError:
    try:
        shown = repr(raw)
    except ValueError:
        # A number of more digits than Python converts.
        shown = "a number of thousands of digits"
    return ConfigError(f"{shown if len(shown) <= 80 else shown[:80] + '…'} is not {wanted}")


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise _refuse(raw, "a text")
    return raw


def _path(raw: object) -> Path:
    text = _text(raw)
    if not text or "\0" in text:
        raise _refuse(raw, "a path")
    return Path(text)


def _optional_path(raw: object) -> Path | None:
    return None if raw == "" else _path(raw)


def _integer(minimum: int, maximum: int) -> Parser:
    def parse(raw: object) -> int:
        if isinstance(raw, str) and re.fullmatch(r"[+-]?[0-9]{1,18}", raw.strip()):
            raw = int(raw)
        if not isinstance(raw, int) or isinstance(raw, bool) or not minimum <= raw <= maximum:
            raise _refuse(raw, f"a whole number from {minimum} to {maximum}")
        return raw

    return parse


def _bytes(raw: object) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool):
        raw = str(raw)
    if not isinstance(raw, str):
        raise _refuse(raw, "an amount of memory such as 350Mi")
    try:
        return parse_bytes(raw)
    except QuantityError as error:
        raise ConfigError(error.message, hint=error.hint) from error


def _optional_bytes(raw: object) -> int | None:
    return None if raw == "" else _bytes(raw)


def _eviction(raw: object) -> str:
    """An amount, a percentage, or nothing; resolved against the node's capacity later."""
    text = _text(raw)
    if text.endswith("%"):
        if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", text[:-1]) or float(text[:-1]) > 100:
            raise _refuse(raw, "a percentage from 0% to 100%")
    elif text:
        _bytes(text)
    return text


def _boolean(raw: object) -> bool:
    if isinstance(raw, str) and raw in {"true", "false"}:
        return raw == "true"
    if not isinstance(raw, bool):
        raise _refuse(raw, "true or false")
    return raw


def _names(raw: object) -> tuple[str, ...]:
    if isinstance(raw, str):
        raw = [name.strip() for name in raw.split(",") if name.strip()]
    if not isinstance(raw, list) or not all(isinstance(name, str) for name in raw):
        raise _refuse(raw, "a list of names")
    return tuple(raw)


def _one_of(*names: str) -> Parser:
    def parse(raw: object) -> str:
        if raw not in names:
            raise _refuse(raw, "one of " + ", ".join(names))
        return str(raw)

    return parse


def _mode(raw: object) -> Mode:
    return Mode(_one_of(*Mode)(raw))


_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_RESOURCE = re.compile(rf"{_LABEL}(\.{_LABEL})*/[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?")
_MAX_RESOURCE_LENGTH = 253


def _resource(raw: object) -> str:
    """An extended resource: a DNS domain, a slash, a name of at most 63 characters; not in Kubernetes' own domain."""
    text = _text(raw)
    domain = text.partition("/")[0]
    if (
        len(text) > _MAX_RESOURCE_LENGTH
        or not _RESOURCE.fullmatch(text)
        or domain == "kubernetes.io"
        or domain.endswith(".kubernetes.io")
    ):
        raise _refuse(raw, "the name of an extended resource such as katacontainers.io/sandbox")
    return text


def _address(raw: object) -> str:
    text = _text(raw)
    host, separator, port = text.rpartition(":")
    if text and not (
        separator and host and port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 2**16
    ):
        raise _refuse(raw, "an address such as 127.0.0.1:9440 or [::1]:9440")
    return text


def _configz_url(raw: object) -> str:
    text = _text(raw)
    if text and not re.fullmatch(r"https?://[!-~]{1,400}", text):
        raise _refuse(raw, "a URL such as https://localhost:10250/configz")
    return text


def setting(default: object, parse: Parser, doc: str, *, live: bool = True) -> Any:
    """A field of a section. `live`: takes effect on reload; otherwise only at a restart."""
    return field(
        default=parse(default), metadata={"parse": parse, "doc": doc, "live": live, "default": default}
    )


@dataclass(frozen=True, slots=True)
class DevicePluginConfig:
    """How the agent appears to kubelet."""

    resource: str = setting(
        "katacontainers.io/sandbox",
        _resource,
        "extended resource under which free VMs are advertised",
        live=False,
    )
    directory: Path = setting(
        "/var/lib/kubelet/device-plugins",
        _path,
        "kubelet's device plugin folder (on the host; not below host_root)",
        live=False,
    )
    max_slots: int = setting(1000, _integer(0, 999_999), "never advertise more VMs than this")


@dataclass(frozen=True, slots=True)
class KubeletConfig:
    """Where kubelet's settings are, and what to believe instead of them. Empty means: as kubelet has it."""

    config_file: Path | None = setting(
        "", _optional_path, "KubeletConfiguration file; empty: the usual places, below host_root"
    )
    pod_resources_socket: Path = setting(
        "/var/lib/kubelet/pod-resources/kubelet.sock",
        _path,
        "kubelet's pod resources API (on the host; not below host_root)",
    )
    configz_url: str = setting(
        "",
        _configz_url,
        "ask kubelet itself, such as https://localhost:10250/configz; empty: files and flags only",
    )
    configz_token_file: Path | None = setting("", _optional_path, "token for configz_url, below host_root")
    configz_ca_file: Path | None = setting("", _optional_path, "who signed kubelet's certificate; the same")
    system_reserved_memory: int | None = setting("", _optional_bytes, "memory of systemReserved")
    kube_reserved_memory: int | None = setting("", _optional_bytes, "memory of kubeReserved")
    eviction_hard_memory: str = setting(
        "", _eviction, "evictionHard memory.available: an amount or a percentage"
    )


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """What one Kata VM costs the node."""

    vm_memory: int = setting(
        "2Gi", _bytes, "memory of a VM at boot, with its unit (Kata's default_memory is in Mi)"
    )
    host_overhead: int = setting("60Mi", _bytes, "VMM, virtiofsd and shim, without the VM's memory")


@dataclass(frozen=True, slots=True)
class EligibilityConfig:
    """Which checks decide."""

    profile: str = setting("auto", _text, "openshift, upstream, or auto: openshift on RHCOS, else upstream")
    require: tuple[str, ...] = setting([], _names, "ids of checks to require beyond the profile")
    waive: tuple[str, ...] = setting([], _names, "ids of checks that shall not decide")
    interval_seconds: int = setting(60, _integer(1, 3600), "how often the node is checked again")

    @property
    def chosen_profile(self) -> str | None:
        """The profile by name; ``None`` where the operating system chooses it."""
        return None if self.profile == "auto" else self.profile


@dataclass(frozen=True, slots=True)
class NfdConfig:
    """What Node Feature Discovery's worker reads of us, if it is installed."""

    publish: bool = setting(True, _boolean, "keep our features file, where NFD's folder exists")
    features_dir: Path = setting(
        "/etc/kubernetes/node-feature-discovery/features.d",
        _path,
        "folder of NFD's local source, below host_root",
    )
    label: str = setting(
        "auto",
        _one_of("auto", "always", "never"),
        "feature.node.kubernetes.io/runtime.kata=true when eligible; auto: in profile openshift only",
    )
    expiry_seconds: int = setting(
        3600, _integer(60, 86400), "what we published lapses so long after the agent's last sign of life"
    )


@dataclass(frozen=True, slots=True)
class EventsConfig:
    """Where hints to look again come from, beside the interval and changes in /dev."""

    kernel: bool = setting(True, _boolean, "follow kernel events (2 MiB of memory)", live=False)


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """Health for probes that cannot reach a Unix socket."""

    tcp_address: str = setting(
        "", _address, "address for grpc.health.v1 alone, such as 127.0.0.1:9440", live=False
    )


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """Metrics for Prometheus."""

    tcp_address: str = setting(
        "", _address, "address of /metrics, such as 127.0.0.1:9441; empty: none", live=False
    )


@dataclass(frozen=True, slots=True)
class Config:
    """All settings. Paths are the host's; see each section."""

    mode: Mode = setting("enforce", _mode, "enforce; warn: decide and record, refuse nothing; off")
    log_level: str = setting(
        "info", _one_of("debug", "info", "warning", "error"), "least severe message that is logged"
    )
    host_root: Path = setting(
        "/", _path, "folder where the host's /proc, /sys, /dev and /etc are found", live=False
    )
    run_dir: Path = setting(
        "/run/kata-node-agent", _path, "socket, lock and ledger; must not outlive a boot", live=False
    )
    state_dir: Path = setting("/var/lib/kata-node-agent", _path, "what outlives a boot", live=False)
    device_plugin: DevicePluginConfig = field(default_factory=DevicePluginConfig)
    kubelet: KubeletConfig = field(default_factory=KubeletConfig)
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    eligibility: EligibilityConfig = field(default_factory=EligibilityConfig)
    events: EventsConfig = field(default_factory=EventsConfig)
    nfd: NfdConfig = field(default_factory=NfdConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    health: HealthConfig = field(default_factory=HealthConfig)

    @property
    def cost_of_one_bytes(self) -> int:
        """What one more VM takes from the node ("The account" in ARCHITECTURE.md)."""
        return self.sandbox.vm_memory + self.sandbox.host_overhead

    def validate(self) -> None:
        """What only shows when the settings are seen together.

        Raises:
            ConfigError: they cannot work together; the message names the key.
        """
        if 0 < self.sandbox.vm_memory < _MIN_VM_BYTES:
            raise ConfigError(
                f"sandbox.vm_memory = {self.sandbox.vm_memory}: no VM boots with so few bytes",
                hint="write the unit: Kata's default_memory = 2048 is 2048Mi here",
            )
        if self.cost_of_one_bytes <= 0:
            raise ConfigError(
                "sandbox.vm_memory and sandbox.host_overhead are both 0",
                hint="a VM that costs nothing cannot be counted",
            )
        if self.device_plugin.max_slots > MAX_SLOTS:
            raise ConfigError(
                f"device_plugin.max_slots = {self.device_plugin.max_slots}: kubelet takes at most 4 MiB a message, "
                f"which holds {MAX_SLOTS} devices",
                hint=f"set device_plugin.max_slots to {MAX_SLOTS} or less",
            )
